"""What these tests share with those of the harness: prepare/ of the tiny profile, and its data."""

from __future__ import annotations

from tests.harness.conftest import cache, prepare_files

__all__ = ["cache", "prepare_files"]
