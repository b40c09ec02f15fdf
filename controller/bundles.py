"""From a commit to what an attempt is sent: its files, their hashes, and the harness's job."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from functools import lru_cache

from controller.backends import Bundle
from controller.harness.fingerprint import fingerprint
from controller.workspace import Workspace

Bundler = Callable[[str, int], Bundle]
"""Makes the bundle of a commit and a seed."""


def bundler(workspace: Workspace) -> Bundler:
    """A function from commit and seed to bundle. A commit's files are read once, however many seeds it runs with."""
    settings = workspace.settings

    @lru_cache(maxsize=64)
    def read(commit: str) -> tuple[bytes, dict[str, str], bool]:
        archive = workspace.repository.archive(commit)
        return archive, fingerprint(_files(archive), workspace.edit), workspace.evaluated(commit)

    def make(commit: str, seed: int) -> Bundle:
        archive, hashes, evaluated = read(commit)
        job = {
            "edit": workspace.edit,
            "evaluated": evaluated,
            "metric": settings.metric.name,
            "seed": seed,
            "timeout": settings.timeout_minutes * 60,
            "hashes": hashes,
        }
        return Bundle(archive, job)

    return make


def _files(archive: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            if member.isfile():
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, file.read()
