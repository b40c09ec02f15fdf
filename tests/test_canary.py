"""How a new cluster is told to differ from the others, and that what programs there wrote can do no harm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.canary import SENTENCE_CHARACTERS, Canary, difference

ENVIRONMENT = {
    "gpu": "NVIDIA H100 80GB HBM3",
    "driver": "550.54.15",
    "gpus": 1,
    "python": "3.11.2",
    "machine": "x86_64",
    "packages": {"numpy": "2.3.0", "torch": "2.13.0", "triton": "3.7"},
}
REPORT = {
    "status": "done",
    "reason": "",
    "accelerator": "H100",
    "device": "cuda",
    "budget": "30 s",
    "hashes": {"train": "t" * 64, "fixed": "f" * 64, "data": "d" * 64, "tokenizer": "k" * 64, "model": "m" * 64},
    "metrics": {"val_bpb": 1.25, "total_tokens_M": 60.0, "training_seconds": 30.0},
    "environment": ENVIRONMENT,
}


def canary(said: str = "H100", /, **report: Any) -> Canary:
    """A canary like all others but for what is given; metrics, hashes and environment are added to the usual ones."""
    whole = REPORT | report
    for name in ("metrics", "hashes", "environment"):
        whole[name] = REPORT[name] | report.get(name, {})
    return Canary("cluster", said, whole)


def packages(**versions: str | None) -> dict[str, Any]:
    """The usual packages but for those given, as part of an environment."""
    found = {**ENVIRONMENT["packages"], **versions}
    return {"packages": {name: version for name, version in found.items() if version}}


def speed(millions: float) -> dict[str, float]:
    """Metrics of one that trains so many million tokens a second."""
    return {"total_tokens_M": 30.0 * millions, "training_seconds": 30.0}


def scores(*values: float) -> list[Canary]:
    """Others with these scores."""
    return [canary(metrics={"val_bpb": value}) for value in values]


USUAL = canary()
CPU = {"gpu": "", "driver": ""}
NO_GPU: dict[str, Any] = {"accelerator": "CPU", "device": "cpu", "environment": CPU}

ALIKE: dict[str, tuple[Canary, Sequence[Canary]]] = {
    "the first": (USUAL, []),
    "the same": (USUAL, [USUAL]),
    "another card's name and driver": (
        canary("A100", environment={"gpu": "NVIDIA A100", "driver": "535"}, accelerator="A100"),
        [USUAL],
    ),
    "a patch of python": (canary(environment={"python": "3.11.9"}), [USUAL]),
    "another machine name": (canary(environment={"gpus": 8, "machine": "?"}), [USUAL]),
    "the first with a model's own hash": (canary(hashes={"model": "x"}), [USUAL]),
    "other code": (USUAL, [canary(hashes={"train": "x", "data": "x"}), canary(hashes={"fixed": "x", "data": "y"})]),
    "another installer": (canary(environment=packages(pip="26.1", certifi="2026.11")), [USUAL]),
    "nothing known of packages": (canary(environment={"packages": None, "python": ""}), [USUAL]),
    "nothing known of the others' packages": (USUAL, [canary(environment={"packages": None, "python": None})]),
    "a score within one per cent": (canary(metrics={"val_bpb": 1.262}), [USUAL]),
    "a score of another accelerator's": (canary(metrics={"val_bpb": 2.0}), [canary("A100", accelerator="A100")]),
    "a score of another budget": (canary(metrics={"val_bpb": 2.0}, budget="60 s"), [USUAL]),
    "a score among scattered ones": (canary(metrics={"val_bpb": 1.37}), scores(1.21, 1.23, 1.25, 1.27, 1.29)),
    "nine tenths of the speed": (canary(metrics=speed(1.8)), [USUAL, USUAL]),
    "slower than a single other": (canary(metrics=speed(0.1)), [USUAL]),
    "slower than another accelerator": (
        canary(metrics=speed(0.1)),
        [canary("A100", accelerator="A100"), canary("A100", accelerator="A100")],
    ),
    "faster": (canary(metrics=speed(20.0)), [USUAL, USUAL]),
    "slow CPUs": (canary("", metrics=speed(0.1), **NO_GPU), [canary("", **NO_GPU)] * 3),
    "hidden GPUs": (canary(device="cpu", metrics=speed(0.1)), [canary(device="cpu")] * 3),
    "no GPU where none was said": (canary("", **NO_GPU), [USUAL]),
    "no GPU where none has one": (canary("H100", **NO_GPU), [canary("H100", **NO_GPU)]),
    "a GPU where nothing was said": (canary(""), []),
    "a harness that says no device": (canary(device=None), [USUAL, USUAL]),
    "the same as most": (USUAL, [USUAL, canary(hashes={"data": "x"}, environment=packages(torch="1")), USUAL]),
    "the same as the earliest": (USUAL, [USUAL, canary(hashes={"data": "x"}, environment=packages(torch="1"))]),
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_cluster_is_like_the_others_with(name: str) -> None:
    new, others = ALIKE[name]
    assert difference(new, others, "val_bpb") is None


DIFFERENT: dict[str, tuple[Canary, Sequence[Canary], str]] = {
    "a crash": (canary(status="crash", reason="no libcuda"), [], "its canary ended as crash: no libcuda"),
    "a crash without a reason": (canary(status="lost"), [USUAL], "its canary ended as lost"),
    "another accelerator than was said": (
        canary("H200"),
        [],
        "it has the accelerator H100, where H200 was said",
    ),
    "other data": (
        canary(hashes={"data": "0123456789abcdef"}),
        [USUAL],
        "the hash of its data is 0123456789a…, where the others have ddddddddddd…",
    ),
    "another tokenizer": (
        canary(hashes={"tokenizer": "k"}),
        [USUAL],
        "the hash of its tokenizer is k, where the others have kkkkkkkkkkk…",
    ),
    "a hash that the others don't have": (
        canary(hashes={"image": "i"}),
        [USUAL],
        "the hash of its image is i, where the others have none",
    ),
    "other data on another accelerator": (
        canary("A100", environment={"gpu": "NVIDIA A100"}, accelerator="A100", hashes={"data": "x"}),
        [USUAL],
        "the hash of its data is x, where the others have ddddddddddd…",
    ),
    "another python": (
        canary(environment={"python": "3.10.13"}),
        [USUAL],
        "python 3.10, where the others have 3.11",
    ),
    "another torch": (
        canary(environment=packages(torch="2.12.1")),
        [USUAL],
        "torch 2.12.1, where the others have 2.13.0",
    ),
    "a package that is missing": (
        canary(environment=packages(numpy=None)),
        [USUAL],
        "no numpy, where the others have 2.3.0",
    ),
    "a package too many": (canary(environment=packages(apex="1.0")), [USUAL], "apex 1.0, where the others have none"),
    "many packages": (
        canary(environment=packages(a="1", b="1", c="1", d="1", torch="1", triton="1")),
        [USUAL],
        "torch 1, where the others have 2.13.0; triton 1, where the others have 3.7; a 1, where the others have none; "
        "3 packages more",
    ),
    "another than most": (
        canary(environment=packages(torch="3")),
        [canary(environment=packages(torch="3")), USUAL, USUAL],
        "torch 3, where the others have 2.13.0",
    ),
    "another than the earliest": (
        canary(environment=packages(torch="3")),
        [USUAL, canary(environment=packages(torch="3"))],
        "torch 3, where the others have 2.13.0",
    ),
    "another card": (
        canary(environment={"gpu": "NVIDIA H100 NVL"}),
        [USUAL],
        "its GPU is NVIDIA H100 NVL, where the others with H100 have NVIDIA H100 80GB HBM3",
    ),
    "another driver": (
        canary(environment={"driver": "535.1"}),
        [USUAL],
        "its GPU driver is 535.1, where the others with H100 have 550.54.15",
    ),
    "no GPU": (canary(**NO_GPU), [USUAL], "no GPU was seen on it, where the others with H100 have one"),
    "a hidden GPU": (
        canary(device="cpu"),
        [USUAL],
        "its GPU is hidden from programs, where the others with H100 train on theirs",
    ),
    "a worse score": (
        canary(metrics={"val_bpb": 1.264}),
        [USUAL],
        "val_bpb 1.264, where the others have 1.25",
    ),
    "a better score": (
        canary(metrics={"val_bpb": 1.2}),
        scores(1.24, 1.25, 1.9),
        "val_bpb 1.2, where the others have 1.25",
    ),
    "a score far from four scattered ones": (
        canary(metrics={"val_bpb": 1.37}),
        scores(1.23, 1.25, 1.25, 1.27),
        "val_bpb 1.37, where the others have 1.25",
    ),
    "a score too far from scattered ones": (
        canary(metrics={"val_bpb": 1.42}),
        scores(1.21, 1.23, 1.25, 1.27, 1.29),
        "val_bpb 1.42, where the others have 1.25",
    ),
    "no score": (
        canary(metrics={"val_bpb": None}),
        [USUAL],
        "its canary has no val_bpb, where the others have 1.25",
    ),
    "half the speed": (
        canary(metrics=speed(1.0)),
        [USUAL, USUAL],
        "it trains on 1 million tokens a second, where the others do on 2",
    ),
    "two differences": (
        canary(hashes={"data": "x"}, metrics={"val_bpb": 3.0}),
        [USUAL],
        "the hash of its data is x, where the others have ddddddddddd…; val_bpb 3, where the others have 1.25",
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_cluster_differs_by(name: str) -> None:
    new, others, sentence = DIFFERENT[name]
    assert difference(new, others, "val_bpb") == sentence


@pytest.mark.parametrize("hashes", [None, {}, {"train": "t"}, {"fixed": "f"}, "tf", {"train": "", "fixed": "f"}])
def test_a_canary_without_the_hashes_of_its_code_says_nothing(hashes: Any) -> None:
    new = Canary("cluster", "H100", REPORT | {"hashes": hashes})
    for others in ([], [USUAL], [new]):
        assert difference(new, others, "val_bpb") == "its canary does not say which code it ran"


@pytest.mark.parametrize("report", [{}, None, [], "done", {"status": None}, {"status": ["done"]}, {"status": True}])
def test_a_canary_without_a_status_has_no_result(report: Any) -> None:
    assert difference(Canary("cluster", "H100", report), [USUAL], "val_bpb") == "its canary ended without a result"


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ("A100-SXM4-80GB", "A100-80GB"),
        ("A100-SXM4-40GB", "A100"),
        ("V100-SXM2-16GB", "V100"),
        ("H100", "H100-SXM"),
        ("h100", "H100"),
        ("A6000", "RTXA6000"),
        ("GeForce", "RTX4090"),
        ("GPU", "H100"),
        ("T4", ""),
        ("T4", "CPU"),
    ],
)
def test_one_card_has_several_names(seen: str, said: str) -> None:
    assert difference(canary(said, accelerator=seen), [], "val_bpb") is None


@pytest.mark.parametrize(("seen", "said"), [("H200", "H100"), ("L4", "L40S"), ("H20", "H200"), ("A10", "A100")])
def test_two_cards_have_two_names(seen: str, said: str) -> None:
    assert difference(canary(said, accelerator=seen), [], "val_bpb") == (
        f"it has the accelerator {seen}, where {said} was said"
    )


def test_reasons_are_bounded_and_made_harmless() -> None:
    reason = difference(canary(status="crash\x1b[2J", reason="a\nb\x1b]0;x\x07" + "y" * 10**6), [], "val_bpb")
    assert reason is not None
    assert reason.isprintable()
    assert reason.startswith("its canary ended as crash [2J: a b ]0;x yyy")
    assert len(reason) < 300
    too_long_to_print = 10**5000
    assert difference(canary(status="lost", reason=too_long_to_print), [], "val_bpb") == "its canary ended as lost"
    many = {f"p\x1b{number}" + "x" * 1000: "\n" * 1000 + "1" * 10**5 for number in range(1000)}
    said = difference(canary(environment={"packages": many}), [USUAL], "val_bpb")
    assert said is not None and said.isprintable() and len(said) <= SENTENCE_CHARACTERS


odd = st.one_of(st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=5))
odder = st.recursive(
    odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ODDITIES = [*REPORT, *(f"{outer}/{name}" for outer in ("hashes", "metrics", "environment") for name in REPORT[outer])]


@given(st.dictionaries(st.sampled_from(ODDITIES), odder, max_size=4), st.integers(0, 3))
def test_whatever_a_report_holds_is_no_accident(oddities: Mapping[str, Any], others: int) -> None:
    report: dict[str, Any] = REPORT | {name: dict(REPORT[name]) for name in ("hashes", "metrics", "environment")}
    for name, value in sorted(oddities.items(), reverse=True):
        outer, _, inner = name.partition("/")
        if inner:
            report[outer][inner] = value
        else:
            report[outer] = value
    new = Canary("new", "H100", report)
    said = [difference(new, [USUAL] * others, "val_bpb"), difference(USUAL, [new] * others, "val_bpb")]
    for sentence in said:
        assert sentence is None or (0 < len(sentence) <= SENTENCE_CHARACTERS and sentence.isprintable())
    assert difference(new, [new] * others, "val_bpb") == difference(new, [], "val_bpb"), "none differs from itself"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1.25", 10**400])
def test_what_is_no_finite_number_is_no_score(value: Any) -> None:
    new = canary(metrics={"val_bpb": value})
    assert difference(new, [USUAL], "val_bpb") == "its canary has no val_bpb, where the others have 1.25"
    assert difference(USUAL, [new], "val_bpb") is None
