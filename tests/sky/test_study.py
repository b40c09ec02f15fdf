"""One whole study on four real SkyPilot clusters, three "H100" and one "H200", with real training and real trouble.

The controller is killed while experiments run, and a cluster is taken from under one: in the end there is a winner all
the same, everything was measured once, and nothing of ours is left.
"""

from __future__ import annotations

import hashlib
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.sky.conftest import Desk, slurm, until

WAVE = ("wave", "--tag", "mar5", "--factor", "DEPTH=1,3")


@pytest.fixture(scope="module")
def done(desk: Desk, bystander: str, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The study after its wave: with its first controller killed, and one cluster's allocation cancelled."""
    first = desk.start(*WAVE)
    try:
        until(lambda: desk.events("attempt_started") or first.poll() is not None)
    finally:
        first.send_signal(signal.SIGKILL)
        said = first.communicate()[0]
    assert desk.events("attempt_started"), said
    killed = len(desk.events("attempt_submitted"))

    second = desk.start(*WAVE)
    try:
        # One more has begun, and its cluster goes.
        until(lambda: len(desk.events("attempt_submitted")) > killed or second.poll() is not None)
        attempt = desk.events("attempt_submitted")[-1]["attempt"]
        until(lambda: _started(desk, attempt["id"]) or second.poll() is not None)
        allocations = [line.split() for line in slurm("squeue", "-h", "-o", "%i %j").splitlines()]
        (number,) = [number for number, name in allocations if name.startswith(attempt["cluster"])]
        slurm("scancel", "--full", number)
        said = second.communicate()[0]
    finally:
        second.kill()
    assert second.returncode == 0, said
    Path(tmp_path_factory.getbasetemp(), "wave.txt").write_text(said)
    desk.root.joinpath("taken.txt").write_text(attempt["id"])
    return desk


def _started(desk: Desk, attempt: str) -> bool:
    return any(event["attempt"] == attempt for event in desk.events("attempt_started"))


def test_each_cluster_was_seen_with_the_accelerator_it_really_got(done: Desk) -> None:
    seen = {event["cluster"]["name"]: event["cluster"]["accelerator"] for event in done.events("cluster_seen")}
    first_four = Counter(dict(list(seen.items())[:4]).values())
    assert first_four == {"H100": 3, "H200": 1}
    assert all(name.startswith("autoresearch-mar5-") for name in seen)


def test_the_winner_was_screened_on_h100_confirmed_on_h200_and_committed(done: Desk) -> None:
    rows = done.json("results")
    (kept,) = [
        line
        for line in done.git(
            "log", "--format=%(trailers:key=Autoresearch-Candidate,valueonly)", "autoresearch/mar5"
        ).split()
        if line != ""
    ]
    assert {row["status"] for row in rows} == {"done"}
    runs = [row for row in rows if row["candidate"] == kept]
    where = {(row["tier"], row["accelerator"]) for row in runs}
    assert where == {("screening", "H100"), ("confirmation", "H200")}
    assert next(row["knobs"] for row in runs) == {"DEPTH": 3}
    clusters = {row["cluster"] for row in rows if row["tier"] == "confirmation"}
    assert len(clusters) == 1


def test_attempts_ran_the_code_of_their_commits(done: Desk) -> None:
    commits = {row["experiment"]: row["commit"] for row in done.json("results")}
    experiments = {event["attempt"]["id"]: event["attempt"]["experiment"] for event in done.events("attempt_submitted")}
    ended = [event for event in done.events("attempt_ended") if event["outcome"]["label"] is None]
    assert len(ended) == len(commits)
    for event in ended:
        source = done.git("show", f"{commits[experiments[event['attempt']]]}:train/train.py")
        assert event["outcome"]["hashes"]["train"] == hashlib.sha256(source.encode()).hexdigest()


def test_what_the_dead_controller_left_was_adopted_and_nothing_ran_twice(done: Desk) -> None:
    measured = Counter(
        event["attempt"].rpartition(".")[0]
        for event in done.events("attempt_ended")
        if event["outcome"]["label"] is None
    )
    assert set(measured.values()) == {1}
    # What was running when it was killed is not made again: its first attempt is the one that counts.
    running = done.events("attempt_started")[0]["attempt"]
    ended = {event["attempt"]: event["outcome"]["label"] for event in done.events("attempt_ended")}
    assert ended[running] is None


def test_an_allocation_cancelled_under_a_job_is_infrastructure_and_retried_elsewhere(done: Desk) -> None:
    taken = done.root.joinpath("taken.txt").read_text()
    ended = {event["attempt"]: event["outcome"] for event in done.events("attempt_ended")}
    assert ended[taken]["label"] in ("lost", "preempted"), ended[taken]
    attempts = [event["attempt"] for event in done.events("attempt_submitted")]
    (lost,) = [one for one in attempts if one["id"] == taken]
    again = [one for one in attempts if one["experiment"] == lost["experiment"] and one["id"] > taken]
    assert again and ended[again[-1]["id"]]["label"] is None
    assert again[-1]["cluster"] != lost["cluster"]
    gone = {event["cluster"]: event["reason"] for event in done.events("cluster_gone")}
    assert lost["cluster"] in gone


def test_afterwards_none_of_ours_is_up_and_others_are(done: Desk, bystander: str) -> None:
    assert "nothing to take down" in done.run("down")
    left = [(one["cluster"], one["ours"]) for one in done.json("clusters") if "-mar5-" in one["cluster"]]
    assert left == [(bystander, False)]
    assert bystander in slurm("squeue", "-h", "-o", "%j")
