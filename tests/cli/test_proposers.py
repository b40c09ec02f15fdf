"""`--proposer`: an agent's command, Optuna, and what is neither."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.clock import VirtualClock
from controller.proposers import Doe
from controller.wave import Request, begin, design
from tests.foreign import TRAIN, commit, git, refs
from tests.studies import open_in

Command = Callable[..., Any]
Files = Callable[[Path], dict[str, bytes]]

WAVE = ("wave", "--clusters", "2", "--tag", "mar5")
AGENT = r"""#!/usr/bin/env bash
# Halves what is wrong with RATE, and asks how wide it should be.
set -euo pipefail
echo "asked" >> "$DIARY"
grep -q "The metric is val_bpb: lower is better" "$AUTORESEARCH_BRIEF"
sed -i 's/^RATE = \(.*\)/DECAY = 0.2\nRATE = \1 - DECAY/' train.py
cat > "$AUTORESEARCH_PROPOSAL" <<END
{"name": "decay", "hypothesis": "RATE is too large", "factors": {"WIDTH": [4, 8], "DECAY": [0.1, 0.2]},
 "predicted": -0.05, "low": -0.1, "high": 0.0, "falsified_by": "no change", "usd": 0.5}
END
"""


@pytest.fixture
def agent(foreign: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An agent's script in the workspace, not committed; it keeps a diary, which this is."""
    git(foreign, "config", "core.excludesFile", str(tmp_path / "ignored"))
    (tmp_path / "ignored").write_text("/agent.sh\n")
    (foreign / "agent.sh").write_text(AGENT)
    (foreign / "agent.sh").chmod(0o755)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("DIARY", str(tmp_path / "diary"))
    return tmp_path / "diary"


def test_an_agent_s_edit_is_screened_confirmed_and_committed(foreign: Path, agent: Path, run_process: Command) -> None:
    done = run_process(*WAVE, "--proposer", "./agent.sh", cwd=foreign)
    assert (done.code, done.err) == (0, "")
    assert "wave w01: 4 candidates proposed by command agent.sh" in done.out
    assert re.search(r"^decision: keep c000\d", done.out, re.M)
    winner = git(foreign, "show", "autoresearch/mar5:train.py")
    assert winner == TRAIN.replace("RATE = 0.5", "DECAY = 0.2\nRATE = 0.5 - DECAY").replace("= 4", "= 8").rstrip("\n")
    assert git(foreign, "status", "--porcelain") == "" and (foreign / "train.py").read_text() == TRAIN
    assert agent.read_text() == "asked\n", "once, as it may be dear"
    rows = json.loads(run_process("results", "--json", cwd=foreign).out)
    assert {row["hypothesis"] for row in rows if row["role"] == "cell"} == {"RATE is too large"}
    assert json.loads(run_process("status", "--json", cwd=foreign).out)["budget"]["spent"]["llm_usd"] == 0.5
    assert (foreign / ".autoresearch" / "agents" / "mar5-0001.log").read_text() == ""


def test_a_wave_that_was_cut_off_is_gone_on_with_and_the_agent_not_asked_again(
    foreign: Path, agent: Path, run_process: Command
) -> None:
    study = open_in(foreign)
    request = Request({"proposer": "./agent.sh", "factors": (), "seed": 0}, 0, 2, 4)
    begin(study, Doe(), request, asyncio.run(design(study, Doe(), request)), VirtualClock())
    study.journal.close()
    done = run_process(*WAVE, "--proposer", "./agent.sh", cwd=foreign)
    assert (done.code, done.err) == (0, "")
    assert "going on with wave w01" in done.out and "w02" not in done.out
    assert not agent.exists()
    done = run_process(*WAVE, "--proposer", "./agent.sh", cwd=foreign)
    assert "wave w02" in done.out and agent.exists()


