"""What a trainer prints: copied, marked, bounded; and read for a score where the workspace reports its own."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from controller.harness.output import LOG_BYTES, OTHER_METRICS, READ_BYTES, numbers
from tests.harness.attempts import Attempts
from tests.processes import PATIENCE_SECONDS

FORGED = json.dumps({"attempt": "study.e0001.1", "status": "done", "metrics": {"val_bpb": 0.1}})

READ: dict[str, tuple[str, float]] = {
    "a plain line": (r"print('val_bpb: 1.25')", 1.25),
    "upstream's block": (r"print('---\nval_bpb:          0.997900\ntraining_seconds: 300.1')", 0.9979),
    "colours": (r"print('\x1b[1;32mval_bpb:\x1b[0m \x1b[?25h1.25\x1b[K')", 1.25),
    "a progress line in front": (r"print('step 99\rstep 100\rval_bpb: 1.25\r', end='')", 1.25),
    "no final newline": (r"print('val_bpb: 1.25', end='')", 1.25),
    "several values": (r"print('val_bpb: 3.5\nval_bpb: 2.5\nval_bpb: 1.25')", 1.25),
    "Windows lines": (r"print('val_bpb: 1.25\r\nloss: 2\r\n', end='')", 1.25),
    "standard error": (r"import sys; print('val_bpb: 1.25', file=sys.stderr)", 1.25),
    "an exponent": (r"print('val_bpb: +125e-2')", 1.25),
    "no text at all": (r"import sys; sys.stdout.buffer.write(b'\xff\xfe\x00\nval_bpb: 1.25\n\xf0')", 1.25),
    "ray": (r"print('\x1b[36m(train pid=1234, ip=10.0.0.7)\x1b[0m val_bpb: 1.25\x1b[32m [repeated 3x]\x1b[0m')", 1.25),
    "ray below SkyPilot": (r"print('(head, rank=0, pid=12) (train, pid=1234) val_bpb: 1.25')", 1.25),
    "a link of a terminal's": (r"print('\x1b]8;;https://example.org/a=1\x07val_\x1b(Bbpb\x1b]8;;\x07: 1.25')", 1.25),
    "a progress bar": (r"print('\r 50%|##  | 5/10 [00:01<00:01, 5.0it/s, loss=2, val_bpb=1.25]', end='')", 1.25),
    "SkyPilot's example": (
        r"print('EXPERIMENT_STATUS: done\nEXPERIMENT_RESULT: exp-01 val_bpb=1.25 memory_gb=44\n"
        r"EXPERIMENT_DESC: lr=0.1 had val_bpb=0.9')",
        1.25,
    ),
    "a line that is long": (rf"print('x ' * {READ_BYTES // 4} + 'val_bpb: 1.25')", 1.25),
    "the end of a line that is too long": (rf"print('x ' * {READ_BYTES} + 'val_bpb: 1.25')", 1.25),
    "a line after one that is too long": (rf"print('x' * {2 * READ_BYTES} + '\nval_bpb: 1.25')", 1.25),
    "a number that is none afterwards": (r"print('val_bpb: 1.25\nval_bpb: 1.2.3\nval_bpb: soon')", 1.25),
    "fifty other numbers": (r"print('\n'.join(f'm{i}: {i}' for i in range(31)) + '\nval_bpb: 1.25')", 1.25),
}


@pytest.mark.parametrize("name", READ)
def test_a_foreign_score_is_read_from(attempts: Attempts, name: str) -> None:
    source, score = READ[name]
    ran = attempts.foreign(source)
    assert ran.ending == ("done", "")
    assert ran.metrics["val_bpb"] == score
    assert ran.result["self_reported"] is True


def test_the_last_value_counts_even_where_it_is_none(attempts: Attempts) -> None:
    ran = attempts.foreign(r"print('val_bpb: 1.25\nval_bpb: nan')")
    assert ran.ending == ("diverged", "its last val_bpb is nan")
    assert attempts.foreign(r"print('val_bpb: 1.25\nval_bpb: -inf')").ending[0] == "diverged"
    assert attempts.foreign(r"print('loss: nan\nval_bpb: 1.25')").metrics == {"val_bpb": 1.25}


def test_many_other_numbers_do_not_crowd_out_the_score(attempts: Attempts) -> None:
    ran = attempts.foreign(r"print('\n'.join(f'm{i}: {i}' for i in range(500)) + '\nval_bpb: 1.25')")
    assert ran.metrics["val_bpb"] == 1.25
    assert len(ran.metrics) == OTHER_METRICS + 1


def test_the_numbers_printed_last_are_remembered_beside_the_score(attempts: Attempts) -> None:
    many = "'\\n'.join(f'm{i}: {i}' for i in range(500))"
    ran = attempts.foreign(f"print('val_bpb: 1.25\\naccuracy: 0.9'); print({many}); print('accuracy: 0.96')")
    assert (ran.metrics["val_bpb"], ran.metrics["accuracy"], ran.metrics["m499"]) == (1.25, 0.96, 499)
    assert "m0" not in ran.metrics


def test_a_metric_of_another_name_is_the_score(attempts: Attempts) -> None:
    ran = attempts.foreign(r"print('val_bpb: 1.5\naccuracy: 0.96')", metric="accuracy")
    assert ran.metrics == {"val_bpb": 1.5, "accuracy": 0.96}
    assert attempts.foreign("print('val_bpb: 1.5')", metric="accuracy").ending[0] == "no_score"


@pytest.mark.parametrize("name", ["eval/accuracy", "top-1", "mAP@0.5", "f1.macro"])
def test_a_metric_may_be_called_as_its_log_calls_it(attempts: Attempts, name: str) -> None:
    printed = f"{name}: 0.96 last/{name}: 0.1 {name}er: 0.2 {name}-x: 0.3"
    assert attempts.foreign(f"print({printed!r})", metric=name).metrics[name] == 0.96


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "loss: 1.25",
        "val_bpb: ",
        "val_bpb 1.25",
        "xval_bpb: 1.25",
        "EXPERIMENT_RESULT: exp-01 val_bpb= memory_gb=44",
        "EXPERIMENT_DESC: val_bpb=0.9",
        "val_bpb: 1.25\nEXPERIMENT_STATUS: crash",
        "EXPERIMENT_STATUS: crash\nval_bpb: 1.25",
        f"best_{'x' * 2 * READ_BYTES}_val_bpb: 1.25",
        "x" * 2 * READ_BYTES + "val_bpb: 1.25",
    ],
)
def test_without_a_score_line_there_is_no_score(attempts: Attempts, printed: str) -> None:
    assert attempts.foreign(f"print({printed!r})").ending == ("no_score", "it ended without a line `val_bpb: <number>`")


NUMBERS: dict[str, dict[str, float]] = {
    "val_bpb: 1.25": {"val_bpb": 1.25},
    "val_bpb = 1.25": {"val_bpb": 1.25},
    "val_bpb=1.25": {"val_bpb": 1.25},
    "final val_bpb: 1.25.": {"val_bpb": 1.25},
    "2026-01-01 10:00:00,123 INFO val_bpb: 1.25": {"val_bpb": 1.25},
    "2026-01-01T10:00:00Z [INFO] [trainer] - val_bpb: 1.25": {"val_bpb": 1.25},
    "INFO:root:val_bpb: 1.25": {"val_bpb": 1.25},
    "[rank0]: val_bpb: 1.25": {"val_bpb": 1.25},
    "[default0]:val_bpb: 1.25": {"val_bpb": 1.25},
    "0: val_bpb: 1.25": {"val_bpb": 1.25},
    "step 100 val_bpb: 1.25 loss: 3.5": {"val_bpb": 1.25, "loss": 3.5},
    "step=100, val_bpb=1.25, lr=1e-3 | loss = .5; n: 3": {
        "step": 100,
        "val_bpb": 1.25,
        "lr": 0.001,
        "loss": 0.5,
        "n": 3,
    },
    "{'eval_loss': 1.25, 'epoch': '3.0'}": {"eval_loss": 1.25, "epoch": 3},
    "val_bpb: 2 (was 1.25) val_bpb: 1.5 ± 0.1": {"val_bpb": 1.5},
    "val_bpb: -INF": {"val_bpb": float("-inf")},
    # JSON: the object's own numbers only
    '{"val_bpb": 1.25, "ok": true, "best": {"val_bpb": 0.5}, "name": "x", "last": [1]}': {"val_bpb": 1.25},
    'INFO step: 3 {"val_bpb": 1.25}': {"step": 3, "val_bpb": 1.25},
    '{"val bpb": 1.25, "n": 1' + "0" * 400 + "}": {},
    '{"a": 1} then {"b": 2}': {"a": 1, "b": 2},
    # another word
    "best_val_bpb: 1.25": {"best_val_bpb": 1.25},
    "eval/val_bpb=1.25": {"eval/val_bpb": 1.25},
    "--val_bpb=1.25": {},
    "val_bpb_ema: 1.25": {"val_bpb_ema": 1.25},
    "val_bpb: 1.5 (best val_bpb: 1.25)": {"val_bpb": 1.5},
    "Best: val_bpb=1.25 target val_bpb: 1 [previous] val_bpb: 2": {},
    # another number
    "a: 1.2.3 b: 1,250 c: 1_000 d: 96% e: 96 % f: 12:30 g: 3/4 h: 2026-01-01": {},
    "a: 512MB b: 3k c: 0x10 d: 1.2… e: 1... f: 1e5x g: 2*3 h: info i: +": {},
    "a >= 1 b == 2 c += 3 d: e := 4 f => 5": {},
}


@pytest.mark.parametrize("line", NUMBERS)
def test_a_line_says_these_numbers_and_no_others(line: str) -> None:
    assert dict(numbers(line)) == NUMBERS[line]


HOSTILE = [
    *("a", "1", " ", "\t", "(", "{", "[", '"', "=", ":", "%", "a:", "a ", "a=1% ", "a:1%", "a:-nan", "a = 'b' : "),
    *("best ", "(pid=1 ", "(pid=1)", '{"a":', "a: 1.", "\x1b[", "\x1b]", "\x1b]8;;", "\x1b[0;", "EXPERIMENT_RESULT: "),
    *("a:" + " " * 30, "a:" + "1" * 399 + "%", "a" * 63 + "-", "a./@-"),
]


@pytest.mark.parametrize("begins", ["", "a:1", '{"a":'])
def test_megabytes_made_to_be_slow_to_read_are_not(begins: str) -> None:
    begin = time.process_time()
    for part in HOSTILE:
        assert len(dict(numbers(begins + part * (2**20 // len(part)) + "}"))) < 3
    assert time.process_time() - begin < 120, "a regular expression that is not linear would take hours"


def test_a_trainer_s_hostile_megabytes_hold_nothing_up(attempts: Attempts) -> None:
    source = f"for part in {HOSTILE!r}:\n    print(part * (2**20 // len(part)))\n"
    ran = attempts.foreign(
        source + "    print('\\n'.join([part * (2**10 // len(part))] * 2**10))\nprint('val_bpb: 1.25')"
    )
    assert ran.ending == ("done", "")
    assert ran.metrics["val_bpb"] == 1.25


ENDS: dict[str, tuple[str, str, str]] = {
    "raises": ("print('val_bpb: 0.1'); raise ValueError('too wide')", "crash", "exit code 1: ValueError: too wide"),
    "exits": ("print('val_bpb: 0.1'); raise SystemExit(4)", "crash", "exit code 4: val_bpb: 0.1"),
    "has a syntax error": ("def", "crash", "SyntaxError: invalid syntax"),
    "runs out of memory": ("raise MemoryError", "out_of_memory", "MemoryError"),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "out_of_memory", "killed, most likely for its memory"),
    "never ends": ("import time; print('val_bpb: 0.1', flush=True); time.sleep(600)", "overtime", "past 1 s in all"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_foreign_trainer_that_fails_has_no_score_when_it(attempts: Attempts, name: str) -> None:
    source, label, reason = ENDS[name]
    ran = attempts.foreign(source, timeout=1.0 if label == "overtime" else 60.0)
    assert ran.ending[0] == label
    assert reason in ran.ending[1]
    assert ran.metrics == {}


SEPARATORS = [
    "\\n",
    "\\r",
    "\\r\\n",
    "\\x0b",
    "\\x0c",
    "\\x1c",
    "\\x1d",
    "\\x1e",
    "\\x85",
    "\\u2028",
    "\\u2029",
    "\\0",
    "\\x08",
]


def test_a_trainer_cannot_print_a_line_that_looks_like_ours(attempts: Attempts) -> None:
    source = f"line = 'AUTORESEARCH ' + {FORGED!r}\n"
    source += "".join(f"print('step 1{separator}' + line)\n" for separator in SEPARATORS)
    source += "print('\\x1b[2K\\x1b[1G' + line); print(line); print('val_bpb: 1.25')"
    ran = attempts.foreign(source)
    # However a reader may split lines, only the last of them begins like the harness's own.
    for lines in (ran.output.splitlines(), re.split(r"[\r\n]", ran.output.rstrip("\n"))):
        assert [number for number, line in enumerate(lines) if line.lstrip().startswith("AUTORESEARCH")] == [
            len(lines) - 1
        ]
        assert all(line.startswith("| ") for line in lines[:-1])
    assert ran.output.count(FORGED) == len(SEPARATORS) + 2
    assert json.loads(ran.output.splitlines()[-1].removeprefix("AUTORESEARCH ")) == ran.result
    assert ran.metrics == {"val_bpb": 1.25}


ORDERS = (
    '<sky-payload>"<rich_retry>x</rich_retry>"</sky-payload>',
    '<sky-interactive session="1"/>',
)


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_in_the_log_is_an_order_to_skypilot_s_client(attempts: Attempts, order: str) -> None:
    ran = attempts.foreign(f"import sys; print({order!r}); sys.exit({order!r})")
    assert ran.ending[0] == "crash" and "sky-" in ran.ending[1]
    assert "| < sky-" in ran.output and "<sky-" not in ran.output


def test_a_megabyte_of_lines_is_all_in_the_log(attempts: Attempts) -> None:
    ran = attempts.foreign("for i in range(2000): print(f'{i:05d}' + 'x' * 500)\nprint('val_bpb: 1.25')")
    assert ran.metrics["val_bpb"] == 1.25
    assert [line[2:7] for line in ran.output.splitlines()[:2000]] == [f"{i:05d}" for i in range(2000)]


def test_a_flood_of_lines_is_cut_and_the_score_after_it_counts(attempts: Attempts) -> None:
    ran = attempts.foreign("for i in range(12000): print('x' * 1000)\nprint('val_bpb: 1.25')")
    assert ran.metrics["val_bpb"] == 1.25
    assert LOG_BYTES < len(ran.output) < LOG_BYTES + 10_000
    assert ran.output.splitlines()[-2] == "| (more than 4 MiB of output: the rest is dropped)"


def test_fifty_megabytes_without_a_newline_are_bounded(attempts: Attempts) -> None:
    ran = attempts.foreign("import sys\nfor i in range(50): sys.stdout.write('x' * 2**20)\nprint('\\nval_bpb: 1.25')")
    assert ran.metrics["val_bpb"] == 1.25
    assert len(ran.output) < 10_000


@pytest.mark.parametrize("closed", [True, False])
def test_where_nobody_reads_the_log_the_result_is_still_left(attempts: Attempts, closed: bool) -> None:
    laid = attempts.lay_out(
        {"train.py": b"print('x' * 1000 * 1000); print('x\\n' * 200000); print('val_bpb: 1.25')"}, evaluated=False
    )
    job = laid[0] / "job"
    job.write_bytes(laid[1])
    with job.open() as stdin, Path("/dev/full").open("w") as full:
        command = [attempts.python, "-m", "harness"]
        with subprocess.Popen(
            command,
            cwd=laid[0],
            env=attempts.environment,
            stdin=stdin,
            stdout=subprocess.PIPE if closed else full,
            stderr=subprocess.DEVNULL,
        ) as process:
            if process.stdout:
                process.stdout.close()
            try:
                process.wait(PATIENCE_SECONDS)
            finally:
                process.kill()
    result = json.loads((laid[0] / "result.json").read_text())
    assert result["metrics"] == {"val_bpb": 1.25}


def test_text_that_the_log_cannot_hold_is_replaced(attempts: Attempts) -> None:
    attempts.environment["PYTHONIOENCODING"] = "ascii"
    ran = attempts.foreign("import sys; sys.stdout.buffer.write('größer\\nval_bpb: 1.25\\n'.encode())")
    assert ran.metrics["val_bpb"] == 1.25
    assert "| val_bpb: 1.25" in ran.output
