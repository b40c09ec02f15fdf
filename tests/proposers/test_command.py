"""Commands that propose, as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from controller.clock import RealClock, VirtualClock
from controller.edits import model_digest, set_knobs
from controller.journal import reading
from controller.proposers import Context, Doe, agent_process, command
from controller.proposers.agent_process import Limits
from controller.proposers.answer import BRIEF, PROPOSAL
from controller.proposers.command import Command
from controller.proposers.relay import Relay
from controller.records import Design, Factor, NothingRan, Objection, Proposal, UserError
from controller.wave import Request, begin, design
from tests.foreign import PREPARE, TRAIN, workspace
from tests.processes import alive_with, wait_for_the_end_of
from tests.studies import open_in

CONTEXT = Context(TRAIN, True, 0.0005, {model_digest(TRAIN): "c0000"}, (), 0, edit="train.py", evaluated=False)
FASTER = "sed -i 's/^RATE = 0.5/RATE = 0.3/' train.py"
Make = Callable[..., Command]


def files(directory: Path) -> None:
    (directory / "train.py").write_text(TRAIN)
    (directory / "prepare.py").write_text(PREPARE)
    (directory / "notes").mkdir()
    (directory / "notes" / "old.md").write_text("what was thought\n")


def says(answer: Any) -> str:
    """Shell that leaves this answer, which is a text or to become JSON."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return f"cat > \"${PROPOSAL}\" <<'END'\n{text}\nEND\n"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where checkouts are made, in which there is nothing but these."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(script: str, **limits: float) -> Command:
        return Command(script, files, tmp_path / "agents", "mar5", limits=Limits(**limits))

    return made


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TRIES", 1)


