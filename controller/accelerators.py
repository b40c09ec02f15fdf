"""What is known of accelerators by their name."""

from __future__ import annotations

MEMORY_GIB = {"A100": 39, "A100-80GB": 79, "B200": 178, "H100": 79, "H200": 140, "L4": 22, "L40S": 44}
"""What a program can allocate, from the vendor's data sheets less what the driver keeps."""


SAME = {"H100-80GB": "H100", "H200-141GB": "H200"}
"""What some call accelerators of which there is one kind only."""


def canonical(name: str) -> str:
    """The accelerator's name as settings, tiers and results have it, whatever an infrastructure calls it."""
    return SAME.get(name, name)


def memory_gib(name: str) -> float | None:
    """How much memory an accelerator called `name` has for a program, in GiB; None where that is not known."""
    return MEMORY_GIB.get(name)
