from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.edits import broken_promise, model_digest, refusal, resolve, set_knobs
from controller.records import Objection

TRAIN = (Path(__file__).parents[2] / "train" / "train.py").read_text()
SMALL = '''"""A model."""
DEPTH = 8
ASPECT_RATIO = 64  # width per block
HEAD_DIM = 128
PATTERN = "SSL"
MODEL_DIM = -(-DEPTH * ASPECT_RATIO // HEAD_DIM) * HEAD_DIM
assert MODEL_DIM % HEAD_DIM == 0 and set(PATTERN) <= set("SL"), "whole heads"
assert MODEL_DIM < 2048, "too wide"

def build():
    """Build it."""
    return DEPTH, MODEL_DIM, HEAD_DIM
'''


def test_a_knob_that_acts_only_through_others_is_not_effective() -> None:
    assert resolve(SMALL) == {"DEPTH": 8, "HEAD_DIM": 128, "MODEL_DIM": 512}


@pytest.mark.parametrize("source", [SMALL, TRAIN])
def test_aspect_ratios_that_round_to_one_width_are_one_model(source: str) -> None:
    assert model_digest(source, {"ASPECT_RATIO": 90}) == model_digest(source, {"ASPECT_RATIO": 96})
    assert model_digest(source, {"ASPECT_RATIO": 90}) != model_digest(source)
    assert refusal(set_knobs(source, {"ASPECT_RATIO": 60}), source, {}) == (
        Objection.NO_OP,
        "it is the same model as the incumbent",
    )


@given(st.integers(1, 20), st.integers(1, 200), st.sampled_from([32, 64, 128]))
def test_the_digest_of_values_is_that_of_the_file_with_these_values(depth: int, ratio: int, head: int) -> None:
    values = {"DEPTH": depth, "ASPECT_RATIO": ratio, "HEAD_DIM": head}
    changed = set_knobs(SMALL, values)
    assert model_digest(SMALL, values) == model_digest(changed)
    assert broken_promise(SMALL, values) == broken_promise(changed)
    assert resolve(SMALL, values) == resolve(changed)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# width per block", "# something else"),
        ('"""Build it."""', '"""Do build it."""'),
        ("DEPTH = 8", "DEPTH: int = 2**3"),
        ("    return DEPTH, MODEL_DIM, HEAD_DIM", "    return (\n        DEPTH, MODEL_DIM,\n        HEAD_DIM)"),
        ("-(-DEPTH * ASPECT_RATIO // HEAD_DIM) * HEAD_DIM", "DEPTH * 64 if DEPTH else max(1, 2)"),
        ('assert MODEL_DIM < 2048, "too wide"\n', ""),
    ],
)
def test_two_spellings_of_a_model_have_one_digest(old: str, new: str) -> None:
    assert old in SMALL
    assert model_digest(SMALL.replace(old, new)) == model_digest(SMALL)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("DEPTH = 8", "DEPTH = 8.0"),
        ("return DEPTH,", "return DEPTH + 1,"),
        ("def build", "print(ASPECT_RATIO)\ndef build"),
        ("def build", "getattr(module, 'ASPECT_RATIO')\ndef build"),
        ("def build", "this.ASPECT_RATIO\ndef build"),
        ("def build", "globals()\ndef build"),
        ("def build", "from x import *\ndef build"),
        ("def build", "min = max\ndef build"),
        ("ASPECT_RATIO = 64", "ASPECT_RATIO = f(64)"),
        ("< 2048", "< 512"),
    ],
)
def test_what_may_be_another_model_has_another_digest(old: str, new: str) -> None:
    assert old in SMALL
    assert model_digest(SMALL.replace(old, new)) != model_digest(SMALL)


@pytest.mark.parametrize("reach", ["print(ASPECT_RATIO)", "x = vars()", "f('ASPECT_RATIO')", "WIDTH = f(ASPECT_RATIO)"])
def test_a_knob_that_may_be_read_elsewhere_is_effective(reach: str) -> None:
    assert resolve(f"{SMALL}\n{reach}\n")["ASPECT_RATIO"] == 64


def test_a_shadowed_function_is_not_python_s_own() -> None:
    source = "def min(a, b):\n    return b\nA = min(1, 2)\nprint(A)\nassert min(1, 2) == 2"
    assert resolve(source) == {}
    assert broken_promise(source) is None


