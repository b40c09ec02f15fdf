from __future__ import annotations

from prepare.block import format_block, mfu_percent

VALUES = {
    "depth": 8,
    "val_bpb": 0.9979,
    "training_seconds": 300.14,
    "total_seconds": 325.9,
    "peak_vram_mb": 45060.2,
    "mfu_percent": 39.8,
    "total_tokens_M": 499.6,
    "num_steps": 953,
    "num_params_M": 50.3,
}


def test_the_block_is_the_one_upstream_prints() -> None:
    assert format_block(VALUES) == (
        "---\n"
        "val_bpb:          0.997900\n"
        "training_seconds: 300.1\n"
        "total_seconds:    325.9\n"
        "peak_vram_mb:     45060.2\n"
        "mfu_percent:      39.80\n"
        "total_tokens_M:   499.6\n"
        "num_steps:        953\n"
        "num_params_M:     50.3\n"
        "depth:            8"
    )


def test_missing_values_are_left_out() -> None:
    assert format_block({"val_bpb": 1.0, "note": "x"}) == "---\nval_bpb: 1.000000\nnote:    x"


def test_utilisation_is_relative_to_the_observed_device() -> None:
    assert mfu_percent(6e8, 989e3, "NVIDIA H100 80GB HBM3") == 60.0
    assert mfu_percent(6e8, 312e3, "NVIDIA A100-SXM4-40GB") == 60.0
    assert mfu_percent(6e8, 1e6, "a device nobody knows") == 0.0
