"""Whatever a user gets wrong is one sentence that says what to do, exit code 2, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from controller.cli import main
from tests.foreign import PROGRAM, TRAIN, commit, git, workspace

Files = Callable[[Path], dict[str, bytes]]

WAVE = ("wave", "--clusters", "2")

MISTAKES = [
    (("wave", "--clusters", "0"), "invalid value for '--clusters': 0 is not in the range x>=1"),
    (("wave", "--clusters", "-3"), "invalid value for '--clusters': -3 is not in the range x>=1"),
    (("wave", "--clusters", "many"), "invalid value for '--clusters': 'many' is not a valid integer"),
    (("wave", "--clusters", "1.5"), "invalid value for '--clusters': '1.5' is not a valid integer"),
    (("wave",), "say how many clusters to use with --clusters, or name them in program.md's front matter"),
    ((*WAVE, "--seed", "-1"), "invalid value for '--seed'"),
    ((*WAVE, "--factor", "RAET=0.1"), "there is no knob RAET: did you mean RATE?"),
    ((*WAVE, "--factor", "rate=0.1"), "'rate=0.1' is not a factor"),
    ((*WAVE, "--factor", "RATE"), "'RATE' is not a factor: write a knob and its levels, such as DEPTH=1,2"),
    ((*WAVE, "--factor", "RATE="), "RATE: a level is missing"),
    ((*WAVE, "--factor", "RATE=0.1,,0.2"), "RATE: a level is missing"),
    ((*WAVE, "--factor", "=0.1"), "'=0.1' is not a factor"),
    ((*WAVE, "--factor", ""), "'' is not a factor"),
    ((*WAVE, "--factor", "RATE=(0.1"), "RATE: close every bracket and quote"),
    ((*WAVE, "--factor", "WIDTH=2.5"), "WIDTH cannot be 2.5: give it a whole number, such as the present 4"),
    ((*WAVE, "--factor", "WIDTH=wide"), "WIDTH cannot be 'wide': give it a whole number"),
    ((*WAVE, "--factor", "RATE=1e999"), "RATE"),
    ((*WAVE, "--factor", "RATE=0.5"), "nothing would change: name a knob with a level that the incumbent does not"),
    ((*WAVE, "--factor", "RATE=0.1", "--factor", "RATE=0.2"), "RATE is named twice"),
    ((*WAVE, "--factor", "WIDTH=0"), "nothing of this can run, WIDTH: WIDTH=0: it fails its own assertion: WIDTH must"),
    ((*WAVE, "--proposer", "oracle"), "there is no proposer oracle"),
    ((*WAVE, "--infra", "skypilot"), "has no experiment.yaml, which says what a cluster needs; add one, or use"),
    ((*WAVE, "--tag", "a/b"), "--tag 'a/b' can't be a study's"),
    ((*WAVE, "--tag", ""), "--tag '' can't be a study's"),
    ((*WAVE, "--tag=-x"), "--tag '-x' can't be a study's"),
    ((*WAVE, "--tag", "x" * 300), "--tag 'xxx"),
    ((*WAVE, "--nonsense"), "no such option: --nonsense"),
    ((*WAVE, "spare"), "got unexpected extra argument (spare)"),
    (("waev",), "there is no command 'waev', but wave; see"),
    (("status",), "has no study yet; begin one with `autoresearch wave --clusters 2 --infra local`"),
    (("results", "--json"), "has no study yet"),
    (("show", "e0001"), "has no study yet"),
    (("plot",), "has no study yet"),
    (("reproduce",), "no study branch in"),
    (("reproduce", "main"), "carries no result of a study"),
    (("reproduce", "nowhere"), "there is no commit nowhere in"),
    (("reproduce", "-x"), "no such option: -x"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    arguments: tuple[str, ...],
    said: str,
    cli: Callable[..., Any],
    foreign: Path,
    files: Files,
) -> None:
    before = files(foreign)
    assert said in cli(*arguments).sentence
    assert files(foreign) == before


@pytest.mark.parametrize("arguments", [one for one, _ in MISTAKES if one[:3] == WAVE and "--factor" in one])
def test_a_dry_run_refuses_the_same_mistakes(
    arguments: tuple[str, ...], cli: Callable[..., Any], foreign: Path, files: Files
) -> None:
    before = files(foreign)
    assert cli(*arguments, "--dry-run").sentence == cli(*arguments).sentence
    assert files(foreign) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "e9999"), "study mar5 has no experiment, candidate or wave e9999"),
        (("diff", "e9999"), "study mar5 has no experiment or candidate e9999"),
        (("diff", "w01"), "study mar5 has no experiment or candidate w01"),
        (("diff", "c0000"), "c0000 is the baseline of study mar5; it changed nothing"),
        (("logs", "e9999"), "study mar5 has no experiment e9999"),
        (("logs", "e0001", "--tail", "0"), "invalid value for '--tail'"),
        (("results", "--json", "--csv"), "choose one of --json, --csv and --tsv"),
        (("results", "--csv", "--tsv"), "choose one of --json, --csv and --tsv"),
        (("results", "--tag", "apr6"), "there is no study apr6; there are mar5"),
        (("status", "--tag", "apr6"), "there is no study apr6; there are mar5"),
        (("reproduce", "refs/autoresearch/mar5/c0001"), "carries no result of a study"),
        (("reproduce", "HEAD~5"), "there is no commit HEAD~5"),
        (("wave", "--clusters", "2", "--factor", "RATE=0.3"), "nothing would change"),
    ],
)
def test_a_mistake_in_a_study_is_one_sentence_and_changes_nothing(
    arguments: tuple[str, ...], said: str, ran: Path, run_process: Callable[..., Any], files: Files
) -> None:
    before = files(ran)
    assert said in run_process(*arguments, cwd=ran).sentence
    assert files(ran) == before


def test_a_model_that_was_tried_already_is_a_mistake_of_who_asks_for_it_again(
    ran: Path, run_process: Callable[..., Any]
) -> None:
    sentence = run_process("wave", "--clusters", "2", "--factor", "RATE=0.5", "--factor", "WIDTH=4", cwd=ran).sentence
    assert "it is the same model as c0000, which was tried before" in sentence


def test_a_workspace_that_is_not_there_is_one_sentence(tmp_path: Path, run_process: Callable[..., Any]) -> None:
    for arguments in (
        ("-C", "missing", "status"),
        ("status", "-C", "missing"),
        ("wave", "--clusters", "1", "-C", "missing"),
    ):
        assert (
            run_process(*arguments, cwd=tmp_path).sentence
            == "missing does not exist; give -C the folder of a workspace"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("status",), WAVE, ("results",), ("reproduce",), ("plot",), ("show", "e0001")])
def test_a_folder_that_is_no_repository_is_one_sentence(
    command: tuple[str, ...], tmp_path: Path, run_process: Callable[..., Any]
) -> None:
    assert run_process(*command, cwd=tmp_path).sentence.endswith("`autoresearch init DIR` makes a workspace")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train.py": "RATE = (0.5\n"}, "line 1: '(' was never closed; change the file so that Python can parse it"),
        ({"train.py": b"RATE = '\xff'\n"}, "change the file so that Python can parse it"),
        ({"program.md": "---\nmin_efect: 1\n---\n"}, "program.md, line 2: unknown key min_efect"),
        ({"program.md": "---\nmetric: [\n---\n"}, "program.md, line 2: "),
        ({"program.md": "---\nmin_effect: 1\n"}, "program.md, line 1: the front matter is not closed"),
        ({"program.md": "---\nedit: other.py\n---\n"}, "other.py is not committed in"),
    ],
)
def test_a_workspace_with_a_broken_file_is_one_sentence(
    changed: dict[str, str | bytes], said: str, cli: Callable[..., Any], foreign: Path, files: Files
) -> None:
    commit(foreign, changed)
    before = files(foreign)
    for arguments in (WAVE, (*WAVE, "--factor", "RATE=0.1"), (*WAVE, "--dry-run")):
        assert said in cli(*arguments).sentence
        assert files(foreign) == before


def test_a_repository_without_a_commit_or_without_train_py_is_one_sentence(
    tmp_path: Path, run_process: Callable[..., Any]
) -> None:
    git(tmp_path, "init", "--quiet")
    assert "has no commit yet" in run_process(*WAVE, cwd=tmp_path).sentence
    (tmp_path / "train.py").write_text(TRAIN)
    assert "has no commit yet" in run_process(*WAVE, cwd=tmp_path).sentence
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "empty")
    assert "is not committed in" in run_process(*WAVE, cwd=tmp_path).sentence
    assert not (tmp_path / ".autoresearch").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("init",), "missing argument 'DIRECTORY'"),
        (("init", "full"), "full is not empty"),
        (("init", "new", "--profile", "huge"), "there is no profile huge; choose one of tiny, full"),
        (("init", "/proc/new"), "/proc/new can't be made"),
    ],
)
def test_a_workspace_that_cannot_be_made_is_one_sentence(
    arguments: tuple[str, ...], said: str, tmp_path: Path, run_process: Callable[..., Any], files: Files
) -> None:
    workspace(tmp_path / "full", {"README.md": PROGRAM})
    before = files(tmp_path)
    assert said in run_process(*arguments, cwd=tmp_path).sentence
    assert files(tmp_path) == before


def test_a_damaged_journal_is_one_sentence_and_the_next_command_begins_anew(
    ran: Path, run_process: Callable[..., Any]
) -> None:
    journal = ran / ".autoresearch" / "journal.db"
    journal.write_bytes(damaged := b"no database at all\n" * 300)
    for command in ("status", "results", "plot"):
        assert "journal.db is damaged" in run_process(command, cwd=ran).sentence
    assert journal.read_bytes() == damaged
    wave = ("wave", "--clusters", "1", "--tag", "mar5", "--factor", "WIDTH=16")
    assert "is kept as" in run_process(*wave, cwd=ran).sentence
    assert (ran / ".autoresearch" / "journal.db.damaged-1").read_bytes() == damaged
    done = run_process(*wave, cwd=ran)
    assert done.code == 0, done
    assert git(ran, "log", "-1", "--format=%s", "autoresearch/mar5") == "Keep c0001: WIDTH=16"
    assert git(ran, "rev-list", "--count", "main..autoresearch/mar5") == "2", "it went on from the branch"


def test_another_controller_of_the_study_is_one_sentence(
    ran: Path, run_process: Callable[..., Any], files: Files
) -> None:
    from controller.journal import study_lock

    with study_lock(ran / ".autoresearch", "mar5"):
        run_process("status", cwd=ran)
        before = files(ran)
        said = run_process("wave", "--clusters", "2", "--factor", "WIDTH=16", cwd=ran).sentence
        assert said.startswith("study mar5 is already being run by process")
        assert files(ran) == before
        assert "running now" in run_process("status", cwd=ran).out


def test_every_command_has_an_example_in_its_help() -> None:
    for name, command in main.commands.items():
        for flag in ("--help", "-h"):
            done = CliRunner().invoke(main, [name, flag])
            assert done.exit_code == 0
            assert f"Example:\n    autoresearch {name}" in done.output, name
        assert command.help
    assert "Example:\n    autoresearch init" in CliRunner().invoke(main, ["--help"]).output


def test_every_command_takes_its_workspace_before_and_after_its_name(tmp_path: Path) -> None:
    clusters = ["--clusters", "1"]
    arguments = {"wave": clusters, "run": clusters, "show": ["e0001"], "diff": ["e0001"], "logs": ["e0001"]}
    arguments |= {"submit": ["--hypothesis", "h"], "withdraw": ["s0000"]}
    missing = str(tmp_path / "missing")
    for name in main.commands:
        if name == "init":  # has no workspace yet
            continue
        for line in (["-C", missing, name], [name, "-C", missing]):
            done = CliRunner(mix_stderr=False).invoke(main, [*line, *arguments.get(name, [])])
            said = f"autoresearch: {missing} does not exist; give -C the folder of a workspace\n"
            assert (done.exit_code, done.stderr) == (2, said), line
