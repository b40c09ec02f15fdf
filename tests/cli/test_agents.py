"""Agents that drive us: `submit`, `wait` and `brief` as commands, and the same over MCP with its official client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from controller.agents import driving
from controller.clock import VirtualClock
from controller.records import NothingRan
from tests.foreign import TRAIN, commit, git, workspace
from tests.processes import PATIENCE_SECONDS

Command = Callable[..., Any]
US = [sys.executable, "-c", "from controller.cli import main; main()"]
PROGRAM = "---\ntiers: {confirmation: {seeds: 2, promote: 1}}\n---\nMake the number smaller.\n"
RUN = ("run", "--clusters", "2", "--infra", "local", "--tag", "mar5", "--proposer", "submissions")
EDIT = """\
<<<<<<< SEARCH
RATE = 0.5
=======
DECAY = 0.2
RATE = 0.5 - DECAY
>>>>>>> REPLACE
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return workspace(tmp_path / "workspace", {"train.py": TRAIN, "program.md": PROGRAM})


@contextmanager
def running(root: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """A controller that takes up what is handed in, once it has begun."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*US, *RUN, *more], cwd=root, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("bringing up"):
                    break
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_SECONDS)
            finally:
                process.kill()


def submitted(done: Any) -> str:
    assert (done.code, done.err) == (0, ""), done
    return str(json.loads(done.out)["submission"])


def test_an_agent_hands_in_waits_and_reads_what_became_of_it(root: Path, run_process: Command) -> None:
    train = root.parent / "train.py"
    train.write_text(TRAIN.replace('SHAPE = "flat"', 'SHAPE = "round"'))
    patch = root.parent / "patch.txt"
    patch.write_text(EDIT)
    with running(root):
        idea = ("submit", "--json", "--hypothesis")
        one = submitted(run_process(*idea, "it decays", "--patch", patch, "--factor", "WIDTH=4,8", cwd=root))
        two = submitted(run_process(*idea, "rounder", "--edit", train, "--predicted", "-0.1", cwd=root))
        done = run_process("wait", one, two, "--json", cwd=root)
        assert (done.code, done.err) == (0, "")
        found = json.loads(done.out)
        assert [(told["submission"], told["state"]) for told in found] == [(one, "ended"), (two, "ended")]
        first, second = found[0]["cells"]
        assert (first["knobs"], second["knobs"]) == ({"DECAY": 0.2}, {"DECAY": 0.2, "WIDTH": 8})
        assert second["verdict"] == "keep" and second["confirmed"] < -0.04 < 0 and second["score"] is not None
        assert found[0]["kept"] == second["candidate"] and found[0]["conclusion"].startswith("keep")
        assert "RATE = 0.5 - DECAY" in git(root, "show", "autoresearch/mar5:train.py")
        text = run_process("wait", one, cwd=root).out
        assert f"{second['candidate']} " in text and "confirmed -0.0" in text and "keep" in text
        again = run_process(*idea, "again", "--factor", "WIDTH=4", cwd=root).sentence
        assert "refused (duplicate)" in again and first["candidate"] in again
    rows = json.loads(run_process("results", "--json", cwd=root).out)
    assert {row["hypothesis"] for row in rows if row["role"] == "cell"} == {"it decays", "rounder"}
    brief = run_process("brief", cwd=root).out
    assert "Make the number smaller." in brief and "autoresearch submit" in brief and second["candidate"] in brief


def test_what_is_handed_in_while_nobody_runs_it_waits_for_who_does(root: Path, run_process: Command) -> None:
    said = run_process("submit", "--factor", "WIDTH=8", "--hypothesis", "wider", cwd=root).sentence
    assert "has no study yet" in said
    assert run_process("wave", "--clusters", "1", "--tag", "mar5", "--factor", "WIDTH=6", cwd=root).code == 0
    done = run_process("submit", "--factor", "WIDTH=8", "--hypothesis", "wider", cwd=root)
    assert done.code == 0 and ": 1 cell; nobody runs study mar5: `autoresearch run --proposer submissions" in done.out
    name = done.out.partition(":")[0]
    late = run_process("wait", "--timeout", "0", cwd=root)
    assert late.code == 3 and late.out == f"{name} waits for the next wave\n" and "nobody runs study mar5" in late.err
    assert run_process("note", "wider, wider", cwd=root).code == 0
    assert "wider, wider" in run_process("brief", cwd=root).out, "though nobody has taken it up yet"
    other = run_process("submit", "--factor", "WIDTH=7", "--hypothesis", "a little", cwd=root).out.partition(":")[0]
    assert run_process("withdraw", other, cwd=root).out == f"{other} is withdrawn\n"
    assert f"{other} does not wait" in run_process("withdraw", other, cwd=root).sentence
    done = run_process("wave", "--clusters", "2", "--proposer", "submissions", cwd=root)
    assert done.code == 0 and "1 candidate proposed by submissions" not in done.err, done
    (told,) = json.loads(run_process("wait", "--json", cwd=root).out)
    assert told["state"] == "ended" and told["wave"] == "w02"
    nothing = run_process("wave", "--clusters", "2", "--proposer", "submissions", cwd=root)
    assert nothing.code == 3 and "nothing has been handed in; `autoresearch submit`" in nothing.err


def test_nobody_waits_for_what_nobody_runs(ran: Path) -> None:
    clock = VirtualClock()
    with driving.open_study(ran, None) as study:
        name = driving.submit(study, {"name": "n", "hypothesis": "h", "factors": {"WIDTH": [16]}}, clock)["submission"]
        said: list[str] = []
        with pytest.raises(NothingRan, match="nobody runs study mar5"):
            clock.run(driving.wait_for(study, [], None, clock, said.append))
        assert said == [f"{name} waits for the next wave"] and clock.monotonic() >= driving.GRACE_SECONDS


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("submit",), "missing option '--hypothesis'"),
        (("submit", "--hypothesis", "h"), "refused (no_op): it changes nothing"),
        (
            ("submit", "--hypothesis", "h", "--edit", "nowhere.py"),
            "nowhere.py can't be read (No such file or directory)",
        ),
        (
            ("submit", "--hypothesis", "h", "--edit", "train.py"),
            "refused (duplicate): the edit: it is the same model as c0000",
        ),
        (("submit", "--hypothesis", "h", "--edit", "a", "--patch", "b"), "give --edit or --patch, not both"),
        (("submit", "--hypothesis", "h", "--patch", "empty"), "empty is empty; leave --edit and --patch out"),
        (("submit", "--hypothesis", "h", "--patch", "binary"), "binary is not UTF-8 text"),
        (("submit", "--hypothesis", "h", "--factor", "WIDHT=8"), "did you mean WIDTH"),
        (("submit", "--hypothesis", "h", "--factor", "WIDTH=32", "--design", "cube"), "there is no design cube"),
        (("submit", "--hypothesis", "h", "--factor", "WIDTH=32", "--repairs", "c0001"), "no crash that waits"),
        (("wait", "snothing"), "study mar5 has no submission snothing"),
        (("wait",), "nothing was submitted to study mar5 yet"),
    ],
)
def test_a_mistake_is_one_sentence(cli: Command, ran: Path, arguments: Sequence[str], sentence: str) -> None:
    (ran / "empty").write_text("\n")
    (ran / "binary").write_bytes(b"\xff\xfe")
    arguments = [str(ran / one) if one in ("nowhere.py", "empty", "binary", "train.py") else one for one in arguments]
    assert sentence in cli(arguments[0], "-C", ran, *arguments[1:]).sentence


def test_the_skill_file_is_one_page_and_names_commands_there_are(cli: Command) -> None:
    from controller.cli import main

    skill = cli("mcp", "--skill").out
    front, _, text = skill.removeprefix("---\n").partition("\n---\n")
    assert front.startswith("name: autoresearch\ndescription: ") and len(text.splitlines()) < 70
    for word in ("submit", "wait", "results", "brief", "status", "show", "diff", "logs", "run"):
        assert word in text and word in main.commands


class Agent:
    """An agent over MCP, by the official client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def use(self, tool: str, **arguments: Any) -> Any:
        done = await self._client.call_tool(tool, arguments)
        assert not done.is_error, done
        return done.structured_content if tool in ("submit", "wait", "status") else done.content[0].text  # type: ignore[union-attr]

    async def refused(self, tool: str, **arguments: Any) -> str:
        done = await self._client.call_tool(tool, arguments)
        assert done.is_error
        return str(done.content[0].text)  # type: ignore[union-attr]


async def test_over_mcp_an_agent_submits_waits_and_reads_results(root: Path) -> None:
    server = StdioServerParameters(command=US[0], args=[*US[1:], "-C", str(root), "mcp"])
    async with Client(server, read_timeout_seconds=PATIENCE_SECONDS) as client:
        agent = Agent(client)
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {"brief", "submit", "wait", "results", "effects", "read_diff", "read_log"} <= tools.keys()
        assert set(tools["submit"].input_schema["required"]) == {"name", "hypothesis"}
        assert all(tool.description for tool in tools.values())
        assert "has no study yet" in await agent.refused("brief")
        with running(root):
            assert "Make the number smaller." in await agent.use("brief")
            assert "RATE = 0.5" in await agent.use("read_source")
            idea = {"name": "decay", "hypothesis": "it decays", "edit": EDIT, "factors": {"WIDTH": [4, 8]}}
            one = await agent.use("submit", **idea, predicted=-0.05, low=-0.1, high=0.0)
            assert (one["cells"], one["left_out"], one["running"]) == (2, [], True)
            wrong = await agent.refused(
                "submit", name="lost", hypothesis="h", edit=EDIT.replace("RATE = 0.5", "RATE=7")
            )
            assert "SEARCH" in wrong and "RATE = 0.5" in wrong, "the closest lines are told"
            (told,) = (await agent.use("wait", submissions=[one["submission"]], seconds=PATIENCE_SECONDS))[
                "submissions"
            ]
            assert told["state"] == "ended" and told["kept"], told
            assert (await agent.use("status"))["incumbent"]["candidate"] == told["kept"]
        rows = await agent.use("results", candidate=told["kept"])
        assert "confirmation" in rows and "```data" in rows
        assert "DECAY" in await agent.use("read_diff", candidate=told["kept"])
        assert "WIDTH" in await agent.use("effects", wave=told["wave"])
        assert "seed" in await agent.use("read_log", experiment="e0001")
        assert "there is no wave w99" in await agent.refused("effects", wave="w99")
    commit(root, {}, "nothing of this is the server's to write")
