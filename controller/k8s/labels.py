"""Which accelerator a node has, by its labels: SkyPilot's rules, so that what we count is what it would use.

SkyPilot reads one kind of label in a context: the first of those below that any node carries. Nodes that only carry
another kind have no accelerator for it. tests/k8s/test_labels.py holds all this against SkyPilot's own functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from controller.accelerators import canonical

_PRODUCTS = (
    *("GB300", "GB200", "B300", "B200", "B100", "GH200", "H200", "H100-80GB"),
    *("H100-MEGA", "H100", "A100-80GB", "A100", "A10G", "A10", "A16", "A30"),
    *("A40", "RTX6000-Ada", "L40S", "L40", "L4", "A6000", "A5000", "A4000"),
    *("V100-32GB", "V100", "P100", "P40", "P4000", "P4", "T4g", "T4"),
    *("K80", "M60"),
)
"""Names looked for in `nvidia.com/gpu.product`, the more special ones first."""
_LEAST_GIB = {"a100": 40, "v100": 16}
"""Memory where a name without it means the smaller of two products."""


@dataclass(frozen=True)
class Format:
    """A kind of label: its keys, the accelerator that a value names, and whether SkyPilot accepts the value."""

    keys: tuple[str, ...]
    accelerator: Callable[[str], str]
    valid: Callable[[str], bool] = bool
    rule: str = ""

    def of(self, labels: Mapping[str, str]) -> tuple[str, str] | None:
        """Key and value of the label of this kind among `labels`."""
        return next(((key, labels[key]) for key in self.keys if labels.get(key, "").strip()), None)


def format_of(nodes: Iterable[Mapping[str, str]]) -> Format | None:
    """The kind of label that SkyPilot reads in a context whose nodes have these labels; None where it knows none."""
    known = list(nodes)
    for kind in FORMATS:
        # SkyPilot looks at the first label of a kind only: where it refuses that one, it passes on to the next kind.
        first = next((found for found in map(kind.of, known) if found), None)
        if first and kind.valid(first[1]):
            return kind
    return None


def fits(wanted: str, accelerator: str) -> bool:
    """Whether SkyPilot gives a request for `wanted` a node that has `accelerator`."""
    asked, had = wanted.lower(), accelerator.lower()
    if not had or not asked:
        return False
    if asked == had:
        return True
    short, long = sorted((asked, had), key=len)
    if not long.startswith(f"{short}-"):
        return False
    least, most = _memory(asked), _memory(had)
    return least is None or most is None or least <= most


def is_slice(value: str) -> bool:
    """Whether a label's value says that what counts as one GPU is a slice of one, or shared."""
    return "-MIG-" in value or value.endswith("-SHARED")


def _memory(name: str) -> int | None:
    base, suffix = re.fullmatch(r"(.*?)(?:-(\d+)gb?)?", name, re.DOTALL).groups()  # type: ignore[union-attr]
    if base not in _LEAST_GIB:
        return None
    return int(suffix) if suffix else _LEAST_GIB[base]


def _of_gke(value: str) -> str:
    name = value.removeprefix("nvidia-").removeprefix("tesla-").upper()
    return value if value.startswith("tpu-") else canonical(name)


def _of_product(value: str) -> str:
    for name in _PRODUCTS:
        pattern = rf"{name[:4]}.*-80GB" if name in ("A100-80GB", "H100-80GB") else rf"\b{name}\b"
        if re.search(pattern, value):
            return canonical(name)
    return value.upper().replace("NVIDIA-", "").replace("GEFORCE-", "").replace("RTX-", "RTX")


FORMATS = (
    Format(("skypilot.co/accelerator",), str.upper, lambda value: value == value.lower(), "must be in lower case"),
    Format(
        ("cloud.google.com/gke-accelerator", "cloud.google.com/gke-tpu-accelerator"),
        _of_gke,
        lambda value: value.startswith(("nvidia-", "tpu-")),
        "must begin with nvidia-",
    ),
    Format(("karpenter.k8s.aws/instance-gpu-name", "karpenter.k8s.aws/instance-accelerator-name"), str.upper),
    Format(("nvidia.com/gpu.product",), _of_product),
    Format(("gpu.nvidia.com/class",), lambda value: {"H100_NVLINK_80GB": "H100"}.get(value, value)),
    Format(("nebius.com/gpu-name",), str.upper, lambda value: value == value.upper(), "must be in upper case"),
)
"""In SkyPilot's order."""
