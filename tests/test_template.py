from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from controller.edits import broken_promise, read_knobs
from controller.records import UserError
from controller.template import PARTS, init
from controller.workspace import find
from prepare.profile import PROFILES
from tests.foreign import git

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("profile", ["tiny", "full"])
def test_a_new_workspace_has_the_profile_and_its_knobs_in_one_clean_commit(tmp_path: Path, profile: str) -> None:
    made = tmp_path / "a new ümlaut" / "demo"
    init(made, profile)
    assert git(made, "status", "--porcelain", "--ignored") == ""
    assert git(made, "log", "--format=%s|%an|%ae") == "Begin the workspace|autoresearch|autoresearch@localhost"
    assert git(made, "symbolic-ref", "HEAD") == "refs/heads/main"
    source = (made / "train" / "train.py").read_text()
    knobs = read_knobs(source)
    for name, value in PROFILES[profile].knobs.items():
        assert knobs[name] == value
    assert broken_promise(source) is None
    assert read_knobs((made / "prepare" / "profile.py").read_text())["PROFILE"] == profile
    assert find(made).evaluated(git(made, "rev-parse", "HEAD")) and find(made).edit == "train/train.py"


def test_everything_but_profile_and_knobs_is_as_it_lies_in_the_project(tmp_path: Path) -> None:
    init(tmp_path / "demo", "full")
    here = {path for part in PARTS for path in [ROOT / part, *(ROOT / part).rglob("*")] if path.is_file()}
    for path in sorted(path for path in here if "__pycache__" not in path.parts):
        assert (tmp_path / "demo" / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path
    listed = git(tmp_path / "demo", "ls-files").splitlines()
    assert sorted({name.partition("/")[0] for name in listed}) == sorted([*PARTS, ".gitignore", "pyproject.toml"])


def test_the_corpus_is_committed_byte_for_byte(tmp_path: Path) -> None:
    init(tmp_path / "demo", "tiny")
    corpus = ROOT / "prepare" / "austen.txt.xz"
    assert git(tmp_path / "demo", "cat-file", "-s", "HEAD:prepare/austen.txt.xz") == str(corpus.stat().st_size)


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("demo").mkdir()
    inode = tmp_path.joinpath("demo").stat().st_ino
    monkeypatch.chdir(tmp_path / "demo")
    init(Path(), "tiny")
    assert tmp_path.joinpath("demo").stat().st_ino == inode
    assert git(Path.cwd(), "status", "--porcelain") == ""
    assert 'name = "demo"' in Path("pyproject.toml").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize("content", ["file", "folder", ".hidden"])
def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    demo = tmp_path / "demo"
    demo.mkdir()
    (demo / content).mkdir() if content == "folder" else (demo / content).write_text("mine")
    with pytest.raises(UserError, match="demo is not empty; give `init` a new folder"):
        init(demo, "tiny")
    assert [path.name for path in demo.iterdir()] == [content]


def test_a_file_in_the_folder_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        init(tmp_path / "demo", "tiny")
    with pytest.raises(UserError, match=r"demo/below can't be made \(.+\); choose another folder"):
        init(tmp_path / "demo" / "below", "tiny")
    assert (tmp_path / "demo").read_text() == "mine"


def test_an_unknown_profile_is_refused_with_the_known_ones_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no profile huge; choose one of tiny, full"):
        init(tmp_path / "demo", "huge")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("parent", ["/proc", "/sys/kernel", "/dev/null"])
def test_a_parent_that_cannot_be_written_is_refused(parent: str) -> None:
    with pytest.raises(UserError, match="can't be"):
        init(Path(parent, "demo"), "tiny")


def test_a_folder_with_a_strange_name_still_gives_a_project_its_name(tmp_path: Path) -> None:
    init(tmp_path / "…", "tiny")
    assert 'name = "workspace"' in (tmp_path / "…" / "pyproject.toml").read_text()


INSTALLED = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import controller.template
assert Path(controller.template.__file__).is_relative_to(sys.argv[1])
print(controller.template.init(Path(sys.argv[2]), "tiny").root)
"""


def test_an_installed_copy_makes_the_same_workspace_as_a_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    here = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", INSTALLED, str(tmp_path / "site"), str(tmp_path / "installed")]
    subprocess.run(command, cwd=tmp_path, env=here, check=True, stdout=subprocess.DEVNULL)
    init(tmp_path / "checkout", "tiny")
    trees = [git(tmp_path / name, "ls-tree", "-r", "HEAD") for name in ("installed", "checkout")]
    without_name = [[line for line in tree.splitlines() if "pyproject" not in line] for tree in trees]
    assert without_name[0] == without_name[1]
