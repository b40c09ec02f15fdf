"""`autoresearch init`: a new workspace, laid out from this project's own."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from controller.edits import set_knobs
from controller.records import Knobs, UserError
from controller.repo import Repository, initialise

PARTS = ("train", "prepare", "experiment.yaml", "program.md")

PYPROJECT = """\
[project]
name = "{name}"
version = "0"
description = "An autoresearch workspace."
requires-python = ">=3.11"
# torch is pinned exactly: a range makes pip take the newest build, with gigabytes of CUDA packages.
dependencies = {dependencies}
"""

DEPENDENCIES = ["torch==2.13.0", "numpy>=2.2,<3", "rustbpe==0.1.0", "tiktoken==0.14.0"]
DOWNLOADING = ["pyarrow>=20", "requests>=2.32", "tenacity>=9.1,<10"]

GITIGNORE = "__pycache__/\n.venv/\n.autoresearch/\n"


def init(directory: Path, profile: str) -> Repository:
    """Make a workspace in `directory`, which must be new or empty, with the knob values that suit `profile`.

    The folder appears whole or not at all. Raises UserError where it can't be made.
    """
    try:
        present = directory.exists()
        if present and (not directory.is_dir() or any(directory.iterdir())):
            raise UserError(f"{directory} is not empty; give `init` a new folder")
    except OSError as error:
        raise UserError(f"{directory} can't be read ({error.strerror}); choose another folder") from None
    source = _template()
    known = _profiles(source)
    if profile not in known:
        raise UserError(f"there is no profile {profile}; choose one of {', '.join(known)}")
    try:
        # An empty folder is filled rather than replaced: a shell may be in it, or a disk mounted on it.
        beside = directory if present else directory.parent
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=beside, prefix=".autoresearch-init-") as scratch:
            made = Path(scratch, "workspace")
            _lay_out(source, made, directory.resolve().name, profile, known[profile])
            initialise(made)
            if present:
                for entry in made.iterdir():
                    entry.rename(directory / entry.name)
            else:
                made.rename(directory)
    except OSError as error:
        raise UserError(f"{directory} can't be made ({error.strerror}); choose another folder") from None
    return Repository.find(directory)


def _lay_out(source: Path, made: Path, name: str, profile: str, knobs: Knobs) -> None:
    made.mkdir()
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, made / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source / part, made / part)
    _rewrite(made / "prepare" / "profile.py", {"PROFILE": profile})
    _rewrite(made / "train" / "train.py", knobs)
    dependencies = DEPENDENCIES + (DOWNLOADING if profile == "full" else [])
    listed = "[\n" + "".join(f'    "{dependency}",\n' for dependency in dependencies) + "]"
    project = "".join(character if character.isalnum() else "-" for character in name).strip("-") or "workspace"
    (made / "pyproject.toml").write_text(PYPROJECT.format(name=project, dependencies=listed))
    (made / ".gitignore").write_text(GITIGNORE)


def _rewrite(path: Path, values: Knobs) -> None:
    path.write_text(set_knobs(path.read_text(encoding="utf-8"), values), encoding="utf-8")


def _template() -> Path:
    """This project's root in a checkout; what was packed into the wheel in an installed copy."""
    root = Path(__file__).parent.parent
    if (root / "train" / "train.py").exists():
        return root
    packed = importlib.util.find_spec("autoresearch_template")
    if packed is None or not packed.submodule_search_locations:
        raise UserError("this installation lacks its workspace template; install autoresearch again")
    return Path(next(iter(packed.submodule_search_locations)))


def _profiles(source: Path) -> dict[str, Any]:
    """The profiles that prepare/profile.py knows, each with its knob values. That file imports nothing."""
    spec = importlib.util.spec_from_file_location("autoresearch_template_profile", source / "prepare" / "profile.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up while they are made.
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return {name: profile.knobs for name, profile in module.PROFILES.items()}
