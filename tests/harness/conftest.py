"""Attempts for the tests of the harness, and the tiny profile's data for those that are scored."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.harness.attempts import ROOT, Attempts


@pytest.fixture(scope="session")
def prepare_files() -> dict[str, bytes]:
    """prepare/ of the tiny profile, which evaluates fewer rows so that a test takes less time."""
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in sorted((ROOT / "prepare").iterdir())
        if path.is_file()
    }
    text = files["prepare/profile.py"].decode()
    budget = "budget=Budget(tokens=2**18, seconds=None, cpu_seconds=20.0, warmup_seconds=60.0)"
    for pattern, new in (
        (r'^PROFILE = "\w+"', 'PROFILE = "tiny"'),
        (r"eval_tokens=2\*\*15", "eval_tokens=2**12"),
        (r"budget=Budget\(tokens=2.*\)", budget),
    ):
        text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
        assert count == 1, pattern
    return files | {"prepare/profile.py": text.encode()}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory, prepare_files: Mapping[str, bytes]) -> Path:
    """A cache of these tests' own, with the tiny profile's data in it."""
    cache = tmp_path_factory.mktemp("cache")
    prepare(tmp_path_factory.mktemp("prepared"), cache, prepare_files)
    return cache


def prepare(root: Path, cache: Path, prepare_files: Mapping[str, bytes]) -> None:
    """Lay `prepare_files` out below `root` and have them make their data in `cache`."""
    (root / "prepare").mkdir(parents=True)
    for name, content in prepare_files.items():
        (root / name).write_bytes(content)
    environment = os.environ | {"AUTORESEARCH_CACHE": str(cache)}
    subprocess.run([sys.executable, "-m", "prepare"], cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def attempts(tmp_path: Path, cache: Path, prepare_files: Mapping[str, bytes]) -> Attempts:
    """Attempts in folders of this test's own."""
    return Attempts(tmp_path, cache, prepare_files)
