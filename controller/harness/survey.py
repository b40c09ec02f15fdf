"""What a cluster has and what is installed on it, so that two that should be alike can be compared."""

from __future__ import annotations

import platform
import re
from typing import Any

from .hardware import asked_of_gpus

MOST_PACKAGES = 512
TEXT_CHARACTERS = 200


def survey() -> dict[str, Any]:
    """GPU and driver as nvidia-smi names them, "" where it names none; and the Python that runs us, with its packages.

    To be taken before a trainer starts, which could write to where packages are looked for.
    """
    names, drivers = asked_of_gpus("name"), asked_of_gpus("driver_version")
    return {
        "gpu": next(iter(names), "")[:TEXT_CHARACTERS],
        "driver": next(iter(drivers), "")[:TEXT_CHARACTERS],
        "gpus": len(names),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """The version of every installed package by its normalised name; the first MOST_PACKAGES where there are more.

    A package that is there twice counts as import finds it: by its first place.
    """
    from importlib import metadata  # takes a moment that no other attempt need spend

    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        try:
            name, version = distribution.metadata["Name"], distribution.version
        except Exception:  # Whatever a broken package raises, it is not what this attempt is about.
            continue
        if name and version:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower()[:TEXT_CHARACTERS], version[:TEXT_CHARACTERS])
    return dict(sorted(found.items())[:MOST_PACKAGES])
