"""What these tests share: a workspace of the tiny profile, with a budget of a few steps, and its data."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# prepare/ is not installed: it is imported from the checkout under test, whichever way pytest was started.
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of train/ and prepare/ set to the tiny profile with 8 steps, its data prepared in a cache of its own."""
    from prepare.dataset import ensure
    from prepare.profile import TINY

    root = tmp_path_factory.mktemp("workspace")
    for room in ("prepare", "train"):
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    substitute(root / "prepare/profile.py", r'^PROFILE = "\w+"', 'PROFILE = "tiny"')
    substitute(root / "prepare/profile.py", r"tokens=2\*\*18", "tokens=2**13")
    for name, value in TINY.knobs.items():
        substitute(root / "train/train.py", rf"^{name} = .*?(?=  #)", f"{name} = {value!r}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        ensure(TINY)
        yield root


def substitute(path: Path, pattern: str, replacement: str) -> None:
    """Replace the one match of `pattern` in a file."""
    text, count = re.subn(pattern, lambda _: replacement, path.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{pattern} matches {count} times in {path}"
    path.write_text(text)
