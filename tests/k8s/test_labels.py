"""Accelerators are called what SkyPilot calls them, and given to whom SkyPilot would give them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from controller.k8s.labels import FORMATS, fits, format_of, is_slice

PRODUCT = "nvidia.com/gpu.product"
GKE = "cloud.google.com/gke-accelerator"
SKYPILOT = "skypilot.co/accelerator"


@pytest.mark.parametrize(
    ("key", "value", "accelerator"),
    [
        (PRODUCT, "NVIDIA-H100-80GB-HBM3", "H100"),
        (PRODUCT, "NVIDIA-H100-PCIe", "H100"),
        (PRODUCT, "NVIDIA-H100-NVL", "H100"),
        (PRODUCT, "NVIDIA-H200", "H200"),
        (PRODUCT, "NVIDIA-H200-NVL", "H200"),
        (PRODUCT, "NVIDIA-GH200-480GB", "GH200"),
        (PRODUCT, "NVIDIA-A100-SXM4-80GB", "A100-80GB"),
        (PRODUCT, "NVIDIA-A100-SXM4-40GB", "A100"),
        (PRODUCT, "NVIDIA-L40S", "L40S"),
        (PRODUCT, "NVIDIA-GeForce-RTX-4090", "RTX4090"),
        (GKE, "nvidia-h100-80gb", "H100"),
        (GKE, "nvidia-h100-mega-80gb", "H100-MEGA-80GB"),
        (GKE, "nvidia-h200-141gb", "H200"),
        (GKE, "nvidia-tesla-t4", "T4"),
        (SKYPILOT, "h100", "H100"),
        (SKYPILOT, "h200", "H200"),
        ("gpu.nvidia.com/class", "H100_NVLINK_80GB", "H100"),
        ("gpu.nvidia.com/class", "H200", "H200"),
        ("karpenter.k8s.aws/instance-gpu-name", "h100", "H100"),
        ("nebius.com/gpu-name", "H200", "H200"),
    ],
)
def test_a_label_names_an_accelerator(key: str, value: str, accelerator: str) -> None:
    kind = format_of([{"other": "label"}, {key: value}])
    assert kind and kind.of({key: value}) == (key, value) and kind.accelerator(value) == accelerator


def test_one_kind_of_label_is_read_in_a_context() -> None:
    kind = format_of([{PRODUCT: "NVIDIA-H200"}, {SKYPILOT: "h100", PRODUCT: "NVIDIA-H100-PCIe"}])
    assert kind and kind.of({PRODUCT: "NVIDIA-H200"}) is None
    assert kind.of({SKYPILOT: "h100", PRODUCT: "NVIDIA-H100-PCIe"}) == (SKYPILOT, "h100")


def test_a_kind_with_a_wrong_value_is_passed_over() -> None:
    kind = format_of([{SKYPILOT: "H100", PRODUCT: "NVIDIA-H100-PCIe"}])
    assert kind and kind.keys == (PRODUCT,)


@pytest.mark.parametrize("labels", [{}, {PRODUCT: ""}, {PRODUCT: " "}, {"k8s.amazonaws.com/accelerator": "h100"}])
def test_what_skypilot_does_not_read_is_no_label(labels: dict[str, str]) -> None:
    assert format_of([labels]) is None


@pytest.mark.parametrize(
    ("wanted", "accelerator", "does"),
    [
        ("H100", "H100", True),
        ("h100", "H100", True),
        ("H100-80GB", "H100", True),
        ("H100", "H100-MEGA-80GB", True),
        ("H100", "H200", False),
        ("H200", "GH200", False),
        ("H20", "H200", False),
        ("A100", "A100-80GB", True),
        ("A100-80GB", "A100", False),
        ("V100-32GB", "V100", False),
        ("H100", "", False),
        ("", "H100", False),
    ],
)
def test_a_request_is_given_what_fits(wanted: str, accelerator: str, does: bool) -> None:
    assert fits(wanted, accelerator) is does


def test_a_slice_is_no_gpu() -> None:
    assert is_slice("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb") and is_slice("NVIDIA-H100-80GB-HBM3-SHARED")
    assert not is_slice("NVIDIA-H100-80GB-HBM3")


NAMES = [
    *("GB200", "H200", "H200-SXM-141GB", "H100", "H100-80GB", "H100-MEGA-80GB", "A100", "A100-80GB", "A100-80G"),
    *("V100", "V100-32GB", "L4", "L40", "L40S", "RTX4090", "T4"),
]
VALUES = {
    "skypilot.co/accelerator": ["h100", "H100", "a100-80gb", "rtx4090"],
    "cloud.google.com/gke-accelerator": [
        *("nvidia-h100-80gb", "nvidia-h100-mega-80gb", "nvidia-h200-141gb", "nvidia-tesla-t4", "nvidia-l4", "h100"),
        *("nvidia-b200", "nvidia-a100-80gb", "nvidia-tesla-a100"),
    ],
    "karpenter.k8s.aws/instance-gpu-name": ["h100", "l4"],
    "nvidia.com/gpu.product": [
        *("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "NVIDIA-H200", "NVIDIA-H200-NVL", "NVIDIA-GH200-480GB"),
        *("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-PCIE-40GB", "NVIDIA-L4", "NVIDIA-L40S", "NVIDIA-B200", "Tesla-T4"),
        *("NVIDIA-GeForce-RTX-4090", "NVIDIA-RTX-A6000", "Tesla-V100-SXM2-32GB", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"),
        *("NVIDIA-GB200", "NVIDIA-A10G", "NVIDIA-A10", "NVIDIA-RTX-6000-Ada-Generation"),
    ],
    "gpu.nvidia.com/class": ["H100_NVLINK_80GB", "H200", "B200"],
    "nebius.com/gpu-name": ["H200", "h200"],
}

ASK_SKYPILOT = """
import json, sys
from sky.provision.kubernetes import utils
asked = json.load(sys.stdin)
def of(key, value):
    formatter = next(one for one in utils.LABEL_FORMATTER_REGISTRY if one.match_label_key(key))
    valid = formatter.validate_label_value(value)[0]
    return [valid, formatter.get_accelerator_from_label_value(value) if valid else None]
print(json.dumps({
    "keys": [one.get_label_keys() for one in utils.LABEL_FORMATTER_REGISTRY],
    "values": {key: [of(key, value) for value in values] for key, values in asked["values"].items()},
    "fits": [[utils._accelerator_name_matches(a, [b]) for b in asked["names"]] for a in asked["names"]],
}))
"""


def test_skypilot_itself_says_the_same() -> None:
    # In a process of its own: what SkyPilot imports warns, and takes its time.
    done = subprocess.run(
        [sys.executable, "-c", ASK_SKYPILOT],
        input=json.dumps({"values": VALUES, "names": NAMES}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["keys"] == [list(kind.keys) for kind in FORMATS]
    for key, values in VALUES.items():
        kind = next(one for one in FORMATS if key in one.keys)
        for value, (valid, name) in zip(values, said["values"][key], strict=True):
            assert kind.valid(value) is valid, value
            if valid:
                # There is one H100: SkyPilot gives it for the other name, too.
                assert kind.accelerator(value) == {"H100-80GB": "H100"}.get(name, name), value
    assert said["fits"] == [[fits(one, other) for other in NAMES] for one in NAMES]
