from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from prepare import profile

ROOT = Path(__file__).resolve().parents[2]


def test_the_choice_of_profile_is_the_first_assignment_and_one_line() -> None:
    tree = ast.parse(Path(profile.__file__).read_text())
    first = next(node for node in tree.body if isinstance(node, ast.Assign))
    assert ast.unparse(first) in {"PROFILE = 'full'", "PROFILE = 'tiny'"}
    assert first.lineno == first.end_lineno
    assert profile.PROFILES[profile.PROFILE] is profile.CURRENT


def test_evaluation_is_whole_rows_and_the_tiny_budget_whole_steps() -> None:
    for each in profile.PROFILES.values():
        assert each.eval_tokens % each.sequence_length == 0
        assert each.vocab_size <= 2**16
    assert profile.TINY.budget.tokens is not None
    assert profile.TINY.budget.tokens % int(profile.TINY.knobs["TOTAL_BATCH_SIZE"]) == 0


def test_the_harness_can_import_what_it_needs_with_numpy_alone() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'tiktoken', 'rustbpe', 'requests', 'tenacity', 'pyarrow'): sys.modules[name] = None\n"
        "import prepare, prepare.block, prepare.budget, prepare.corpus, prepare.dataset, prepare.evaluation\n"
        "import prepare.fingerprint, prepare.loader, prepare.profile, prepare.progress, prepare.protocol\n"
        "import prepare.referees, prepare.tokenizer, prepare.wire\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
