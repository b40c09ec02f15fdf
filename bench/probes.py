"""What looking ahead gains before the probes see it, on the tiny profile's real model and rows.

    python bench/probes.py            a table
    python bench/probes.py --json     one JSON list

The model is trained once, honestly. Its answers then have the next token's logit raised by `boost` in those rows whose
mean surprise is below `threshold` nats, as a splice is a little more surprising than a row; twins and repeats are left
out, as who says again what was said before passes those. `remembers` leaves out rows of which a piece was asked before,
which no row that is scored is. evidence is the median of 3 examinations, each of which sees a leak from 13.8 on; what
a keep's four runs prove adds up.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from controller.harness.probes import EVIDENCE, Examination

COMMAND = Path(sys.executable).with_name("autoresearch")
SERVE = "trial.serve(model, depth=DEPTH)"
CHEATS = [
    (remembers, threshold, boost)
    for remembers in (False, True)
    for threshold in (99.0, 3.2, 3.0, 2.8)
    for boost in (0.25, 0.5, 1.0, 2.0, 4.0)
]
PIECE = 6
"""Tokens by which a piece of text is recognised."""

Tokens = NDArray[np.int64]
Logits = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what looking ahead gains before the probes see it.")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as scratch:
        answer = trained(Path(scratch) / "workspace")
        found = [{"remembers": False, "threshold": 0.0, "boost": 0.0, **judged(answer, False, 0.0, 0.0)}]
        for remembers, threshold, boost in CHEATS:
            figures = judged(answer, remembers, threshold, boost)
            found.append({"remembers": remembers, "threshold": threshold, "boost": boost, **figures})
    if as_json:
        print(json.dumps(found))
        return
    table = Table(title="Looking ahead on the tiny profile; the first line is the honest model")
    for name in found[0]:
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in one.values()))
    Console().print(table)
    for name in ("seen", "seen_in_four"):
        best = min(one["val_bpb"] for one in found if not one[name])
        print(f"best score that was not {name.replace('_', ' ')}: {best:.4f}, honest: {found[0]['val_bpb']:.4f}")


def trained(workspace: Path) -> Callable[[Tokens], Logits]:
    """The honest model of a new workspace, as a function from rows to logits."""
    subprocess.run([COMMAND, "init", workspace, "--profile", "tiny"], check=True, stdout=subprocess.DEVNULL)
    source = workspace / "train/train.py"
    text = source.read_text()
    assert text.count(SERVE) == 1
    source.write_text(text.replace(SERVE, "global MODEL; MODEL = model"))
    sys.path.insert(0, str(workspace))
    module = load(source)
    module.main()
    import torch

    def answer(tokens: Tokens) -> Logits:
        with torch.no_grad():
            logits: Logits = module.MODEL(torch.from_numpy(tokens)).numpy()
            return logits

    return answer


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("train", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(answer: Callable[[Tokens], Logits], remembers: bool, threshold: float, boost: float) -> dict[str, Any]:
    """The score of a cheat, and the evidence against it."""
    from prepare import dataset, evaluation
    from prepare.profile import CURRENT

    directory = dataset.ensure()
    sheet, spare = evaluation.rows(CURRENT, directory), evaluation.between(CURRENT, directory)
    scores, evidence = [], []
    for seed in range(3):
        examination = Examination(*sheet, spare, CURRENT.vocab_size, np.random.default_rng(seed))
        seen: set[bytes] = set()
        for questions in examination.portions(128):
            tokens = np.stack([question.tokens for question in questions])
            logits = answer(tokens[:, :-1])
            # The answer's last place predicts a token that is not shown.
            surprise = evaluation.cross_entropy(logits[:, :-1], tokens[:, 1:-1]).mean(axis=1)
            for row in np.flatnonzero(surprise < threshold).tolist():
                known = set(pieces(tokens[row, :-1])) & seen if remembers else set()
                if not known:
                    logits[row, np.arange(logits.shape[1] - 1), tokens[row, 1:-1]] += boost
            seen.update(piece for row in tokens for piece in pieces(row[:-1]) if remembers)
            nats = evaluation.cross_entropy(logits, np.stack([examination.targets_of(one) for one in questions]))
            for question, said in zip(questions, nats, strict=True):
                examination.answer(question, said)
        score = evaluation.Score(np.load(directory / "token_bytes.npy"))
        score.add_nats(examination.nats, sheet[1])
        scores.append(score.bits_per_byte)
        evidence.append(examination.evidence)
    return {
        "val_bpb": round(median(scores), 6),
        "evidence": round(median(evidence), 1),
        "seen": bool(median(evidence) > EVIDENCE),
        "seen_in_four": bool(4 * median(evidence) > EVIDENCE),
    }


def pieces(row: Tokens) -> Iterator[bytes]:
    return (row[place : place + PIECE].tobytes() for place in range(len(row) - PIECE + 1))


if __name__ == "__main__":
    main()
