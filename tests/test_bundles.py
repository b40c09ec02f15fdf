from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.bundles import bundler, hashes
from controller.harness.fingerprint import files_below, fingerprint
from controller.repo import Draft
from controller.workspace import find
from tests.foreign import TRAIN, commit, git, workspace

PATHS = st.sampled_from(
    ["train.py", "prepare.py", "prepare/x.py", "prepare/__pycache__/x.pyc", "preparex", "a/prepare.py"]
)


def harness_sees(archive: bytes, directory: Path, edit: str) -> dict[str, str]:
    """The hashes that the harness computes of what arrives on the cluster."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    return fingerprint(files_below(directory), edit)


@given(st.dictionaries(PATHS | st.text(max_size=5), st.binary(max_size=5)), PATHS)
def test_hashes_are_those_of_the_harness(files: dict[str, bytes], edit: str) -> None:
    from hashlib import sha256

    digests = {path: sha256(content).hexdigest() for path, content in files.items()}
    assert hashes(digests, edit) == fingerprint(files.items(), edit)


@pytest.fixture(params=["plain", "attributes"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A workspace with links, folders and large files; with attributes, what is sent is not what is committed."""
    made = workspace(tmp_path / "workspace")
    (made / "prepare").mkdir()
    (made / "prepare/link.py").symlink_to("../train.py")
    files: dict[str, str | bytes] = {"prepare/data.bin": bytes(1_000_000), "prepare/x.txt": "x\ny\n"}
    if request.param == "attributes":
        files |= {".gitattributes": "*.txt eol=crlf\nprogram.md export-ignore\n"}
    commit(made, files)
    yield made


def test_a_bundle_has_the_hashes_that_the_harness_will_see(root: Path, tmp_path: Path) -> None:
    found = find(root)
    bundle = bundler(found)
    drafts = [Draft({"train.py": f"{TRAIN}# {n}\n"}, "m") for n in range(3)] + [Draft({"prepare/x.txt": "z\n"}, "m")]
    made = found.repository.commit_edits(found.head, drafts, 1.8e9)
    jobs = [bundle(commit, 7) for commit in made]
    for number, job in enumerate(jobs):
        assert job.job["hashes"] == harness_sees(job.archive, tmp_path / str(number), "train.py")
    assert len({job.job["hashes"]["train"] for job in jobs}) == 4
    assert len({job.job["hashes"]["fixed"] for job in jobs}) == 2
    assert jobs[0].job | {"hashes": None} == {
        "edit": "train.py",
        "evaluated": False,
        "metric": "val_bpb",
        "seed": 7,
        "timeout": 600.0,
        "hashes": None,
    }


def test_the_same_commit_gives_the_same_bundle(root: Path) -> None:
    head = git(root, "rev-parse", "HEAD")
    one = bundler(find(root))
    assert one(head, 1) == one(head, 1) == bundler(find(root))(head, 1)
