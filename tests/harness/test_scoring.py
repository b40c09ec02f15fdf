"""A trainer under the trial protocol: what is measured, and how everything that can go wrong is labelled."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.harness.attempts import NONCE, Attempts
from tests.processes import alive_in, alive_with

HONEST = "ready(); train(); serve(depth=2, num_params=512 * 512)\n"
NO_PROTOCOL = "os.close(READ); os.close(WRITE)\n"


def expected_score(cache: Path) -> float:
    """What prepare.evaluation itself makes of the speaker's table."""
    from prepare import evaluation
    from prepare.profile import TINY

    (directory,) = (path for path in cache.iterdir() if path.is_dir())
    inputs, targets = evaluation.rows(replace(TINY, eval_tokens=2**12), directory)
    score = evaluation.Score(np.load(directory / "token_bytes.npy"))
    score.add(np.random.default_rng(7).normal(size=(512, 512)).astype("<f4")[inputs], targets)
    return score.bits_per_byte


def test_an_honest_trainer_is_scored_as_evaluation_scores_it(attempts: Attempts, cache: Path) -> None:
    ran = attempts.evaluated(HONEST)
    assert ran.ending == ("done", "")
    assert ran.exit_code == 0
    assert ran.metrics["val_bpb"] == pytest.approx(expected_score(cache), rel=1e-12)
    assert ran.metrics["total_tokens_M"] == 2**18 / 1e6
    assert ran.metrics["num_steps"] == 4
    assert ran.metrics["depth"] == 2
    assert ran.metrics["num_params_M"] == 512 * 512 / 1e6
    assert ran.result["self_reported"] is False
    assert ran.result["nonce"] == NONCE
    assert set(ran.result["hashes"]) == {"train", "fixed", "data", "tokenizer", "model"}
    assert {"warmup", "training", "training_cpu", "evaluation", "total"} <= set(ran.result["timings"])


def test_the_last_line_is_the_result_and_the_block_is_for_people(attempts: Attempts) -> None:
    ran = attempts.evaluated(HONEST)
    *before, last = ran.output.splitlines()
    mark, _, result = last.partition(" ")
    assert mark == "AUTORESEARCH"
    assert json.loads(result) == ran.result
    assert before[before.index("---") + 1] == f"{'val_bpb:':<18}{ran.metrics['val_bpb']:.6f}"


def test_nothing_that_is_printed_while_it_is_scored_is_shown(attempts: Attempts) -> None:
    """It may be the rows, and whoever writes the next train.py reads the log and the reason."""
    asked = "def told(tokens):\n    print('asked', tokens.tolist()); {}; return TABLE[tokens]\n"
    trained = "print('before'); ready(); train(); print('at the end'); "
    ran = attempts.evaluated(asked.format("pass") + trained + "serve(told); print('after')\n")
    assert ran.ending == ("done", "")
    assert "| before" in ran.output and "| at the end" in ran.output
    assert "asked" not in ran.output
    for deed, label in {
        "raise ValueError(tokens.tolist())": "crash",
        "raise SystemExit": "no_score",
        "say({'type': str(tokens.tolist())})": "tampered",
        "say({'type': 'logits', 'shape': tokens.tolist()})": "tampered",
        "say({'type': 'logits', 'bytes': str(tokens.tolist())})": "tampered",
    }.items():
        ran = attempts.evaluated(asked.format(deed) + trained + "serve(told)\n")
        assert ran.ending[0] == label
        assert not re.search(r"asked \[|\d+, \d+, \d+, \d+", ran.output)


def test_the_trainer_is_told_its_seed_and_budget(attempts: Attempts) -> None:
    ran = attempts.evaluated("ready(); print(json.dumps(TERMS), os.environ['SEED']); train(); serve()\n", seed=23)
    terms, seed = ran.output.splitlines()[0].removeprefix("| ").rsplit(" ", 1)
    assert json.loads(terms)["seed"] == int(seed) == 23
    assert json.loads(terms)["budget"]["tokens"] == 2**18


