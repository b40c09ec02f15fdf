"""Real research on real training, as a user does it: init, wave, results, clone, reproduce. Its budget is smaller."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.foreign import commit, git
from tests.processes import namespaces_allowed

Command = Callable[..., Any]

WAVE = (
    *("wave", "--clusters", "2", "--infra", "local", "--tag", "mar5"),
    *("--factor", "DEPTH=1,2", "--factor", "EMBEDDING_LR=0.1,0.3,0.6"),
)

COLUMNS = {
    *("experiment", "wave", "proposal", "candidate", "commit", "parent", "role", "tier", "accelerator", "cluster"),
    *("seed", "replicate", "status", "val_bpb", "metrics", "knobs", "hypothesis", "attempts", "started", "finished"),
    *("seconds", "reason", "self_reported", "unsandboxed"),
}


@dataclass(frozen=True)
class Research:
    """A workspace in which one wave was run, what the wave said, and how git was before and after it."""

    root: Path
    said: str
    before: str
    after: str
    rows: list[dict[str, Any]]

    @property
    def scores(self) -> dict[str, Any]:
        """Each experiment with what decides about it, less what no two runs share."""
        return {row["experiment"]: [row[key] for key in ("role", "seed", "knobs", "val_bpb")] for row in self.rows}


def made(root: Path, run: Command) -> Path:
    """A workspace of the tiny profile whose trainings and scores take a moment, checked out on a branch of its own."""
    assert run("init", root, "--profile", "tiny", cwd=root.parent).code == 0
    changed = {}
    for name, pattern, new in (
        ("prepare/profile.py", r"tokens=2\*\*18, seconds", "tokens=2**15, seconds"),
        ("prepare/profile.py", r"eval_tokens=2\*\*15", "eval_tokens=2**13"),
        ("train/train.py", r"(?<=\nEMBEDDING_LR = )\S+", "0.001"),  # so that there is something to find
    ):
        text = changed.get(name) or (root / name).read_text()
        changed[name], count = re.subn(pattern, new, text)
        assert count == 1, pattern
    git(root, "switch", "--quiet", "--create", "somewhere")
    commit(root, changed, "Spend less")
    return root


def researched(root: Path, run: Command) -> Research:
    made(root, run)
    before = state(root)
    done = run(*WAVE, cwd=root)
    assert done.code == 0, done
    rows = json.loads(run("results", "--json", cwd=root).out)
    return Research(root, done.out, before, state(root), rows)


def state(root: Path) -> str:
    """All of git that is the user's own."""
    return "\n".join(
        git(root, *command)
        for command in (
            ("status", "--porcelain"),
            ("rev-parse", "HEAD"),
            ("branch", "--show-current"),
            ("stash", "list"),
            ("config", "--local", "--list"),
        )
    )


@pytest.fixture(scope="module")
def research(tmp_path_factory: pytest.TempPathFactory, run_process: Command) -> Research:
    return researched(tmp_path_factory.mktemp("one") / "workspace", run_process)


def test_every_cell_and_control_is_trained_and_says_everything_about_itself(research: Research) -> None:
    assert all(set(row) == COLUMNS for row in research.rows)
    assert {row["status"] for row in research.rows} == {"done"}
    screened = [row for row in research.rows if row["tier"] == "screening"]
    cells = [row["knobs"] for row in screened if row["role"] == "cell"]
    controls = [row["knobs"] for row in screened if row["role"] == "control"]
    assert len(controls) >= 2
    assert {(knobs["DEPTH"], knobs["EMBEDDING_LR"]) for knobs in controls} == {(2, 0.001)}
    assert {(knobs["DEPTH"], knobs["EMBEDDING_LR"]) for knobs in cells} == {
        (depth, rate) for depth in (1, 2) for rate in (0.1, 0.3, 0.6)
    }
    assert len({row["seed"] for row in screened if row["role"] == "cell"}) == 1, "cells are compared on one seed"
    for row in research.rows:
        assert row["accelerator"] == "CPU"
        assert 1 < row["val_bpb"] < 8
        assert row["self_reported"] is False
        assert row["unsandboxed"] is False or not namespaces_allowed()
        assert re.fullmatch("[0-9a-f]{40}", row["commit"])
        for knob in ("DEPTH", "EMBEDDING_LR"):
            line = re.search(rf"^{knob} = (\S+)", git(research.root, "show", f"{row['commit']}:train/train.py"), re.M)
            assert line is not None
            assert float(line[1]) == row["knobs"][knob], "the code that ran is the code of its commit"


def test_the_winner_is_the_tip_of_the_study_branch_and_nothing_else_of_git_has_moved(research: Research) -> None:
    assert research.before == research.after
    assert research.before.splitlines()[0] == "", "no change in the work tree"
    assert "decision: keep " in research.said
    tip = git(research.root, "rev-parse", "autoresearch/mar5")
    assert f"commit:   {tip} on autoresearch/mar5" in research.said
    assert git(research.root, "rev-parse", f"{tip}^") == git(research.root, "rev-parse", "somewhere")
    trailers = dict(
        line.split(": ", 1)
        for line in git(research.root, "log", "-1", "--format=%(trailers:only,unfold)", tip).splitlines()
    )
    confirmed = {row["seed"] for row in research.rows if row["tier"] == "confirmation"}
    assert {int(seed) for seed in re.findall(r"\d+", trailers["Autoresearch-Seeds"])} == confirmed
    assert {"Metric", "Interval", "Accelerator", "Budget", "Hashes", "Experiments"} <= {
        name.removeprefix("Autoresearch-") for name in trailers
    }
    page = Path(re.search(r"^plot: +(.+)$", research.said, re.M)[1])  # type: ignore[index]
    assert "val_bpb" in page.read_text()


def test_a_clone_without_the_journal_reproduces_the_winner_to_the_last_digit(
    research: Research, tmp_path: Path, run_process: Command
) -> None:
    for flags in ((), ("--bare",)):
        clone = tmp_path / "-".join(("clone", *flags))
        git(tmp_path, "clone", "--quiet", *flags, str(research.root), str(clone))
        done = run_process("reproduce", "--json", cwd=clone)
        assert done.code == 0, done
        found = json.loads(done.out)
        assert found["reproduced"] and found["exact"]
        assert f"{found['recorded']:.6f}" == f"{found['found']:.6f}"
    assert git(tmp_path / "clone", "status", "--porcelain") == ""


def test_the_same_command_in_another_workspace_gives_the_same_scores(
    research: Research, tmp_path: Path, run_process: Command
) -> None:
    assert researched(tmp_path / "workspace", run_process).scores == research.scores


def test_a_winner_whose_code_was_changed_is_not_reproduced(
    research: Research, tmp_path: Path, run_process: Command
) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(research.root), str(clone))
    message = git(clone, "log", "-1", "--format=%B", "origin/autoresearch/mar5")
    git(clone, "switch", "--quiet", "--create", "claimed", "origin/autoresearch/mar5")
    train = (clone / "train/train.py").read_text()
    rate = re.search(r"^EMBEDDING_LR = (\S+)", train, re.M)
    assert rate is not None
    commit(clone, {"train/train.py": train.replace(rate[0], "EMBEDDING_LR = 0.001")}, message)
    done = run_process("reproduce", "claimed", cwd=clone)
    assert done.code == 1, done
    assert "not reproduced" in done.out
