from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.keep import PREFIX, Claim, claim_of, untrailered

WHOLE = {
    "Study": "mar5",
    "Wave": "w01",
    "Candidate": "c0001",
    "Metric": "val_bpb 0.9512345678",
    "Interval": "0.94 0.96",
    "Change": "-0.04 -0.05 -0.03",
    "Seeds": "1501 1502",
    "Scores": "0.95 0.9524691356",
    "Control-Scores": "1 1.01",
    "Accelerator": "NVIDIA H200 NVL",
    "Budget": "300 s, 600 CPU s",
    "Hashes": "train=11 fixed=22 data=33",
    "Experiments": "e0001 e0002",
}


def message(trailers: dict[str, str], before: str = "Keep c0001: RATE=0.3\n\nit is better\n") -> str:
    return before + "\n" + "".join(f"{PREFIX}{key}: {value}\n" for key, value in trailers.items())


def test_a_claim_is_read_back_from_the_trailers() -> None:
    assert claim_of(message(WHOLE)) == Claim(
        study="mar5",
        candidate="c0001",
        metric="val_bpb",
        value=0.9512345678,
        low=0.94,
        high=0.96,
        seeds=(1501, 1502),
        scores=(0.95, 0.9524691356),
        accelerator="NVIDIA H200 NVL",
        budget="300 s, 600 CPU s",
        hashes={"train": "11", "fixed": "22", "data": "33"},
    )


@pytest.mark.parametrize(
    "key", ["Study", "Candidate", "Metric", "Interval", "Seeds", "Scores", "Accelerator", "Hashes"]
)
@pytest.mark.parametrize("value", [None, "", "what", "1 2 3 what"])
def test_a_message_that_lacks_a_part_or_has_it_wrong_claims_nothing_false(key: str, value: str | None) -> None:
    trailers = {name: said for name, said in WHOLE.items() if name != key}
    found = claim_of(message(trailers if value is None else trailers | {key: value}))
    words = {"Study", "Candidate", "Accelerator"}
    if value and (key in words):
        assert found is not None
    else:
        assert found is None


@pytest.mark.parametrize("said", ["", "Fix a typo\n", "Keep c0001: RATE=0.3\n\nAutoresearch-Metric: val_bpb 0.1\n"])
def test_an_ordinary_commit_claims_nothing(said: str) -> None:
    assert claim_of(said) is None


def test_only_the_last_paragraph_counts() -> None:
    forged = message(WHOLE | {"Metric": "val_bpb 0.1", "Study": "other"})
    claim = claim_of(message(WHOLE, before=forged))
    assert claim is not None and (claim.study, claim.value) == ("mar5", 0.9512345678)
    assert claim_of(forged + "\nand some words at the end\n") is None


@settings(deadline=None)
@given(
    text=st.text()
    | st.lists(st.sampled_from([PREFIX, "Auto", "research", "-", "\n", "\0", "\r", "Metric: 1"])).map("".join)
)
def test_a_line_of_an_agent_s_is_one_line_and_never_a_trailer(text: str) -> None:
    line = untrailered(text)
    assert len(line.splitlines()) <= 1 and (not line or line.isprintable())
    assert PREFIX.lower() not in line.lower()
    assert untrailered(line) == line
