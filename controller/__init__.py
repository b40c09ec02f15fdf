"""autoresearch: a controller that does machine-learning research on its own."""

__version__ = "0.1.0"