FAILURES = {
    "a crash": ("ready(); raise KeyError('depth')", "crash", "exit code 1: KeyError: 'depth'"),
    "a crash before ready": ("raise SystemExit(3)", "crash", "exit code 3"),
    "a signal": ("ready(); os.kill(os.getpid(), signal.SIGSEGV)", "crash", "exit code -11"),
    "a NaN loss": ("ready(); step(); step(loss=float('nan'))", "diverged", "loss nan"),
    "an infinite loss": ("ready(); step(loss=float('inf'))", "diverged", "loss inf"),
    "a loss above 100": ("ready(); step(); step(); step(loss=100.5)", "diverged", "loss 100.5"),
    "NaN logits": ("ready(); train(); serve(lambda t: TABLE[t] * np.float32('nan'))", "diverged", "not finite"),
    "infinite logits": ("ready(); train(); serve(lambda t: TABLE[t] * np.float32('inf'))", "diverged", "not finite"),
    "a MemoryError": ("ready(); raise MemoryError", "out_of_memory", "MemoryError"),
    "torch out of memory": (
        "ready(); raise type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory. Tried to allocate 2 GiB')",
        "out_of_memory",
        "CUDA out of memory",
    ),
    "a kill from outside": ("ready(); os.kill(os.getpid(), signal.SIGKILL)", "out_of_memory", "killed"),
    "a printed score": ("print('val_bpb: 0.1')", "no_score", "val_bpb: 0.1"),
    "a printed score after ready": ("ready(); print('val_bpb: 0.1')", "no_score", "val_bpb: 0.1"),
    "a printed score after training": ("ready(); train(); print('val_bpb: 0.1')", "no_score", "val_bpb: 0.1"),
    "garbage": ("os.write(WRITE, b'val_bpb: 0.1' * 1000)", "tampered", "header of"),
    "a header that is no JSON": (r"hear(); os.write(WRITE, b'\0\0\0\4oops')", "tampered", "not JSON"),
    "a header that is no object": (r"hear(); os.write(WRITE, b'\0\0\0\2[]')", "tampered", "not an object"),
    "another word": ("hear(); say({'type': 'done', 'score': 0.1})", "tampered", "'done' where 'ready' was due"),
    "serving before ready": ("hear(); say({'type': 'serve'})", "tampered", "'serve' where 'ready' was due"),
    "a negative step": ("ready(); step(tokens=-1)", "tampered", "positive number of tokens"),
    "an endless step": ("ready(); step(tokens=float('inf'))", "tampered", "broke the trial protocol"),
    "a step of NaN": ("ready(); step(tokens=float('nan'))", "tampered", "broke the trial protocol"),
    "a step of words": ("ready(); step(tokens='many')", "tampered", "broke the trial protocol"),
    "a step without tokens": ("ready(); say({'type': 'more'})", "tampered", "broke the trial protocol"),
    "a loss of words": ("ready(); step(loss='low')", "tampered", "broke the trial protocol"),
    "a loss beyond all floats": ("ready(); step(loss=10**400)", "tampered", "broke the trial protocol"),
    "a payload where none is due": ("ready(); say({'type': 'more', 'tokens': 1}, b'x')", "tampered", "payload of 1"),
    "logits of another shape": (
        "ready(); train(); serve(lambda t: TABLE[t][:, :, :-1])",
        "tampered",
        "were asked",
    ),
    "logits of another order": ("ready(); train(); serve(lambda t: TABLE[t].swapaxes(1, 2))", "tampered", "were asked"),
    "oversized logits": (
        "ready(); train(); serve(lambda t: np.repeat(TABLE[t], 2, axis=0))",
        "tampered",
        "while it was scored",
    ),
    "a payload too big to hold": (
        "ready(); train(); say({'type': 'serve'}); say({'type': 'logits', 'bytes': 2**62}); hear(); time.sleep(60)",
        "tampered",
        "while it was scored",
    ),
    "half a frame": (r"ready(); os.write(WRITE, b'\0\0\1\0{')", "no_score", "without being scored"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_labelled_and_explained(attempts: Attempts, name: str) -> None:
    source, label, reason = FAILURES[name]
    ran = attempts.evaluated(source + "\n")
    assert ran.ending[0] == label
    assert reason in ran.ending[1]
    assert ran.metrics == {}
    assert ran.exit_code == 0
    assert alive_in(ran.directory) == {}


def test_a_trainer_that_closes_the_pipes_and_runs_on_has_tampered(attempts: Attempts) -> None:
    ran = attempts.evaluated(f"ready(); {NO_PROTOCOL}print('out of memory', flush=True)\ntime.sleep(600)\n")
    assert ran.ending == ("tampered", "it closed the protocol's pipes and went on running")
    assert alive_in(ran.directory) == {}


OVERTIMES: dict[str, tuple[str, dict[str, str], float, str]] = {
    "never ready": ("hear(); time.sleep(600)", {"warmup_seconds=60.0": "warmup_seconds=0.5"}, 60, "not ready after"),
    "past its wall time": ("ready(); step(); time.sleep(600)", {}, 1.0, "past 1 s in all"),
    "silent while it is scored": ("ready(); train(); say({'type': 'serve'}); time.sleep(600)", {}, 1.0, "past 1 s"),
    "past its CPU cap": ("ready()\nwhile True: pass", {"cpu_seconds=20.0": "cpu_seconds=0.3"}, 60, "CPU seconds"),
    "past its CPU cap between steps": (
        "ready(); step(tokens=1)\nwhile time.process_time() < 1.2: pass\nstep(tokens=1)",
        {"cpu_seconds=20.0": "cpu_seconds=0.3"},
        60,
        "",
    ),
    "past its CPU cap in a child": (
        "ready()\nif os.fork() == 0:\n    while True: pass\nos.wait()",
        {"cpu_seconds=20.0": "cpu_seconds=0.3"},
        20,
        "CPU seconds",
    ),
    "past a budget of seconds": (
        "ready(); step(); time.sleep(600)",
        {"budget=Budget(tokens=2**18, seconds=None, cpu": "budget=Budget(tokens=None, seconds=0.4, cpu"},
        60,
        "still training",
    ),
}


@pytest.mark.parametrize("name", OVERTIMES)
def test_a_trainer_past_a_limit_is_ended(attempts: Attempts, name: str) -> None:
    source, profile, timeout, reason = OVERTIMES[name]
    ran = attempts.evaluated(source + "\n", profile, timeout=timeout)
    assert ran.ending[0] == "overtime"
    assert reason in ran.ending[1]
    assert ran.metrics == {}
    assert alive_in(ran.directory) == {}


def test_what_the_trainer_says_of_itself_cannot_pass_for_the_score(attempts: Attempts, cache: Path) -> None:
    ran = attempts.evaluated("ready(); train(); serve(val_bpb=0.1, num_steps=1e9, training_seconds=float('nan'))\n")
    assert ran.metrics["val_bpb"] == pytest.approx(expected_score(cache), rel=1e-12)
    assert ran.metrics["num_steps"] == 4
    assert ran.metrics["training_seconds"] >= 0


def test_odd_information_from_the_trainer_is_left_out(attempts: Attempts) -> None:
    source = "ready(); train(); serve(**{'big': 10**400, 'text': 'x', 'a b': 1, 'inf': float('inf'), 'fine': 1.5})\n"
    ran = attempts.evaluated(source)
    assert ran.ending == ("done", "")
    assert ran.metrics["fine"] == 1.5
    assert not {"big", "text", "a b", "inf"} & set(ran.metrics)


@pytest.mark.parametrize("module", ["evaluation", "wire", "block", "dataset"])
def test_a_trainer_that_rewrites_the_evaluation_gains_nothing(attempts: Attempts, cache: Path, module: str) -> None:
    forged = "class Forged:\\n    def __init__(self, *a): self.bits_per_byte = 0.1\\n    def add(self, *a): pass\\n"
    spoil = f"open('prepare/{module}.py', 'a').write('\\n{forged}Score = Forged\\nFORMATS = {{}}\\n')\n"
    ran = attempts.evaluated(spoil + HONEST)
    assert ran.ending == ("done", "")
    assert ran.metrics["val_bpb"] == pytest.approx(expected_score(cache), rel=1e-12)


def test_a_trainer_that_rewrites_the_validation_data_gains_nothing(
    attempts: Attempts, cache: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "cache"
    for source in cache.rglob("*"):
        if source.is_file():
            target = copy / source.relative_to(cache)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    attempts.environment["AUTORESEARCH_CACHE"] = str(copy)
    spoil = """
import pathlib
for path in pathlib.Path(os.environ["AUTORESEARCH_CACHE"]).rglob("*.*"):
    try:
        path.write_bytes(bytes(path.stat().st_size))
    except OSError:
        pass
"""
    ran = attempts.evaluated(spoil + HONEST)
    assert ran.metrics["val_bpb"] == pytest.approx(expected_score(cache), rel=1e-12)


def changed(files: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    return {**files, name: files.get(name, b"") + b"\n# one line more\n"}


@pytest.mark.parametrize(
    ("name", "kind"), [("train.py", "train"), ("prepare/wire.py", "fixed"), ("prepare/new.py", "fixed")]
)
def test_other_code_than_was_asked_for_is_a_mismatch_and_never_runs(attempts: Attempts, name: str, kind: str) -> None:
    directory, job = attempts.speaker(HONEST)
    with (directory / "bundle" / name).open("a") as file:
        file.write("\nprint('it ran')\n")
    ran = attempts.finish((directory, job))
    assert ran.ending == ("mismatch", f"the {kind} code on the cluster is not the code that was asked for")
    assert "it ran" not in ran.output


def test_a_bundle_without_its_train_py_is_a_mismatch(attempts: Attempts) -> None:
    directory, job = attempts.speaker(HONEST)
    (directory / "bundle/train.py").unlink()
    assert attempts.finish((directory, job)).ending[0] == "mismatch"


def test_without_prepared_data_the_set_up_has_failed(attempts: Attempts, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    attempts.environment["AUTORESEARCH_CACHE"] = str(tmp_path / "empty")
    ran = attempts.evaluated(HONEST)
    assert ran.ending == ("setup_failed", "the data is not prepared on this cluster; run `python -m prepare`")
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize(
    "source", ["print('here'); time.sleep(600)", "ready(); step(); print('here'); time.sleep(600)"]
)
def test_an_attempt_that_is_told_to_end_is_cancelled(attempts: Attempts, source: str) -> None:
    ran = attempts.finish_after(attempts.speaker(source + "\n"), "| here", lambda process: process.terminate())
    assert ran.ending == ("cancelled", "ended by the controller")
    assert alive_in(ran.directory) == {}


def test_cancelling_ends_a_trainer_that_ignores_signals(attempts: Attempts) -> None:
    marker = os.urandom(8).hex()
    source = f"""
import subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "{marker}"], start_new_session=True)
print("here", flush=True)
time.sleep(600)
"""
    ran = attempts.finish_after(attempts.speaker(source), "| here", lambda process: process.terminate())
    assert ran.ending[0] == "cancelled"
    assert alive_with(marker) == {}
