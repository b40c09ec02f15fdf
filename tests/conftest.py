"""What all tests share: prepare/ and the tests' own helpers are imported from the checkout under test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Commands run on this machine, unless a test says otherwise.
os.environ["AUTORESEARCH_INFRA"] = "local"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
pytest.register_assert_rewrite("tests.backends.conformance", "tests.processes")