def said(tmp_path: Path, number: int = 1) -> str:
    """What a run of the command printed."""
    return (tmp_path / "agents" / f"mar5-{number:04d}.log").read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def stray(environment: dict[str, str]) -> Iterator[int]:
    """A process with that environment, which it has by now: before it says something its own may still be empty."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(["cat"], env=environment, start_new_session=True, bufsize=0, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"begun\n")
        assert process.stdout.readline() == b"begun\n"
        yield process.pid


async def test_what_a_command_edits_is_the_edit_and_what_it_writes_says_what_for(
    make: Make, tmp_path: Path, scratch: Path
) -> None:
    about = {
        "name": "slower",
        "hypothesis": "0.3 is better",
        "factors": {"WIDTH": [4, 8]},
        "predicted": -0.05,
        "low": -0.1,
        "high": 0,
        "falsified_by": "no change",
        "usd": 0.25,
    }
    proposer = make(FASTER + "\n" + says(about))
    (proposal,) = await proposer.propose(CONTEXT, 12)
    edited = set_knobs(TRAIN, {"RATE": 0.3})
    assert proposal == Proposal(
        "slower", "0.3 is better", (Factor("WIDTH", (4, 8)),), Design.FULL, edited, -0.05, -0.1, 0.0, "no change"
    )
    assert (proposer.usd_at_most, proposer.usd_spent, proposer.refusals()) == (0.0, 0.25, [])
    assert names(scratch) == [], "the checkout is removed"
    assert names(tmp_path / "agents") == ["mar5-0001.log"]


async def test_it_works_in_a_repository_by_itself_with_the_user_s_environment_and_a_brief(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AN_AGENTS_KEY", "sk-0123456789abcdef")
    looks = f'pwd; git log --format=%s; git status --short; echo "key $AN_AGENTS_KEY"; cat "${BRIEF}"; wc -c <&0'
    (proposal,) = await make(f"{looks}; {FASTER}").propose(replace(CONTEXT, gates=("peak_vram_mb < 1",)), 7)
    assert proposal.edit is not None and proposal.name == "an edit by command pwd"
    printed = said(tmp_path)
    assert printed.splitlines()[0].startswith(str(tmp_path / "temporary" / "autoresearch-agent-"))
    assert printed.splitlines()[1:3] == ["Begin the workspace", "key sk-0123456789abcdef"], "one commit, no changes"
    assert "peak_vram_mb < 1" in printed and "# How to answer" in printed and "room for 7 cells" in printed
    assert printed.count("sk-0123456789abcdef") == 1, "the brief holds nothing of the environment"
    assert printed.endswith("\n0\n"), "nobody answers on standard input"


async def test_the_checkout_is_the_incumbent_s_of_the_context_even_if_that_has_changed_since(make: Make) -> None:
    older = set_knobs(TRAIN, {"WIDTH": 2})
    (proposal,) = await make(FASTER).propose(replace(CONTEXT, source=older), 12)
    assert proposal.edit == set_knobs(older, {"RATE": 0.3})


@pytest.mark.parametrize(
    ("script", "edits", "named"),
    [
        (FASTER, [True], ["an edit by command sed"]),
        (says({"name": "a", "hypothesis": "b", "factors": {"RATE": [0.1, 1]}}), [False], ["a"]),
        (
            says([{"name": name, "hypothesis": "b", "factors": {"RATE": [at]}} for name, at in (("a", 1), ("b", 2))]),
            [False, False],
            ["a", "b"],
        ),
        (
            FASTER + "\n" + says([{"name": "a", "hypothesis": "b", "factors": {"WIDTH": [9]}}]),
            [True],
            ["a"],
        ),
        (
            FASTER
            + "\n"
            + says(
                [
                    {"name": "a", "hypothesis": "b", "factors": {"WIDTH": [9]}},
                    {"name": "mine", "hypothesis": "b"},
                ]
            ),
            [False, True],
            ["a", "mine"],
        ),
        (
            FASTER + "\n" + says([{"name": n, "hypothesis": "b", "factors": {"WIDTH": [9 + len(n)]}} for n in "ab"]),
            [True, False],
            ["an edit by command sed", "a"],
        ),
        (f': > "${PROPOSAL}"; git commit -qam x; {FASTER}; git commit -qam y', [True], ["an edit by command :"]),
        (f"{FASTER}; touch new.py; mkdir -p __pycache__; echo x > notes/mine.md", [True], ["an edit by command sed"]),
        (f"{FASTER}; truncate -s -1 train.py", [True], ["an edit by command sed"]),
    ],
)
async def test_answers_of_every_shape(script: str, edits: list[bool], named: list[str], make: Make) -> None:
    proposals = await make(script).propose(CONTEXT, 12)
    assert [proposal.edit is not None for proposal in proposals] == edits
    assert [proposal.name for proposal in proposals] == named


DEEP = "[" * 100_000
NESTED = "[" * 900 + "1" + "]" * 900
REFUSED = [
    ("exit 3", "it ended with exit code 3", Objection.EDIT),
    (f"{FASTER}; exit 1", "it ended with exit code 1", Objection.EDIT),
    ("kill -9 $$", "it was killed by signal 9", Objection.EDIT),
    ("no-such-agent", "it ended with exit code 127", Objection.EDIT),
    ("if", "it ended with exit code 2", Objection.EDIT),
    (f"{FASTER}; echo >> prepare.py", "it changed prepare.py; only train.py may be changed", Objection.EDIT),
    (f"{FASTER}; rm -r notes", "it changed notes/old.md; only train.py may be changed", Objection.EDIT),
    (f"{FASTER}; ln -sf /etc/passwd prepare.py", "it changed prepare.py", Objection.EDIT),
    (f"{FASTER}; rm prepare.py; mkfifo prepare.py", "it changed prepare.py", Objection.EDIT),
    (f"{FASTER}; rm prepare.py; truncate -s 1T prepare.py", "it changed prepare.py", Objection.EDIT),
    ("rm train.py", "train.py is no file any more", Objection.EDIT),
    ("ln -sf /etc/passwd train.py", "train.py is no file any more", Objection.EDIT),
    ("rm train.py; mkfifo train.py", "train.py is no file any more", Objection.EDIT),
    ("truncate -s 1T train.py", "train.py has become 1099511627776 bytes", Objection.EDIT),
    ("echo > train.py", "nothing is left of train.py", Objection.EDIT),
    ("printf 'A = \"\\xff\"' >> train.py", "train.py is not UTF-8", Objection.SYNTAX),
    ("echo 'def' >> train.py", "it does not parse", Objection.SYNTAX),
    ("echo '# a remark' >> train.py", "it is the same model as the incumbent", Objection.NO_OP),
    ("sed -i 's/^WIDTH = 4/WIDTH = -4/' train.py", "it fails its own assertion: WIDTH must", Objection.ASSERTION),
    ("echo 'x = 1' > tricks.py; sed -i '1a from tricks import x' train.py", "names tricks.py", Objection.EDIT),
    (
        "mkdir -p my/own; touch my/own/__init__.py; sed -i '1a import my.own as mine' train.py",
        "train.py names my/own/__init__.py, a new file, which stays behind",
        Objection.EDIT,
    ),
    ("true", "it changed nothing and proposed nothing", Objection.NO_OP),
    (says("[]"), "it changed nothing and proposed nothing", Objection.NO_OP),
    (says({"name": "a", "hypothesis": "b"}), "it changes nothing", Objection.NO_OP),
    (says("{"), "is no JSON", Objection.EDIT),
    (says('{"predicted": NaN}'), "NaN is no number that JSON has", Objection.EDIT),
    (says(DEEP), "is no JSON", Objection.EDIT),
    (says('{"predicted": 1' + "0" * 5000 + "}"), "is no JSON", Objection.EDIT),
    (f'head -c 2000000 /dev/zero > "${PROPOSAL}"', "is not one of 1000000 bytes at most", Objection.EDIT),
    (f'ln -s /etc/passwd "${PROPOSAL}"', "is not one of 1000000 bytes at most", Objection.EDIT),
    (f'mkfifo "${PROPOSAL}"', "is not one of 1000000 bytes at most", Objection.EDIT),
    (f'printf "\\xff" > "${PROPOSAL}"', "is no JSON", Objection.EDIT),
    (says([{}] * 101), "holds 101 ideas, more than 100", Objection.EDIT),
    (says(7), "a proposal is an object", Objection.EDIT),
    (says({"name": 7, "hypothesis": "b"}), "name must be a text", Objection.EDIT),
    (says({"name": "a", "hypothesis": "b", "factors": [1]}), "factors are an object", Objection.EDIT),
    (says({"name": "a", "hypothesis": "b", "factors": {"RATE": 1}}), "levels are a list", Objection.EDIT),
    (says({"name": "a", "hypothesis": "b", "factors": {"RATE": [{}]}}), "a level is a number", Objection.EDIT),
    (says({"name": "a", "hypothesis": "b", "factors": {"RAET": [1]}}), "did you mean RATE", Objection.EDIT),
    (
        says({"name": "a", "hypothesis": "b", "factors": {"RATE": [0.5]}}),
        "same model as the incumbent",
        Objection.NO_OP,
    ),
    (
        says({"name": "a", "hypothesis": "b", "factors": {"RATE": [*range(1, 21)]}}),
        "it has 20 cells, and there is room for about 12 more",
        Objection.EDIT,
    ),
    (
        says({"name": "a", "hypothesis": "b", "factors": {"RATE": [*range(900)], "WIDTH": [*range(1, 900)]}}),
        "it has more than 512 cells",
        Objection.EDIT,
    ),
    (
        says('{"name": "a", "hypothesis": "b", "predicted": 1' + "0" * 400 + ', "factors": {"RATE": [1]}}'),
        "predicted must be a finite number",
        Objection.EDIT,
    ),
    (says('{"name": "a", "hypothesis": "b", "factors": {"RATE": [' + NESTED + "]}}"), "a level is", Objection.EDIT),
]


@pytest.mark.parametrize(("script", "reason", "label"), REFUSED)
async def test_what_is_no_proposal_is_refused_with_its_reason_and_its_checkout_kept(
    script: str, reason: str, label: Objection, make: Make, once: None, tmp_path: Path, scratch: Path
) -> None:
    proposer = make(script)
    assert await proposer.propose(CONTEXT, 12) == []
    (refused,) = proposer.refusals()
    assert reason in refused.reason and refused.label is label
    (root,) = names(scratch)
    assert refused.reason.endswith(f"; see {tmp_path}/agents/mar5-0001.log and {scratch / root}/checkout")
    assert refused.reason.isprintable() and len(refused.reason) < 1000
    assert proposer.refusals() == [], "each is told of once"


async def test_hostile_words_are_made_harmless(make: Make, once: None) -> None:
    words = "\ud800\x1b[2J\u202e" + "x" * 5000
    knob = {"name": words, "hypothesis": words, "factors": {words: [1]}}
    fine = {"name": words, "hypothesis": words, "factors": {"SHAPE": [words]}, "usd": 1e300, "repairs": None}
    proposer = make(says([knob, fine, {"usd": True}, {"usd": -5}, {"usd": "7"}, {"usd": 2}]))
    (proposal,) = await proposer.propose(CONTEXT, 12)
    assert len(proposal.name) <= 80 and proposal.name.isprintable() and proposal.hypothesis.isprintable()
    assert proposer.usd_spent == 2, "what is no sum counts as nothing"
    refused = proposer.refusals()
    assert len(refused) == 5
    assert all(text.isprintable() for one in refused for text in (one.name, one.hypothesis, one.reason))


async def test_one_model_is_proposed_once_and_none_that_was_tried(make: Make, once: None) -> None:
    ideas = [
        {"name": name, "hypothesis": "b", "factors": {"RATE": [at]}} for name, at in (("a", 1), ("b", 1), ("c", 2))
    ]
    tried = {model_digest(TRAIN, {"RATE": 2.0}): "c0007"}
    proposer = make(says(ideas))
    assert [one.name for one in await proposer.propose(replace(CONTEXT, models=tried), 12)] == ["a"]
    duplicate, known = proposer.refusals()
    assert "the same model as a cell of your proposal 'a'" in duplicate.reason and "c0007" in known.reason
    assert duplicate.label is known.label is Objection.DUPLICATE


async def test_a_command_that_was_refused_is_asked_again_and_told_why(make: Make, tmp_path: Path) -> None:
    first = f"{says({'name': 'a', 'hypothesis': 'b', 'factors': {'RAET': [1]}, 'usd': 1})}\nexit 0"
    script = f'if grep -q "answered just now" "${BRIEF}"; then tail -5 "${BRIEF}"; {FASTER}; else {first}; fi'
    proposer = make(script)
    (proposal,) = await proposer.propose(CONTEXT, 12)
    assert proposal.edit is not None and proposer.usd_spent == 1
    assert [refused.name for refused in proposer.refusals()] == ["a"]
    assert "there is no knob RAET: did you mean RATE?" in said(tmp_path, 2)
    assert str(tmp_path) not in said(tmp_path, 2)


async def test_after_three_runs_of_nothing_it_gives_up(make: Make, tmp_path: Path) -> None:
    proposer = make("echo thinking")
    assert await proposer.propose(CONTEXT, 12) == []
    assert len(proposer.refusals()) == 3
    assert [said(tmp_path, number) for number in (1, 2, 3)] == ["thinking\n"] * 3


async def test_only_the_latest_checkouts_are_kept(make: Make, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "KEPT", 2)
    proposer = make("false")
    assert await proposer.propose(CONTEXT, 12) == []
    kept = names(scratch)
    assert len(kept) == 2 and all(any(name in one.reason for name in kept) for one in proposer.refusals()[1:])


@pytest.mark.parametrize(
    ("script", "limits", "reason"),
    [
        ("echo hello; sleep {}", {"silence": 0.3}, "it printed nothing for 0.3 s"),
        ("exec >&- 2>&-; sleep {}", {"silence": 0.3}, "it printed nothing for 0.3 s"),
        ("while true; do echo busy; done & sleep {}", {"total": 0.4}, "it took longer than 0.4 s"),
    ],
)
async def test_who_is_silent_or_takes_too_long_is_ended(
    script: str, limits: dict[str, float], reason: str, make: Make, once: None
) -> None:
    marker = f"600.{uuid4().int}"
    proposer = make(script.format(marker), **limits)
    assert await proposer.propose(CONTEXT, 12) == []
    (refused,) = proposer.refusals()
    assert reason in refused.reason
    assert alive_with(marker) == {}


async def test_nobody_that_it_started_outlives_it(make: Make) -> None:
    marker = f"600.{uuid4().int}"
    strays = f"sleep {marker} & (setsid sleep {marker} &) ; (trap '' HUP TERM; setsid nohup sleep {marker} & )"
    proposals = await make(f"{strays}; {FASTER}").propose(CONTEXT, 12)
    assert len(proposals) == 1, "the command itself came to its end"
    assert alive_with(marker) == {}


async def test_without_bash_it_is_said_what_is_missing(tmp_path: Path) -> None:
    nowhere = {PROPOSAL: str(tmp_path / "proposal.json"), "PATH": str(tmp_path)}
    with pytest.raises(UserError, match="bash is not installed"):
        await agent_process.run("true", tmp_path, nowhere, PROPOSAL, tmp_path / "output.log", Limits())


async def test_called_off_it_is_ended_and_its_checkout_removed(make: Make, tmp_path: Path, scratch: Path) -> None:
    marker, gate = f"600.{uuid4().int}", tmp_path / "gate"
    os.mkfifo(gate)
    task = asyncio.ensure_future(make(f"echo begun > '{gate}'; setsid sleep {marker}").propose(CONTEXT, 12))
    assert await asyncio.to_thread(gate.read_text) == "begun\n"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert alive_with(marker) == {}
    assert names(scratch) == []


async def test_one_that_outlived_its_controller_is_ended_by_the_next(make: Make, tmp_path: Path, scratch: Path) -> None:
    left = scratch / "autoresearch-agent-before"
    (left / "checkout").mkdir(parents=True)
    environment = {**os.environ, PROPOSAL: str(left / "checkout" / ".proposal" / "proposal.json")}
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "mar5.running").write_text(str(left))
    with stray(environment) as pid:
        await make(FASTER).propose(CONTEXT, 12)
        wait_for_the_end_of(pid)
    assert not left.exists()
    assert names(tmp_path / "agents") == ["mar5-0001.log"]


async def test_of_much_output_the_beginning_and_the_end_are_kept(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_process, "MOST_LOG", 3000)
    monkeypatch.setattr(agent_process, "TAIL", 1000)
    await make(f"echo first; head -c 500000 /dev/zero | tr '\\0' x; echo; echo last; {FASTER}").propose(CONTEXT, 12)
    printed = said(tmp_path)
    assert printed.startswith("first\nxxx") and printed.endswith("x\nlast\n")
    assert len(printed) < 3100 and "[497012 bytes are left out here]" in printed


async def test_refusals_are_recorded_with_the_wave_that_comes_of_the_answer(tmp_path: Path) -> None:
    study = open_in(workspace(tmp_path / "foreign"))
    ideas = [{"name": name, "hypothesis": "b", "factors": {name: [0.3]}} for name in ("RATE", "RAET")]
    proposer = Command(says(ideas), files)
    request = Request({}, 0, 2, 12)
    wave = begin(study, proposer, request, await design(study, proposer, request), VirtualClock())
    (refused,) = reading.refusals(study.journal, "mar5", wave.id)
    assert (refused.name, refused.label) == ("RAET", Objection.EDIT) and "did you mean RATE" in refused.reason
    assert wave.proposer == "command cat"
    nothing = Command("true", files)
    with pytest.raises(NothingRan, match="command true proposed nothing that can run: it changed nothing"):
        await design(study, nothing, request)
    study.journal.close()


def test_one_that_is_still_at_work_when_a_run_ends_ends_with_it(make: Make, tmp_path: Path, scratch: Path) -> None:
    clock, begun, marker = RealClock(), tmp_path / "begun", f"{uuid4()}"
    os.mkfifo(begun)

    async def main() -> list[Proposal]:
        relay = Relay(make(f"echo > '{begun}'; exec -a {marker} cat /dev/zero > /dev/null"), Doe(), clock, patience=0.0)
        asked = asyncio.ensure_future(relay.propose(CONTEXT, 12))
        await asyncio.to_thread(begun.read_text)
        relay.hurry()
        return await asked

    (*_, last) = clock.run(main())
    assert last.name and alive_with(marker) == {} and names(scratch) == []
