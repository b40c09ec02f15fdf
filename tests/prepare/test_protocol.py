"""The trial protocol inside one process: a real model and a real budget, judged by ourselves."""

from __future__ import annotations

import dataclasses
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prepare.profile import TINY, Profile
from prepare.progress import ProgressLine
from prepare.protocol import Trial, describe
from prepare.referees import ENVIRONMENT, Harness, Oneself, referee

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.usefixtures("torch_globals")

SHORT = dataclasses.replace(TINY, budget=dataclasses.replace(TINY.budget, tokens=4096))
NO_CPU = dataclasses.replace(TINY, budget=dataclasses.replace(TINY.budget, cpu_seconds=0.0))


def bigrams() -> torch.nn.Module:
    from torch import nn

    return nn.Sequential(nn.Embedding(512, 16), nn.Linear(16, 512))


def train(profile: Profile = SHORT, seed: int = 7, spoil: Callable[[float], float] = float) -> Oneself:
    import torch

    from prepare.loader import batches

    judge = Oneself(profile, seed)
    trial = Trial(judge, profile)
    model = bigrams()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = batches(8, trial.seed, trial.device, profile=profile)
    trial.ready(model, [optimizer])
    loss = None
    while trial.more(tokens=512, loss=loss):
        inputs, targets = next(data)
        error = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        error.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss = spoil(error.item())
    trial.serve(model, depth=1)
    return judge


@pytest.mark.usefixtures("tiny_data")
def test_a_run_by_hand_trains_scores_itself_and_prints_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    judge = train()
    assert judge.meter.tokens == 4096
    assert 3.0 < judge.values["val_bpb"] < 6.0
    printed = capsys.readouterr().out
    assert "step 00008 (100.0%) | loss: " in printed
    block = printed[printed.index("---\n") :].splitlines()
    assert [line.split(":")[0] for line in block[1:]] == [
        "val_bpb",
        "training_seconds",
        "total_seconds",
        "peak_vram_mb",
        "mfu_percent",
        "total_tokens_M",
        "num_steps",
        "num_params_M",
        "depth",
    ]


@pytest.mark.usefixtures("tiny_data")
def test_a_seed_repeats_to_the_last_digit() -> None:
    first, again, other = train(seed=7), train(seed=7), train(seed=8)
    assert first.values["val_bpb"] == again.values["val_bpb"]
    assert first.values["val_bpb"] != other.values["val_bpb"]


@pytest.mark.usefixtures("tiny_data")
def test_a_diverged_run_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        train(spoil=lambda _: math.nan)
    assert end.value.code == 1
    assert "FAIL: diverged" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_data")
def test_a_run_that_takes_too_many_cpu_seconds_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train(profile=NO_CPU)
    assert "FAIL: overtime" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_data")
def test_a_step_before_ready_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="ready"):
        Trial(Oneself(SHORT, 1), SHORT).more(tokens=512)


def test_a_description_names_parameters_and_optimizer_groups() -> None:
    import torch

    model = bigrams()
    optimizer = torch.optim.SGD([{"params": [model[0].weight], "lr": 0.5}, {"params": model[1].parameters()}], lr=0.1)
    described = describe(model, [optimizer])
    assert described.parameters == (
        ("0.weight", (512, 16), "float32"),
        ("1.weight", (512, 16), "float32"),
        ("1.bias", (512,), "float32"),
    )
    assert described.groups == (("SGD", 8192, 0.5), ("SGD", 8704, 0.1))


def test_the_environment_decides_who_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setenv("SEED", "5")
    judge = referee()
    assert isinstance(judge, Oneself)
    assert judge.seed == 5
    monkeypatch.setenv(ENVIRONMENT, "7,9")
    assert isinstance(referee(), Harness)
    monkeypatch.setenv(ENVIRONMENT, "seven")
    with pytest.raises(ValueError):
        referee()


def test_a_harness_that_hangs_up_or_talks_nonsense_is_an_error() -> None:
    from prepare import wire

    read_fd, write_fd = os.pipe()
    wire.send(write_fd, {"type": "done"})
    os.close(write_fd)
    judge = Harness(read_fd, write_fd)
    with pytest.raises(ValueError, match="'done' where trial was due"):
        judge.open("cpu")
    with pytest.raises(EOFError):
        judge.open("cpu")
    os.close(read_fd)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_every_step_in_one_line_and_a_log_one_in_ten() -> None:
    for stream, lines in ((io.StringIO(), 10), (Terminal(), 1)):
        line = ProgressLine(0.0, stream)
        for step in range(101):
            line.show(512, 2.5 if step else None, step / 100, now=step * 0.02, done=step == 100)
        assert stream.getvalue().count("\n") == lines
        assert stream.getvalue().count("step") == (100 if stream.isatty() else 10)
        assert "step 00100 (100.0%) | loss: 2.5000 | dt: 20ms | tok/sec: 25,600 | remaining: 0s" in stream.getvalue()


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from prepare.dataset import cache_root

    monkeypatch.delenv("AUTORESEARCH_CACHE", raising=False)
    assert cache_root() == Path.home() / ".cache" / "autoresearch"
    monkeypatch.setenv("AUTORESEARCH_CACHE", "~/elsewhere")
    assert cache_root() == Path.home() / "elsewhere"
