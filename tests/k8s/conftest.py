"""A made-up API server, a kubeconfig that leads to it, and nothing of this machine's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.k8s.apiserver import World, kubeconfig, served

Serve = Callable[[World], World]


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "KUBECONFIG", "SKYPILOT_GLOBAL_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves a world, and makes it the only context of the kubeconfig: `here`."""
    with ExitStack() as stack:

        def start(world: World) -> World:
            stack.enter_context(served(world))
            monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", {"here": world.url})))
            return world

        yield start
