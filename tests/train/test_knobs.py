"""What a controller reads from train.py without running it: knobs, derived constants, and the asserts below them."""

from __future__ import annotations

import ast
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prepare.profile import PROFILES, TINY

SOURCE = (Path(__file__).resolve().parents[2] / "train/train.py").read_text()
BODY = ast.parse(SOURCE).body
FUNCTIONS = {function.__name__: function for function in (len, min, max, set, all, any, abs)}


def assignments() -> dict[str, ast.expr]:
    return {
        node.targets[0].id: node.value
        for node in BODY
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper()
    }


def knobs() -> dict[str, Any]:
    values = {}
    for name, node in assignments().items():
        try:
            values[name] = ast.literal_eval(node)
        except ValueError:
            # `2**19` is plain arithmetic of literals and counts as one; a name makes it derived.
            if not any(isinstance(part, ast.Name) for part in ast.walk(node)):
                values[name] = eval(ast.unparse(node), {"__builtins__": {}})
    return values


def settled(changes: dict[str, Any]) -> dict[str, Any]:
    """All constants after `changes`, derived ones computed from knobs alone."""
    values = {**FUNCTIONS, "__builtins__": {}, **knobs(), **changes}
    for name, node in assignments().items():
        if name not in values:
            values[name] = eval(ast.unparse(node), values)
    return values


def broken(changes: dict[str, Any]) -> list[str]:
    values = settled(changes)
    tests = [node for node in BODY if isinstance(node, ast.Assert)]
    assert len(tests) >= 15
    return [ast.literal_eval(node.msg) for node in tests if not eval(ast.unparse(node.test), values)]  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_can_be_held(profile: Any) -> None:
    assert set(profile.knobs) <= set(knobs())
    assert broken(profile.knobs) == []
    assert settled(profile.knobs)["SEQUENCE_LENGTH"] == profile.sequence_length


def test_knobs_carry_upstream_s_names_and_values() -> None:
    upstream = {
        "ASPECT_RATIO": 64,
        "HEAD_DIM": 128,
        "WINDOW_PATTERN": "SSSL",
        "TOTAL_BATCH_SIZE": 2**19,
        "EMBEDDING_LR": 0.6,
        "UNEMBEDDING_LR": 0.004,
        "MATRIX_LR": 0.04,
        "SCALAR_LR": 0.5,
        "WEIGHT_DECAY": 0.2,
        "ADAM_BETAS": (0.8, 0.95),
        "WARMUP_RATIO": 0.0,
        "WARMDOWN_RATIO": 0.5,
        "FINAL_LR_FRAC": 0.0,
        "DEPTH": 8,
        "DEVICE_BATCH_SIZE": 128,
    }
    assert {name: knobs()[name] for name in upstream} == upstream


def test_every_knob_says_what_it_is() -> None:
    lines = SOURCE.splitlines()
    for name in knobs():
        (line,) = [line for line in lines if line.startswith(f"{name} = ")]
        assert "  # " in line


def test_every_knob_is_used_and_some_only_act_through_a_derived_constant() -> None:
    uses = Counter(node.id for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Name))
    assert [name for name in knobs() if uses[name] < 2] == []
    assert uses["ASPECT_RATIO"] == uses["SHORT_WINDOW_DIVISOR"] == 2


def test_aspect_ratios_90_and_96_are_the_same_model() -> None:
    assert settled({"ASPECT_RATIO": 90})["MODEL_DIM"] == settled({"ASPECT_RATIO": 96})["MODEL_DIM"] == 768
    assert settled({"ASPECT_RATIO": 97})["MODEL_DIM"] == 896


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DEPTH": 0}, "at least one block"),
        ({"HEAD_DIM": 33}, "even"),
        ({"WINDOW_PATTERN": "SXL"}, "S and L"),
        ({"WINDOW_PATTERN": ""}, "S and L"),
        ({"DEVICE_BATCH_SIZE": 96}, "whole passes"),
        ({"MATRIX_LR": 0.0}, "learning rates"),
        ({"WARMDOWN_RATIO": 1.1}, "fractions"),
        ({"ADAM_BETAS": (0.9, 1.0)}, "ADAM_BETAS"),
        ({"SHORT_WINDOW_DIVISOR": 4096}, "short window"),
        ({"SOFTCAP": math.nan}, "SOFTCAP"),
    ],
)
def test_values_the_file_cannot_hold_are_named_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    assert any(message in each for each in broken(changes))


def test_the_tiny_model_has_197_thousand_parameters_by_plain_arithmetic() -> None:
    values = settled(TINY.knobs)
    width, depth = values["MODEL_DIM"], values["DEPTH"]
    matrices = depth * width * width * (4 + 2 * values["MLP_RATIO"])
    embeddings = (2 + (depth + 1) // 2) * TINY.vocab_size * width
    assert matrices + embeddings == 196_608
