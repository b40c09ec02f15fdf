"""What of its environment a trainer may see: how to run, never a key."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PASSED_ON = re.compile(
    r"PATH|HOME|LANG|LC_.*|TZ|LD_LIBRARY_PATH|CUDA_.*|NVIDIA_.*|OMP_.*|MKL_.*|VIRTUAL_ENV|AUTORESEARCH_CACHE"
    # A task's own script: which environment its set-up made, and which of several machines it is on.
    r"|UV_(PROJECT_ENVIRONMENT|CACHE_DIR|OFFLINE)|SKYPILOT_(NODE_RANK|NODE_IPS|NUM_NODES|NUM_GPUS_PER_NODE)"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.I)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNED = ("CUDA_VISIBLE_DEVICES",)
"""Which GPU is an attempt's own says whoever starts its harness."""


def passed_on(name: str) -> bool:
    """Whether the environment variable `name` reaches the trainer."""
    return _PASSED_ON.fullmatch(name) is not None and not looks_secret(name)


def looks_secret(name: str) -> bool:
    """Whether a variable called `name` is most likely a key, or the like."""
    return _SECRET.search(name) is not None


def declared(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of the variables that a workspace declares that may reach its trainer, and that a process can have."""
    return {
        name: value
        for name, value in environment.items()
        if _NAME.fullmatch(name) and not looks_secret(name) and name not in _ASSIGNED and "\0" not in value
    }
