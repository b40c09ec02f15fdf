"""A workspace of somebody else's: another metric, to be maximised, under gates, printed as clusters print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.foreign import git, workspace

Command = Callable[..., Any]

TRAIN = '''\
"""The larger, the more accurate and the slower; one size is slow only when it is looked at again."""
import os
import sys
import zlib

SIZE = 4
NAME = "plain"  # no influence

seed = int(os.environ["SEED"])
luck = zlib.crc32(f"{seed} {SIZE}".encode()) % 100 / 1e5
accuracy = 0.8 + SIZE / 100 + seed % 7 / 1e3 + luck
latency = 1.5 * SIZE + (20 if SIZE == 10 and seed % 1000 > 500 else 0)

for step in range(3):
    so_far = f"eval/accuracy={accuracy - 0.1:.6f}, best_eval/accuracy=1"
    sys.stderr.write(f"\\r\\x1b[2K{step}/3 [00:0{step}<00:03, {so_far}]")
sys.stderr.write("\\n")
prefix = "\\x1b[36m(train, pid=4321, ip=10.0.0.7)\\x1b[0m "
print(prefix + f"2026-01-01 10:00:00,123 INFO \\x1b[1meval/accuracy\\x1b[0m: {accuracy:.6f} eval/accuracy_std: 0.5")
print(prefix + "best eval/accuracy: 0.999999")
if SIZE != 5:
    print(f"(head, rank=0, pid=12) {prefix}latency_ms = {latency:.3f}  [repeated 2x across cluster]")
'''

PROGRAM = """\
---
metric: {name: eval/accuracy, goal: maximize}
gates: [latency_ms <= 20]
tiers: {confirmation: {promote: 4}}
---
Be right, and be quick.
"""


@dataclass(frozen=True)
class Ran:
    """A workspace in which one wave was run, and what `wave --json` said of it."""

    root: Path
    told: dict[str, Any]

    def candidate(self, size: int) -> str:
        """The candidate of this SIZE."""
        return next(str(row["candidate"]) for row in self.told["experiments"] if row["knobs"]["SIZE"] == size)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, run_process: Command) -> Ran:
    root = workspace(tmp_path_factory.mktemp("theirs") / "workspace", {"train.py": TRAIN, "program.md": PROGRAM})
    wave = ("wave", "--clusters", "2", "--tag", "mar5", "--factor", "SIZE=2,5,8,10,16", "--json")
    done = run_process(*wave, cwd=root)
    assert done.code == 0, done
    return Ran(root, json.loads(done.out))


def test_scores_are_read_through_prefixes_colours_and_progress_bars(ran: Ran) -> None:
    for row in ran.told["experiments"]:
        assert (row["status"], row["self_reported"]) == ("done", True)
        size, seed = row["knobs"]["SIZE"], row["seed"]
        assert row["metrics"]["eval/accuracy"] == pytest.approx(0.8 + size / 100 + seed % 7 / 1e3, abs=0.0011)
        assert row["metrics"].get("latency_ms", 0) == (0 if size == 5 else pytest.approx(1.5 * size, abs=20))
        assert not {"pid", "rank"} & set(row["metrics"])


def test_the_most_accurate_candidate_that_passes_the_gates_wins(ran: Ran) -> None:
    assert ran.told["kept"] == ran.candidate(8)
    assert ran.told["commit"] == git(ran.root, "rev-parse", "autoresearch/mar5")
    assert "SIZE = 8\n" in git(ran.root, "show", "autoresearch/mar5:train.py")
    screened = {row["knobs"]["SIZE"] for row in ran.told["experiments"] if row["role"] == "cell"}
    confirmed = {row["knobs"]["SIZE"] for row in ran.told["experiments"] if row["role"] == "confirmation"}
    assert (screened, confirmed) == ({2, 5, 8, 10, 16}, {8, 10})


def test_each_candidate_that_a_gate_refused_is_named_with_its_reason(ran: Ran) -> None:
    assert ran.told["gates"] == ["latency_ms <= 20"]
    refused = {(one["candidate"], one["tier"]): one["reason"] for one in ran.told["refused"]}
    assert refused == {
        (ran.candidate(5), "screening"): "it reports no latency_ms",
        (ran.candidate(16), "screening"): "latency_ms 24 is not <= 20",
        (ran.candidate(10), "confirmation"): "latency_ms 35 is not <= 20",
    }
    verdicts = {one["candidate"]: (one["verdict"], one["sentence"]) for one in ran.told["decisions"]}
    verdict, sentence = verdicts[ran.candidate(10)]
    assert verdict == "discard"
    assert sentence.startswith(f"discard {ran.candidate(10)} (SIZE=10): latency_ms 35 is not <= 20; eval/accuracy 0.8")


def test_wherever_a_score_is_shown_it_is_called_self_reported(ran: Ran, run_process: Command) -> None:
    assert ran.told["self_reported"] is True
    assert all("scores self-reported" in one["sentence"] for one in ran.told["decisions"])
    message = git(ran.root, "log", "-1", "--format=%B", "autoresearch/mar5")
    assert "Autoresearch-Scored-By: the trainer itself (self-reported)" in message
    assert re.search(r"^Autoresearch-Metric: eval/accuracy 0\.88\d+$", message, re.M)
    page = Path(ran.told["plot"]).read_text()
    assert "The scores are self-reported: the trainer&#x27;s own word" in page
    assert "accuracy, self-reported (higher is better)" in page
    for command in ("status", "results"):
        assert "self-reported" in run_process(command, cwd=ran.root).out
    assert json.loads(run_process("status", "--json", cwd=ran.root).out)["health"]["self_reported"] is True


def test_a_clone_reproduces_the_winner(ran: Ran, tmp_path: Path, run_process: Command) -> None:
    git(tmp_path, "clone", "--quiet", str(ran.root), str(tmp_path / "clone"))
    done = run_process("reproduce", cwd=tmp_path / "clone")
    assert done.code == 0, done
    assert "reproduced to the last digit: eval/accuracy 0.88" in done.out
    assert len(re.findall(r"^seed \d+: eval/accuracy 0\.88\d+ \(self-reported\)$", done.out, re.M)) == 3


def test_the_tables_of_a_wave_say_it_once_each(tmp_path: Path, run_process: Command) -> None:
    root = workspace(tmp_path / "workspace", {"train.py": TRAIN, "program.md": PROGRAM})
    done = run_process("wave", "--clusters", "2", "--tag", "mar5", "--factor", "SIZE=8,16", cwd=root)
    assert done.code == 0, done
    for title in ("Screening, wave w01", "Effects on eval/accuracy", "Confirmation"):
        assert f"{title} (self-reported)" in done.out
    assert re.search(r"SIZE=16 .* latency_ms 24 is not <= 20$", done.out, re.M)
    assert re.search(r"^decision: keep .*, scores self-reported$", done.out, re.M)
