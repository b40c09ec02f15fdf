from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.clock import VirtualClock
from controller.journal import Journal, ProgramChanged, SettingsChanged, StudyStarted, reading
from controller.records import UserError
from controller.study import choose_tag, open_study, preview_study
from controller.workspace import find, open_directory
from tests.foreign import PROGRAM, TRAIN, commit, git, refs, workspace

BRANCH = "autoresearch/mar5"


def program(front: str) -> dict[str, str]:
    return {"program.md": f"---\n{front}\n---\n{PROGRAM}"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return workspace(tmp_path / "foreign", {"train.py": TRAIN, **program("min_effect: 0.01\nbudget: {hours: 1}")})


@pytest.fixture
def journal(root: Path) -> Iterator[Journal]:
    opened = Journal.open(open_directory(find(root)), VirtualClock())
    yield opened
    opened.close()


def test_a_new_study_begins_at_the_commit_that_is_checked_out(root: Path, journal: Journal) -> None:
    study = open_study(find(root), journal, "mar5")
    head = git(root, "rev-parse", "HEAD")
    assert (study.branch, study.tip, study.incumbent.id) == (BRANCH, head, "c0000")
    assert git(root, "rev-parse", BRANCH) == head
    assert git(root, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert reading.study_of(journal, "mar5").settings == find(root).settings.recorded()


def test_opening_a_study_again_changes_nothing(root: Path, journal: Journal) -> None:
    open_study(find(root), journal, "mar5")
    before = refs(root), list(journal.events())
    commit(root, {"train.py": TRAIN + "# the user goes on with main\n"})
    again = open_study(find(root), journal, "mar5")
    assert again.tip == git(root, "rev-parse", "HEAD^")
    assert list(journal.events()) == before[1]
    assert git(root, "rev-parse", BRANCH) == again.tip


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("min_effect: 0.02\nbudget: {hours: 1}", "min_effect: 0.01 before, 0.02 now"),
        ("min_effect: 0.01\nmetric: {name: accuracy}", "metric.name: val_bpb before, accuracy now"),
        ("min_effect: 0.01\ntiers: {screening: {seeds: 2}}", "tiers.screening.seeds: 1 before, 2 now"),
        ("min_effect: 0.01\nearly_stopping: false", "early_stopping: True before, False now"),
    ],
)
def test_settings_that_make_scores_comparable_may_not_change(
    root: Path, journal: Journal, front: str, said: str
) -> None:
    open_study(find(root), journal, "mar5")
    before = list(journal.events())
    (root / "program.md").write_text(program(front)["program.md"])
    with pytest.raises(UserError) as raised:
        open_study(find(root), journal, "mar5")
    assert str(raised.value) == (
        f"study mar5 was begun with other settings ({said});"
        " set them back in program.md, or begin a new study with --tag"
    )
    assert list(journal.events()) == before
    assert open_study(find(root), journal, "apr6").tag == "apr6"


def test_the_budget_prices_and_the_prose_may_change_and_the_change_is_recorded_once(
    root: Path, journal: Journal
) -> None:
    open_study(find(root), journal, "mar5")
    text = (
        program("min_effect: 0.01\nbudget: {hours: 9, usd: 5}\nprices: {H100: 2.5}")["program.md"] + "Think harder.\n"
    )
    (root / "program.md").write_text(text)
    for _ in range(2):
        open_study(find(root), journal, "mar5")
    assert [type(event) for _, _, event in journal.events()] == [StudyStarted, ProgramChanged, SettingsChanged]
    assert reading.program(journal, "mar5") == PROGRAM.strip(), "a wave is what the new one is recorded with"
    settings = reading.study_of(journal, "mar5").settings
    assert (settings["budget"]["hours"], settings["budget"]["usd"]) == (9, 5) and settings["prices"] == {"H100": 2.5}


