"""autoresearch: a controller that does machine-learning research on its own."""

import logging

# Who wants to read the log opens one (`logbook`); nothing of it goes to the terminal by itself.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"
