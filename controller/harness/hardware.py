"""What the cluster really has, whatever it was called when it was asked for."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

HIDDEN = ("", "-1", "NoDevFiles")
"""What CUDA_VISIBLE_DEVICES begins with where no program is to see any: CUDA ends its list at what names no GPU."""


def gpu_names() -> list[str]:
    """The short name of each visible GPU ("H100", "H200", …); empty where there is none."""
    return [short_name(name) for name in asked_of_gpus("name")]


def asked_of_gpus(what: str) -> list[str]:
    """What nvidia-smi says of each visible GPU when it is asked for `what`; empty where it says nothing."""
    if not shutil.which("nvidia-smi"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    which = ["-i", visible] if re.fullmatch(r"[0-9]+(,[0-9]+)*", visible) else []
    query = ["nvidia-smi", *which, f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in answer.splitlines()]


def observed_accelerator() -> str:
    """What this machine has: the first visible GPU's short name, or "CPU"."""
    return next(iter(gpu_names()), "CPU")


def device_for(accelerator: str) -> str:
    """What a program can train on here: "cpu", also where the machine has a GPU that CUDA hides from it, or "cuda"."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and visible.split(",")[0].strip() in HIDDEN
    return "cpu" if hidden or accelerator == "CPU" else "cuda"


def short_name(name: str) -> str:
    """`NVIDIA H100 80GB HBM3` is an H100."""
    words = name.replace("NVIDIA", "").replace("Tesla", "").split()
    return next((word for word in words if re.match(r"[A-Z]+[0-9]", word)), words[0] if words else "GPU")


def memory_bytes() -> int:
    """How much memory this machine has, or this container may use."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # control groups of version 2 and 1
        with contextlib.suppress(OSError, ValueError):  # "max", where there is no limit
            most = min(most, int(Path("/sys/fs/cgroup", limit).read_text()))
    return most


def wake_gpu() -> None:
    """Have the device that CUDA's memory needs appear, which from within a sandbox nobody could (a no-op elsewhere)."""
    if shutil.which("nvidia-modprobe") and not Path("/dev/nvidia-uvm").exists():
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            subprocess.run(["nvidia-modprobe", "-u", "-c", "0"], capture_output=True, timeout=30)
