from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.proposers.scale import moved

NAMES = st.sampled_from(["LR", "WARMUP_RATIO", "MUON_MOMENTUM", "ADAM_BETA2", "DEPTH"])


@pytest.mark.parametrize(
    ("knob", "value", "down", "up"),
    [
        ("MATRIX_LR", 0.04, 0.02, 0.08),
        ("ADAM_EPS", 1e-10, 5e-11, 2e-10),
        ("DEPTH", 2, 1, 3),
        ("DEPTH", 1, None, 2),
        ("DEPTH", 8, 6, 10),
        ("BATCH", 64, 32, 128),
        ("RAMP", 300, 200, 450),
        ("STEPS", 0, None, 1),
        ("FLAG", -1, None, None),
        ("WARMDOWN_RATIO", 0.5, 0.3, 0.7),
        ("WARMDOWN_RATIO", 0.9, 0.7, 1.0),
        ("WARMDOWN_RATIO", 1.0, 0.8, None),
        ("WARMUP_RATIO", 0.0, None, 0.1),
        ("RESIDUAL_FRAC", 0.01, 0.005, 0.02),
        ("MOMENTUM", 0.95, 0.9, 0.975),
        ("BIAS", -2.0, -4.0, -1.0),
    ],
)
def test_a_step_fits_the_kind_of_knob(knob: str, value: float, down: float | None, up: float | None) -> None:
    assert (moved(knob, value, -1), moved(knob, value, 1)) == (down, up)


@given(NAMES, st.floats(1e-12, 1e12) | st.integers(0, 10**9), st.sampled_from([0.25, 0.5, 1.0]))
def test_up_is_larger_and_down_is_smaller_and_neither_is_negative(knob: str, value: float, step: float) -> None:
    up, down = moved(knob, value, step), moved(knob, value, -step)
    assert up is None or (up > value and isfinite(up) and type(up) is type(value))
    assert down is None or (0 <= down < value and type(down) is type(value))
