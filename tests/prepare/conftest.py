"""What these tests share: the tiny profile's data, made once, and torch's global switches put back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# prepare/ is not installed: it is imported from the checkout under test, whichever way pytest was started.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache of this session's own."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("cache")
        patch.setenv("AUTORESEARCH_CACHE", str(path))
        yield path


@pytest.fixture(scope="session")
def tiny_data(cache: Path) -> Path:
    """Directory of the tiny profile's data."""
    from prepare.dataset import ensure
    from prepare.profile import TINY

    return ensure(TINY)


@pytest.fixture
def torch_globals() -> Iterator[None]:
    """Lets a test open a trial, which sets threads and determinism for the whole process."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
