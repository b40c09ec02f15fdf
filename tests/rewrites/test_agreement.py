"""The evaluator against a plain loop: the same model, the same rows, every step in float64 and none of our code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from controller.harness.fingerprint import fingerprint
from tests.harness.attempts import Attempts
from tests.rewrites.rewriting import replaced, tiny_train

EDIT = "train/train.py"
PLAIN = """
    import math

    import numpy as np

    from prepare import dataset

    model.double()
    directory, length = dataset.location(), trial.profile.sequence_length
    stream = np.fromfile(directory / "val.bin", "<u2").astype(np.int64)
    size = np.load(directory / "token_bytes.npy")
    count = trial.profile.eval_tokens // length
    nats = characters = 0.0
    for row in range(count):
        begin = row * (len(stream) - length - 1) // (count - 1)
        text = torch.from_numpy(stream[begin : begin + length + 1])
        with torch.no_grad():
            logits = model(text[None, :-1])[0].double().tolist()
        for answer, target in zip(logits, text[1:].tolist()):
            if size[target] > 0:
                top = max(answer)
                nats += top + math.log(math.fsum(math.exp(one - top) for one in answer)) - answer[target]
                characters += float(size[target])
    print("plain:", repr(nats / math.log(2) / characters))
"""


@pytest.fixture(scope="module")
def short_files(prepare_files: Mapping[str, bytes]) -> dict[str, bytes]:
    """prepare/ of the tiny profile with a sixteenth of its budget."""
    text = prepare_files["prepare/profile.py"].decode()
    budget = {"Budget(tokens=2**18, seconds=None,": "Budget(tokens=2**14, seconds=None,"}
    return {**prepare_files, "prepare/profile.py": replaced(text, budget).encode()}


def test_the_evaluator_agrees_with_a_plain_loop_in_float64(
    tmp_path: Path, cache: Path, short_files: dict[str, bytes]
) -> None:
    source = tiny_train()
    attempts = Attempts(tmp_path, cache, short_files)
    files = {**short_files, EDIT: source.encode()}
    ran = attempts.finish(
        attempts.lay_out(files, evaluated=True, edit=EDIT, hashes=fingerprint(files.items(), EDIT), seed=5)
    )
    assert ran.ending == ("done", ""), ran.output

    plain = replaced(source, {"trial.serve(model, depth=DEPTH)": PLAIN})
    for name, content in {**files, EDIT: plain.encode()}.items():
        path = tmp_path / "by-hand" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    environment = os.environ | {"SEED": "5", "AUTORESEARCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    printed = subprocess.run(
        [sys.executable, EDIT], cwd=tmp_path / "by-hand", env=environment, check=True, capture_output=True, text=True
    ).stdout
    score = float(printed.rpartition("plain: ")[2])
    assert abs(ran.metrics["val_bpb"] - score) < 1e-6
    assert score < 4.0, "a model that has learnt something: 0 and 0 would agree as well"