def test_a_branch_that_somebody_moved_is_refused(root: Path, journal: Journal) -> None:
    study = open_study(find(root), journal, "mar5")
    git(root, "checkout", "--quiet", BRANCH)
    theirs = commit(root, {"train.py": "RATE = 1.0\n"})
    with pytest.raises(UserError, match=f"branch {BRANCH} was moved to {theirs[:10]} while the study is at"):
        open_study(find(root), journal, "mar5")
    git(root, "reset", "--quiet", "--hard", study.tip)
    assert open_study(find(root), journal, "mar5").tip == study.tip


def test_a_branch_that_somebody_deleted_is_put_back(root: Path, journal: Journal) -> None:
    study = open_study(find(root), journal, "mar5")
    git(root, "update-ref", "refs/remotes/origin/autoresearch/mar5", study.tip)
    git(root, "branch", "-D", BRANCH)
    open_study(find(root), journal, "mar5")
    assert git(root, "rev-parse", f"refs/heads/{BRANCH}") == study.tip


def test_in_a_clone_a_study_goes_on_from_origin_s_branch(root: Path, tmp_path: Path) -> None:
    git(root, "checkout", "--quiet", "-b", BRANCH)
    kept = commit(root, {"train.py": TRAIN.replace("0.5", "0.3")})
    git(root, "checkout", "--quiet", "main")
    git(root, "clone", "--quiet", str(root), str(tmp_path / "clone"))
    workspace_ = find(tmp_path / "clone")
    journal = Journal.open(open_directory(workspace_), VirtualClock())
    study = open_study(workspace_, journal, "mar5")
    assert study.tip == kept == git(tmp_path / "clone", "rev-parse", f"refs/heads/{BRANCH}")
    journal.close()


def test_a_train_py_that_is_no_python_begins_no_study(root: Path, journal: Journal) -> None:
    head = commit(root, {"train.py": "RATE = (0.5\n"})
    before = refs(root)
    with pytest.raises(UserError, match=rf"train\.py in commit {head[:10]}, line 1: .+ change the file so that Python"):
        open_study(find(root), journal, "mar5")
    assert refs(root) == before and list(journal.events()) == []


def test_a_preview_leaves_git_as_it_is(root: Path, tmp_path: Path) -> None:
    before = refs(root)
    scratch = Journal.open(tmp_path / "scratch", VirtualClock())
    study = preview_study(find(root), scratch, "mar5")
    assert study.tip == git(root, "rev-parse", "HEAD") and refs(root) == before
    scratch.close()


GOOD = ["mar5", "a", "2026-03-05", "try_2", "größer", "x" * 64, "tip"]
BAD = ["", "-x", "a/b", "a b", "a..b", "a.b", "x.lock", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "@{", "@", ".a"]
BAD += ["x-tip", "x" * 65, "a\nb", "\0", "..", "HEAD~1"]


@pytest.mark.parametrize("tag", GOOD)
def test_a_good_tag_is_taken_as_it_is(root: Path, tag: str) -> None:
    assert choose_tag(find(root), None, tag, VirtualClock()) == tag


@pytest.mark.parametrize("tag", BAD)
def test_a_tag_that_cannot_name_a_study_is_one_sentence(root: Path, tag: str) -> None:
    with pytest.raises(UserError, match="can't be a study's; use up to 64 letters") as raised:
        choose_tag(find(root), None, tag, VirtualClock())
    assert "\n" not in str(raised.value)


def test_without_a_tag_the_latest_study_goes_on_and_the_first_is_named_after_the_day(
    root: Path, journal: Journal
) -> None:
    clock = VirtualClock(start=1_772_668_800.0)
    assert time.gmtime(clock.now())[:3] == (2026, 3, 5)
    assert choose_tag(find(root), None, None, clock) == choose_tag(find(root), journal, None, clock) == "mar05"
    open_study(find(root), journal, "zulu")
    open_study(find(root), journal, "alpha")
    assert choose_tag(find(root), journal, None, clock) == "alpha"
