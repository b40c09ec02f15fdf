from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from prepare.fingerprint import file_hashes


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for name in ("train/train.py", "prepare/__init__.py", "prepare/loader.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_the_edited_file_and_the_fixed_files_have_their_own_hash(workspace: Path) -> None:
    before = file_hashes(workspace)
    assert before["train"] == hashlib.sha256(b"train/train.py").hexdigest()
    (workspace / "train/train.py").write_text("edited")
    after = file_hashes(workspace)
    assert after["train"] != before["train"]
    assert after["fixed"] == before["fixed"]


def test_any_change_to_prepare_is_seen_but_bytecode_is_not(workspace: Path) -> None:
    before = file_hashes(workspace)["fixed"]
    (workspace / "prepare/__pycache__").mkdir()
    (workspace / "prepare/__pycache__/loader.pyc").write_text("x")
    assert file_hashes(workspace)["fixed"] == before
    (workspace / "prepare/loader.py").rename(workspace / "prepare/other.py")
    renamed = file_hashes(workspace)["fixed"]
    (workspace / "prepare/more.py").touch()
    assert len({before, renamed, file_hashes(workspace)["fixed"]}) == 3


def test_another_file_may_be_the_edited_one(workspace: Path) -> None:
    (workspace / "train.py").write_text("flat")
    assert file_hashes(workspace, edit="train.py")["train"] == hashlib.sha256(b"flat").hexdigest()
    with pytest.raises(FileNotFoundError):
        file_hashes(workspace, edit="missing.py")