@pytest.mark.parametrize(
    ("proposer", "why"),
    [
        ("./agent.sh && exit 7", "command agent.sh proposed nothing that can run: it ended with exit code 7; see "),
        ("./missing.sh", "command missing.sh proposed nothing that can run: it ended with exit code 127; see "),
        ("true", "command true proposed nothing that can run: it changed nothing and proposed nothing; see "),
    ],
)
def test_an_agent_that_proposes_nothing_ends_the_command_with_its_reason(
    proposer: str, why: str, foreign: Path, agent: Path, run_process: Command
) -> None:
    done = run_process(*WAVE, "--proposer", proposer, cwd=foreign)
    assert done.code == 3
    assert why in done.err and done.err.count("\n") == 1
    assert len(list((foreign / ".autoresearch" / "agents").iterdir())) == 3
    log = [
        json.loads(line) for line in (foreign / ".autoresearch" / "log" / "controller.jsonl").read_text().splitlines()
    ]
    assert sum(line["event"] == "refused of a command" for line in log) == 3


def test_a_dry_run_asks_the_agent_and_leaves_no_trace(
    foreign: Path, agent: Path, run_process: Command, files: Files
) -> None:
    before, known = files(foreign), refs(foreign)
    done = run_process(*WAVE, "--proposer", "./agent.sh", "--dry-run", cwd=foreign)
    assert (done.code, done.err) == (0, "")
    assert "4 cells and 3 controls would be screened" in done.out and "DECAY=0.2, WIDTH=8" in done.out
    assert agent.read_text() == "asked\n"
    assert (files(foreign), refs(foreign)) == (before, known)


def test_optuna_runs_a_wave(foreign: Path, run_process: Command) -> None:
    done = run_process(*WAVE, "--proposer", "optuna", cwd=foreign)
    assert (done.code, done.err) == (0, "")
    assert "wave w01: 12 candidates proposed by optuna" in done.out
    rows = json.loads(run_process("results", "--json", cwd=foreign).out)
    cells = [row for row in rows if row["role"] == "cell"]
    assert len({(row["knobs"]["RATE"], row["knobs"]["WIDTH"]) for row in cells}) == 12
    assert {row["status"] for row in rows} == {"done"}


def test_optuna_searches_in_a_simulation(foreign: Path, run_process: Command) -> None:
    asked = ("run", "--clusters", "4", "--waves", "2", "--infra", "simulated", "--proposer", "optuna", "--tag", "mar5")
    done = run_process(*asked, cwd=foreign)
    assert (done.code, done.err) == (0, "")
    assert "wave w02:" in done.out


@pytest.mark.parametrize(
    ("proposer", "said"),
    [
        ("oracle", "there is no proposer oracle; there are doe, optuna and submissions, or give a command that"),
        ("", "there is no proposer ; there are doe, optuna and submissions"),
        (" ", "there is no proposer  ; there are doe, optuna and submissions"),
    ],
)
def test_what_is_neither_is_a_mistake(proposer: str, said: str, cli: Command, foreign: Path, files: Files) -> None:
    before = files(foreign)
    for more in ((), ("--dry-run",)):
        assert said in cli(*WAVE, "--proposer", proposer, *more).sentence
    assert files(foreign) == before


def test_nobody_hands_ideas_in_to_a_simulation(cli: Command, foreign: Path) -> None:
    sentence = cli(*WAVE, "--proposer", "submissions", "--infra", "simulated").sentence
    assert sentence.endswith(
        "whoever hands ideas in takes real time, of which a simulation has none; use doe or optuna there"
    )


def test_a_script_that_is_not_executable_is_a_mistake(cli: Command, foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "idle.sh").write_text("exit 0\n")
    sentence = cli(*WAVE, "--proposer", f"{tmp_path}/idle.sh --fast").sentence
    assert sentence.endswith(f"can't be run; make it executable with `chmod +x {tmp_path}/idle.sh`")


def test_a_command_has_no_time_in_a_simulation(cli: Command, foreign: Path) -> None:
    sentence = cli(*WAVE, "--proposer", "./agent.sh", "--infra", "simulated").sentence
    assert sentence.endswith("a command takes real time, of which a simulation has none; use doe or optuna there")


def test_a_broken_workspace_is_said_before_an_agent_is_asked(cli: Command, foreign: Path, agent: Path) -> None:
    commit(foreign, {"train.py": "RATE = (0.5\n"})
    assert "'(' was never closed" in cli(*WAVE, "--proposer", "./agent.sh").sentence
    assert not agent.exists() and not (foreign / ".autoresearch").exists()
