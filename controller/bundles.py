"""From a commit to what an attempt is sent: its files, their hashes, and the harness's job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256

from controller.backends import Bundle
from controller.harness.fingerprint import is_fixed
from controller.workspace import Workspace

Bundler = Callable[[str, int], Bundle]
"""Makes the bundle of a commit and a seed."""


def bundler(workspace: Workspace) -> Bundler:
    """A function from commit and seed to bundle. A commit's files are read once, however many seeds it runs with."""
    settings = workspace.settings

    @lru_cache(maxsize=64)
    def read(commit: str) -> tuple[bytes, dict[str, str], bool]:
        export = workspace.repository.export(commit)
        return export.archive, hashes(export.digests, workspace.edit), workspace.evaluated(commit)

    def make(commit: str, seed: int) -> Bundle:
        archive, expected, evaluated = read(commit)
        job = {
            "edit": workspace.edit,
            "evaluated": evaluated,
            "metric": settings.metric.name,
            "seed": seed,
            "timeout": settings.timeout_minutes * 60,
            "hashes": expected,
        }
        return Bundle(archive, job)

    return make


def hashes(digests: Mapping[str, str], edit: str) -> dict[str, str]:
    """What `harness.fingerprint` says of these files, from the SHA-256 of each, so that none is hashed twice."""
    fixed = sorted(f"{path}\0{digest}\n" for path, digest in digests.items() if path != edit and is_fixed(path))
    return {"train": digests.get(edit, ""), "fixed": sha256("".join(fixed).encode()).hexdigest()}
