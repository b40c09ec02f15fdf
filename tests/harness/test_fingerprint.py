from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from controller.harness.fingerprint import files_below, fingerprint

EDIT = "train/train.py"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    for name in (EDIT, "prepare/__init__.py", "prepare/loader.py", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def hashes(bundle: Path, edit: str = EDIT) -> dict[str, str]:
    return fingerprint(files_below(bundle), edit)


def test_the_edited_file_and_the_fixed_files_have_their_own_hash(bundle: Path) -> None:
    before = hashes(bundle)
    assert before["train"] == hashlib.sha256(EDIT.encode()).hexdigest()
    (bundle / EDIT).write_text("edited")
    (bundle / "README.md").write_text("edited")
    after = hashes(bundle)
    assert after["train"] != before["train"]
    assert after["fixed"] == before["fixed"]


def test_any_change_to_prepare_is_seen_but_bytecode_is_not(bundle: Path) -> None:
    before = hashes(bundle)["fixed"]
    (bundle / "prepare/__pycache__").mkdir()
    (bundle / "prepare/__pycache__/loader.pyc").write_text("x")
    assert hashes(bundle)["fixed"] == before
    (bundle / "prepare/loader.py").rename(bundle / "prepare/other.py")
    renamed = hashes(bundle)["fixed"]
    (bundle / "prepare/more.py").touch()
    assert len({before, renamed, hashes(bundle)["fixed"]}) == 3


def test_the_order_of_the_files_does_not_matter(bundle: Path) -> None:
    assert fingerprint(reversed(list(files_below(bundle))), EDIT) == hashes(bundle)


def test_a_file_that_is_not_there_has_no_hash(bundle: Path) -> None:
    assert hashes(bundle, "train.py")["train"] == ""
