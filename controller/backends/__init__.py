"""Where attempts run: one file each, one protocol, one conformance class."""

from controller.backends.protocol import (
    Awaited,
    Backend,
    BackendEvent,
    Bundle,
    Ended,
    Fleet,
    Progressed,
    Started,
    Unreachable,
    Vanished,
)

__all__ = [
    "Awaited",
    "Backend",
    "BackendEvent",
    "Bundle",
    "Ended",
    "Fleet",
    "Progressed",
    "Started",
    "Unreachable",
    "Vanished",
]
