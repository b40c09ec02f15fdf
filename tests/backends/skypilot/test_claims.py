"""Which clusters are whose: names, labels, and what is remembered of both."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.backends.skypilot.claims import (
    CANARIES,
    LABEL,
    NAME_CHARACTERS,
    Claim,
    Claims,
    cluster_name,
    free_numbers,
    is_of,
)
from controller.backends.skypilot.sdk import Record
from controller.canary import Canary
from controller.clock import RealClock

TAGS = st.from_regex(r"\A\w[\w-]{0,63}\Z")
RECORD = Record("autoresearch-nov21-01", True, "H100", 1.0, 0.0)


@given(tag=TAGS, number=st.integers(1, 9999))
def test_a_name_is_one_that_every_infra_takes(tag: str, number: int) -> None:
    name = cluster_name(tag, number)
    assert len(name) <= NAME_CHARACTERS
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    assert is_of(name, tag)


@given(tag=TAGS, other=TAGS, number=st.integers(1, 99))
def test_no_name_is_of_two_studies(tag: str, other: str, number: int) -> None:
    assert is_of(cluster_name(tag, number), other) == (tag == other)


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("autoresearch-nov21-2-01", "nov21"),
        ("autoresearch-nov21-01", "nov21-01"),
        ("autoresearch-nov21-01-01", "nov21"),
        ("autoresearch-nov21", "nov21"),
        ("autoresearch-nov21-1", "nov21"),
        ("autoresearch-nov21-001x", "nov21"),
        ("xautoresearch-nov21-01", "nov21"),
        ("autoresearch-novX21-01", "nov.21"),
        ("gpu-01", "nov21"),
    ],
)
def test_a_name_that_only_looks_like_a_studys_is_not(name: str, tag: str) -> None:
    assert not is_of(name, tag)


def test_plain_tags_stay_as_they_are() -> None:
    assert cluster_name("nov21", 7) == "autoresearch-nov21-07"
    assert cluster_name("Nov21", 7) != cluster_name("nov21", 7) != cluster_name("nov_21", 7)


def test_free_numbers_leave_out_what_anybody_has() -> None:
    taken = ["autoresearch-nov21-01", "autoresearch-nov21-03", "gpu-02"]
    assert list(islice(free_numbers("nov21", taken), 3)) == [2, 4, 5]


def test_clusters_are_owned_by_their_label(tmp_path: Path) -> None:
    claims, others = Claims(tmp_path / "one", RealClock()), Claims(tmp_path / "other", RealClock())
    assert claims.owner == Claims(tmp_path / "one", RealClock()).owner != others.owner
    mine = replace(RECORD, labels={LABEL: claims.owner, "team": "x"})
    assert claims.owns(mine) and claims.owns(replace(mine, is_up=False))
    assert not others.owns(mine)
    assert not claims.owns(RECORD)


def test_a_cluster_that_carries_no_label_yet_is_owned_by_its_claim(tmp_path: Path) -> None:
    claims = Claims(tmp_path, RealClock())
    coming = replace(RECORD, is_up=False)
    assert not claims.owns(coming)
    claims.put(Claim(RECORD.name, "nov21", "nonce"))
    assert claims.owns(coming)
    assert not claims.owns(RECORD)
    assert not claims.owns(replace(coming, labels={LABEL: "another"}))
    claims.drop(RECORD.name)
    assert not claims.owns(coming)


@pytest.mark.parametrize("found", ["", "{", "[]", '{"name": "x"}', '{"other": 1}'])
def test_a_claim_that_cannot_be_read_is_none(tmp_path: Path, found: str) -> None:
    (tmp_path / "x.json").write_text(found)
    assert Claims(tmp_path, RealClock()).get("x") is None


def test_canaries_are_kept_by_study_the_last_ones(tmp_path: Path) -> None:
    claims = Claims(tmp_path, RealClock())
    for number in range(CANARIES + 2):
        claims.remember("nov21", Canary(f"c-{number}", "H100", {"status": "done"}))
    claims.remember("nov22", Canary("d", "H200", {}))
    known = Claims(tmp_path, RealClock()).canaries("nov21")
    assert [one.cluster for one in known] == [f"c-{number}" for number in range(2, CANARIES + 2)]
    assert Claims(tmp_path, RealClock()).canaries("nov22") == [Canary("d", "H200", {})]
    assert Claims(tmp_path, RealClock()).canaries("nov23") == []
