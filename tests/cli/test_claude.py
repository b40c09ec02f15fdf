"""`--proposer claude`, as a user has it, against a server that says what a script has it say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.clock import VirtualClock
from controller.journal import Journal, ProposerAnswered
from tests.foreign import commit, git
from tests.proposers.messages import Messages, proposal, propose, says, text, use

Command = Callable[..., Any]

WAVE = ("wave", "--clusters", "2", "--tag", "mar5", "--proposer", "claude")
NO_KEY = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": ""}
EDIT = """\
<<<<<<< SEARCH
RATE = 0.5
=======
DECAY = 0.2
RATE = 0.5 - DECAY
>>>>>>> REPLACE
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Messages]:
    found = Messages()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", found.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-a-test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield found
    found.close()


def answers(root: Path) -> list[ProposerAnswered]:
    journal = Journal.read(root / ".autoresearch", VirtualClock())
    assert journal is not None
    found = [event for *_, event in journal.events("mar5") if isinstance(event, ProposerAnswered)]
    journal.close()
    return found


def test_a_wave_of_claudes_ideas(foreign: Path, run_process: Command, server: Messages) -> None:
    commit(foreign, {"program.md": "---\nllm: {effort: low, usd_per_call: 2}\n---\nThink of RATE.\n"})
    idea = proposal("decay", edit=EDIT, factors={"WIDTH": [4, 8]}, predicted=-0.04, low=-0.1, high=0, falsified_by="x")
    bad = proposal("lost", edit="<<<<<<< SEARCH\nnowhere\n=======\nx = 1\n>>>>>>> REPLACE")
    server.then(
        says(text("First I look."), use("read_source"), use("add_note", text="RATE was never varied")),
        says(propose(idea, bad)),
    )
    done = run_process(*WAVE, cwd=foreign)
    assert (done.code, done.err) == (0, "")
    assert "wave w01: 2 candidates proposed by claude" in done.out and "decision: keep c000" in done.out
    assert "RATE = 0.5 - DECAY" in git(foreign, "show", "autoresearch/mar5:train.py")
    first = server.asked[0]
    assert first["output_config"] == {"effort": "low"} and "Think of RATE." in first["system"][1]["text"]
    assert "RATE = 0.5" in server.results(1)["read_source"][0]

    (answered,) = answers(foreign)
    assert (answered.model, answered.input_tokens, answered.output_tokens) == (first["model"], 300, 150)
    assert answered.usd == pytest.approx((300 * 4 + 150 * 20) / 1e6)
    state = json.loads(run_process("status", "--json", cwd=foreign).out)
    assert state["budget"]["spent"]["llm_usd"] == pytest.approx(answered.usd, abs=1e-4)
    shown = json.loads(run_process("show", "w01", "--json", cwd=foreign).out)
    assert [(one["name"], one["label"]) for one in shown["refusals"]] == [("lost", "edit")]
    assert "n0001  agent   RATE was never varied" in run_process("note", cwd=foreign).out


@pytest.mark.parametrize(
    ("front", "more", "env", "sentence"),
    [
        ("", (), NO_KEY, "claude needs a key: set ANTHROPIC_API_KEY, or use `--proposer doe`"),
        ("llm: {model: claude-next}", (), {}, "the prices of claude-next are not known; give them in program.md"),
        ("llm: {effort: huge}", (), {}, "llm.effort: input should be 'low', 'medium', 'high'"),
        ("", ("--dry-run",), {}, "claude is paid for every answer, so that there is no dry run with it"),
        ("", ("--infra", "simulated"), {}, "claude takes real time, of which a simulation has none"),
    ],
)
def test_what_is_wrong_is_said_before_anything_begins(
    foreign: Path,
    run_process: Command,
    server: Messages,
    tmp_path: Path,
    front: str,
    more: Any,
    env: Any,
    sentence: str,
) -> None:
    if front:
        commit(foreign, {"program.md": f"---\n{front}\n---\n"})
    assert sentence in run_process(*WAVE, *more, cwd=foreign, env={"HOME": str(tmp_path), **env}).sentence
    assert server.asked == [] and git(foreign, "branch", "--list", "autoresearch/*") == ""
