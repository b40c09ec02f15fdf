"""The model and its optimizers, in this process, with the tiny profile's knobs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import prepare


@pytest.fixture(scope="module")
def train(workspace: Path) -> ModuleType:
    assert prepare.__file__ is not None  # imported first, so that the workspace's copy stays out of this process
    spec = importlib.util.spec_from_file_location("tiny_train", workspace / "train/train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(train: ModuleType) -> torch.nn.Module:
    torch.manual_seed(0)
    model = train.GPT(512, 64, "cpu")
    with torch.no_grad():  # blocks start as no-ops: give every weight something to say
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tokens(rows: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 512, (rows, 64)))


def test_the_model_answers_with_raw_float32_logits_within_the_softcap(
    train: ModuleType, model: torch.nn.Module
) -> None:
    logits = model(tokens(3, 0))
    assert logits.shape == (3, 64, 512)
    assert logits.dtype == torch.float32
    assert logits.abs().max() < train.SOFTCAP
    assert model(tokens(3, 0)[:, :10]).shape == (3, 10, 512)


def test_no_logit_depends_on_a_later_token(model: torch.nn.Module) -> None:
    before, after = tokens(4, 1), tokens(4, 1)
    after[:, 40:] = tokens(4, 2)[:, 40:]
    with torch.no_grad():
        assert torch.equal(model(before)[:, :40], model(after)[:, :40])
        assert not torch.equal(model(before)[:, 40:], model(after)[:, 40:])


@pytest.mark.parametrize("kernel", ["sdpa", "flex"])
@pytest.mark.parametrize("window", [None, 1, 5, 18, 19, 100])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_window_of_w_sees_w_plus_one_keys(train: ModuleType, window: int | None, kernel: str) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 20, 4, 8, dtype=torch.float64).unbind()
    out = getattr(train, kernel)(q, k, v, window)
    for i in range(20):
        seen = slice(0 if window is None else max(0, i - window), i + 1)
        weights = torch.softmax(torch.einsum("bhd,bjhd->bhj", q[:, i], k[:, seen]) / 8**0.5, -1)
        expected = torch.einsum("bhj,bjhd->bhd", weights, v[:, seen])
        torch.testing.assert_close(out[:, i], expected)


def test_on_a_cpu_attention_is_sdpa(train: ModuleType) -> None:
    assert train.choose_attention("cpu") is train.sdpa


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 256, 64), (2, 64, 256)])
def test_orthogonalised_matrices_have_singular_values_near_one(train: ModuleType, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(train.orthogonalise(torch.randn(shape)))
    assert values.mean() == pytest.approx(0.9, abs=0.2)
    assert values.max() < 1.3


def test_every_parameter_has_exactly_one_optimizer(train: ModuleType, model: torch.nn.Module) -> None:
    optimizers = train.make_optimizers(model)
    held = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert {type(optimizer).__name__ for optimizer in optimizers} == {"Muon", "AdamW"}


def test_warming_up_leaves_weights_rates_and_optimizers_as_they_were(train: ModuleType, model: torch.nn.Module) -> None:
    optimizers = train.make_optimizers(model)
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    train.warm_up(lambda x, _: model(x).square().mean(), optimizers, tokens(2, 0), tokens(2, 1))
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), weights, strict=True))
    assert rates == [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    assert not any(optimizer.state for optimizer in optimizers)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_schedules_follow_the_budget(train: ModuleType, model: torch.nn.Module) -> None:
    optimizers = train.make_optimizers(model)
    group = optimizers[0].param_groups[0]
    shares = []
    for progress in (0.0, 0.5, 0.75, 1.0):
        train.set_schedules(optimizers, 0, progress)
        shares.append(group["lr"] / group["peak_lr"])
    assert shares == [1.0, 1.0, 0.5, 0.0]
    assert group["momentum"] == train.MUON_MOMENTUM_START
    train.set_schedules(optimizers, 10_000, 0.5)
    assert group["momentum"] == pytest.approx(train.MUON_MOMENTUM)
    assert group["weight_decay"] == train.WEIGHT_DECAY / 2