@pytest.mark.parametrize(
    ("source", "broken"),
    [
        ("A = 3\nassert A % 2 == 0, 'A must be even'", "A must be even (A % 2 == 0)"),
        ("A = 3\nassert A < 2 < 1", "A < 2 < 1"),
        ("A = 'SX'\nassert set(A) <= {'S', 'L'}, 'S and L'", "S and L"),
        ("A = (1, 2)\nassert A[1] in (1, 3) or A[-1] is None, 'x'", "x"),
        ("A = None\nassert A is not None", "A is not None"),
        ("assert not 1 if 1 else 1", "not 1 if 1 else 1"),
        ("A = 4\nassert A % 2 == 0", None),
        ("assert B == 1\nB = 2", None),
        ("assert f(1) == 2", None),
        ("assert 1 / 0", None),
        ("import A\nassert A == 2", None),
        ("def f():\n    assert 1 == 2", None),
        ("assert 9**9**9 == 0", None),
        ("assert round(1, -10**9)", None),
        ("assert " + "not " * 300 + "1", None),
    ],
)
def test_the_first_assertion_that_is_known_to_fail_is_named(source: str, broken: str | None) -> None:
    found = broken_promise(source)
    assert found is None if broken is None else found is not None and found.startswith(broken)


@pytest.mark.parametrize(
    "source",
    [
        "A = 9**9**9",
        "A = 'a' * 10**9",
        "A = 2**100000",
        "A = 10**-10**9",
        "A = round(1, -10**9)",
        "A = int('9' * 4000)",
        "A = '%1000000000d' % 1",
        "A = (((((1,) * 1000,) * 1000,) * 1000,) * 1000)",
        "A = 1" + " < 1" * 50_000,
        "A = f'" + "{a}" * 10_000 + "'",
        "A = 0x" + "f" * 100_000,
        "\n".join(["A0 = 'a' * 1000", *(f"A{i + 1} = A{i} + A{i}" for i in range(100))]),
        "\n".join(["A0 = (1, 1)", *(f"A{i + 1} = (A{i}, A{i})" for i in range(100))]),
    ],
)
def test_nothing_is_computed_before_its_size_is_known(source: str) -> None:
    started = time.perf_counter()
    resolve(source)
    model_digest(source)
    broken_promise(source)
    assert time.perf_counter() - started < 5


def test_the_real_trainer_resolves_and_keeps_its_promises() -> None:
    assert {"DEPTH", "MODEL_DIM", "MATRIX_LR"} <= resolve(TRAIN).keys()
    assert not {"ASPECT_RATIO", "TOKENS_PER_PASS"} & resolve(TRAIN).keys()
    assert broken_promise(TRAIN) is None
    broken = broken_promise(TRAIN, {"TOTAL_BATCH_SIZE": 1000})
    assert broken is not None and "TOTAL_BATCH_SIZE" in broken


def test_preflight_says_why() -> None:
    other = set_knobs(SMALL, {"DEPTH": 4})
    assert refusal(other, SMALL, {}) is None
    assert refusal("A = (", SMALL, {}) == (
        Objection.SYNTAX,
        "it does not parse: line 1: '(' was never closed; change the file so that Python can parse it",
    )
    assert refusal(set_knobs(SMALL, {"DEPTH": 99}), SMALL, {}) == (
        Objection.ASSERTION,
        "it fails its own assertion: too wide (MODEL_DIM < 2048)",
    )
    assert refusal(SMALL, SMALL, {}) == (Objection.NO_OP, "it is the same model as the incumbent")
    assert refusal(other, SMALL, {model_digest(other): "c7"}) == (
        Objection.DUPLICATE,
        "it is the same model as c7, which was tried before",
    )


def test_a_candidate_that_no_accelerator_of_the_tier_can_hold_is_refused() -> None:
    """By its own word, MEMORY_GIB, which is computed from its knobs."""
    deep = set_knobs(TRAIN, {"DEPTH": 16})
    assert refusal(deep, TRAIN, {}, [["H200"], ["H100"]]) == (
        Objection.MEMORY,
        "it takes at least 98 GiB of memory (MEMORY_GIB), H100 has 79",
    )
    for accelerators in (["H200"], ["H100", "H200"], ["H100", "a kind nobody knows"], []):
        assert refusal(deep, TRAIN, {}, [accelerators]) is None
    assert refusal(set_knobs(TRAIN, {"DEPTH": 10}), TRAIN, {}, [["H100"]]) is None
    assert refusal(deep.replace("MEMORY_GIB", "THAT"), TRAIN, {}, [["H100"]]) is None, "it says nothing of its memory"
    halved = set_knobs(deep, {"DEVICE_BATCH_SIZE": 64})
    assert refusal(halved, TRAIN, {}, [["H100"]]) is None


def test_what_a_file_says_of_its_memory_makes_it_no_other_model() -> None:
    assert model_digest(TRAIN) == model_digest(TRAIN.replace("8 * 8192)", "16 * 8192)"))
