"""The command as a user gives it, and a foreign workspace in which one wave has been run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from controller.cli import main
from tests.foreign import workspace


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one sentence of a mistake, less the command's name in front of it."""
        assert self.code == 2, self
        assert self.err.startswith("autoresearch: ") and self.err.endswith("\n"), self.err
        assert self.err.count("\n") == 1 and "Traceback" not in self.err, self.err
        return self.err.removeprefix("autoresearch: ").rstrip("\n")


Command = Callable[..., Said]


def process(*arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Said:
    """The command as a process of its own."""
    command = [sys.executable, "-c", "from controller.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def run_process() -> Command:
    return process


@pytest.fixture
def cli(foreign: Path) -> Command:
    """The command in this process, in the foreign workspace."""

    def run(*arguments: str | Path) -> Said:
        done = CliRunner(mix_stderr=False).invoke(main, ["-C", str(foreign), *map(str, arguments)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A workspace in upstream's flat layout, of a path with a space, in which nothing has been run."""
    return workspace(tmp_path / "foreign workspace")


@pytest.fixture(scope="session")
def _ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    root = workspace(tmp_path_factory.mktemp("ran") / "workspace")
    options = ("--clusters", "2", "--tag", "mar5", "--factor", "RATE=0.5,0.3", "--factor", "WIDTH=4,8")
    return root, process("wave", *options, cwd=root)


@pytest.fixture(scope="session")
def first_wave(_ran: tuple[Path, Said]) -> Said:
    """What the wave in `ran` said."""
    return _ran[1]


@pytest.fixture
def ran(_ran: tuple[Path, Said], tmp_path: Path) -> Path:
    """A workspace of this test's own in which one wave has been run: study mar5, winner RATE=0.3 WIDTH=8."""
    return Path(shutil.copytree(_ran[0], tmp_path / "ran", symlinks=True))


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    """Everything below a folder, byte for byte, but what SQLite keeps for readers to know of writers."""

    def found(root: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and not path.name.endswith(("-wal", "-shm"))
        }

    return found
