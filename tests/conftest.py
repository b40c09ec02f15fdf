"""What all tests share: prepare/ and the tests' own helpers are imported from the checkout under test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
pytest.register_assert_rewrite("tests.backends.conformance", "tests.processes")
