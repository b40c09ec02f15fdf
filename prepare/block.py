"""The summary a run ends with, in the form upstream's tools read: `---`, then one `key: value` a line."""

from __future__ import annotations

from collections.abc import Mapping

FORMATS = {
    "val_bpb": ".6f",
    "training_seconds": ".1f",
    "total_seconds": ".1f",
    "peak_vram_mb": ".1f",
    "mfu_percent": ".2f",
    "total_tokens_M": ".1f",
    "num_steps": "d",
    "num_params_M": ".1f",
}
"""Upstream's keys in upstream's order; further values follow as they come."""

PEAK_BF16 = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "B200": 2250e12, "4090": 165e12}
"""Dense bf16 FLOP/s by what the device's name contains, from the vendor's data sheets."""


def format_block(values: Mapping[str, float | int | str]) -> str:
    """The block as text without a final newline. Missing keys of FORMATS are left out, other keys are appended."""
    keys = [key for key in FORMATS if key in values] + [key for key in values if key not in FORMATS]
    width = max((len(key) for key in keys), default=0) + 2
    return "\n".join(["---", *(f"{key + ':':<{width}}{_text(key, values[key])}" for key in keys)])


def mfu_percent(flops_per_token: float, tokens_per_second: float, device_name: str) -> float:
    """Model FLOP utilisation in percent of the observed device's peak; 0 where that peak is not known."""
    peak = next((peak for name, peak in PEAK_BF16.items() if name in device_name), None)
    return 100 * flops_per_token * tokens_per_second / peak if peak else 0.0


def _text(key: str, value: float | int | str) -> str:
    return format(value, FORMATS[key]) if key in FORMATS else str(value)
