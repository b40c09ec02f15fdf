"""What of its environment a trainer may see: how to run, never a key."""

from __future__ import annotations

import re

_PASSED_ON = re.compile(
    r"PATH|HOME|LANG|LC_.*|TZ|LD_LIBRARY_PATH|CUDA_.*|NVIDIA_.*|OMP_.*|MKL_.*|VIRTUAL_ENV|AUTORESEARCH_CACHE"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL")


def passed_on(name: str) -> bool:
    """Whether the environment variable `name` reaches the trainer."""
    return _PASSED_ON.fullmatch(name) is not None and not _SECRET.search(name)
