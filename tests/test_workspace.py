from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.records import UserError
from controller.repo import Repository
from controller.workspace import at_commit, find, open_directory
from tests.foreign import PROGRAM, TRAIN, commit, git, workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return workspace(tmp_path / "foreign workspace ü")


def test_upstream_s_flat_layout_is_a_workspace_that_scores_itself(root: Path) -> None:
    found = find(root)
    assert (found.root, found.edit, found.head) == (root, "train.py", git(root, "rev-parse", "HEAD"))
    assert found.source(found.head) == TRAIN
    assert not found.evaluated(found.head)
    assert found.settings.metric.name == "val_bpb"


def test_a_workspace_with_our_protocol_is_scored_by_us(root: Path) -> None:
    head = commit(root, {"prepare/protocol.py": "", "train/train.py": TRAIN})
    found = find(root)
    assert found.evaluated(head) and found.edit == "train/train.py"
    assert not found.evaluated(f"{head}^")


def test_a_subfolder_finds_the_workspace_around_it(root: Path) -> None:
    (root / "notes" / "deep").mkdir(parents=True)
    assert find(root / "notes" / "deep").root == root


def test_a_linked_worktree_is_a_workspace_with_its_own_head(root: Path, tmp_path: Path) -> None:
    git(root, "worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"))
    head = commit(tmp_path / "linked", {"train.py": TRAIN + "# more\n"})
    found = find(tmp_path / "linked")
    assert (found.root, found.head) == (tmp_path / "linked", head)


def test_the_file_to_edit_is_the_one_the_settings_name(root: Path) -> None:
    commit(root, {"src/model.py": "A = 1\n", "program.md": "---\nedit: ./src/model.py\n---\n"})
    assert find(root).edit == "src/model.py"


@pytest.mark.parametrize("edit", ["missing.py", "src", "../train.py", "/etc/passwd"])
def test_a_file_to_edit_that_is_not_committed_is_one_sentence(root: Path, edit: str) -> None:
    commit(root, {"src/model.py": "A = 1\n", "program.md": f"---\nedit: {edit}\n---\n"})
    with pytest.raises(UserError, match=f"{edit} is not committed in .+; commit it, or run `autoresearch init DIR`"):
        find(root)


def test_settings_come_from_the_file_as_it_lies_there_else_from_the_commit(root: Path) -> None:
    head = commit(root, {"program.md": "---\nmin_effect: 0.1\n---\n"})
    (root / "program.md").write_text("---\nmin_effect: 0.2\n---\n")
    assert find(root).settings.min_effect == 0.2
    assert at_commit(Repository.find(root), head).settings.min_effect == 0.1
    (root / "program.md").unlink()
    assert find(root).settings.min_effect == 0.1


def test_a_workspace_needs_no_program(tmp_path: Path) -> None:
    assert find(workspace(tmp_path / "bare bones", {"train.py": TRAIN})).edit == "train.py"


def test_a_program_that_is_no_text_is_one_sentence(root: Path) -> None:
    (root / "program.md").write_bytes(b"---\nedit: caf\xe9\n---\n")
    with pytest.raises(UserError, match=r"program\.md is not UTF-8 text"):
        find(root)
    head = commit(root, {})
    with pytest.raises(UserError, match=r"program\.md: the front matter can't be read"):
        at_commit(Repository.find(root), head)


def test_a_folder_that_is_no_repository_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not in a git repository; `autoresearch init DIR` makes a workspace"):
        find(tmp_path)


def test_a_repository_without_a_commit_is_one_sentence(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "train.py").write_text(TRAIN)
    with pytest.raises(UserError, match=r"has no commit yet; commit train\.py and what it needs first"):
        find(tmp_path)


def test_a_repository_without_train_py_is_one_sentence(tmp_path: Path) -> None:
    root = workspace(tmp_path / "empty", {"README.md": PROGRAM})
    with pytest.raises(UserError, match=r"train/train\.py or train\.py is not committed in"):
        find(root)
    (root / "train.py").write_text(TRAIN)
    with pytest.raises(UserError, match=r"train/train\.py or train\.py is not committed in"):
        find(root)
    git(root, "add", "--all")
    with pytest.raises(UserError, match="is not committed"):
        find(root)


def test_our_folder_is_hidden_from_git(root: Path) -> None:
    directory = open_directory(find(root))
    directory.mkdir()
    (directory / "journal.db").touch()
    assert directory == root / ".autoresearch"
    assert git(root, "status", "--porcelain", "--ignored") == "!! .autoresearch/"


def test_files_are_read_byte_for_byte(root: Path) -> None:
    head = commit(root, {"train.py": b"A = 1\r\nB = '\xff'\n"})
    assert os.fsencode(find(root).source(head)) == b"A = 1\r\nB = '\xff'\n"
