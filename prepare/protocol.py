"""The trial protocol, as train.py sees it.

    trial = prepare.trial()                             # seed, device, budget
    …build, warm up…
    trial.ready(model, optimizers)                      # the budget starts here
    while trial.more(tokens=…, loss=…):                 # may one more step be taken?
        …one step…                                      # trial.progress drives the schedules
    trial.serve(model)                                  # answers rows with raw logits until the score is known

Who decides and scores is the referee's matter: see `referees`.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from prepare.profile import CURRENT, Budget, Profile
from prepare.progress import ProgressLine
from prepare.referees import Answer, Description, Referee, referee

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


class Trial:
    """One training run, from its seed to its score.

    seed, device ("cpu" or "cuda"), budget: the terms. profile: the task. progress: the fraction of the budget spent
    before the step last granted, in [0, 1].
    """

    def __init__(self, judge: Referee, profile: Profile = CURRENT) -> None:
        import torch

        terms = judge.open("cuda" if torch.cuda.is_available() else "cpu")
        self.profile = profile
        self.seed: int = terms.seed
        self.device: str = terms.device
        self.budget: Budget = terms.budget
        self.progress = 0.0
        self._judge = judge
        self._line: ProgressLine | None = None
        self._make_repeatable()

    @classmethod
    def open(cls) -> Trial:
        """The trial of this process: under the harness if it started us, else on our own. Seeds every generator."""
        return cls(referee())

    def ready(self, model: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """Say what will be trained and start the budget. Whatever came before, compilation too, was free of charge."""
        description = describe(model, optimizers)
        _synchronize(self.device)
        self._judge.ready(description)
        self._line = ProgressLine(time.monotonic())

    def more(self, *, tokens: int, loss: float | None = None) -> bool:
        """May one more step of `tokens` tokens be taken? The condition of the training loop.

        loss: the last step's, in nats per token; None before the first and where it was not read back. A loss that is
        not finite or above 100 ends the process with FAIL and exit code 1, as does spending too many CPU seconds.
        Raises RuntimeError before `ready`.
        """
        if self._line is None:
            raise RuntimeError("call trial.ready(model, optimizers) before the first trial.more")
        grant = self._judge.more(tokens, loss)
        self.progress = grant.progress
        self._line.show(tokens, loss, grant.progress, time.monotonic(), done=not grant.go)
        if grant.label:
            print(f"FAIL: {grant.label} at {100 * grant.progress:.1f}% of the budget, loss {loss}", flush=True)
            sys.exit(1)
        return grant.go

    def serve(self, model: torch.nn.Module, **info: float | int | str) -> None:
        """Let the model be scored: `model(tokens int64 [n, T])` must return raw logits [n, T, V].

        info: further numbers for the summary, such as depth. Returns when the score is known.
        """
        _synchronize(self.device)
        if hasattr(model, "eval"):
            model.eval()
        self._judge.score(answer(model, self.device), {**_vitals(model, self.device), **info})

    def _make_repeatable(self) -> None:
        import torch

        random.seed(self.seed)
        np.random.seed(self.seed % 2**32)
        torch.manual_seed(self.seed)
        if self.device == "cpu":
            torch.use_deterministic_algorithms(True)
            if self.profile.name == "tiny":  # sums split over threads round differently from machine to machine
                torch.set_num_threads(1)


def describe(model: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> Description:
    """Names, shapes and optimizer groups of what is about to be trained: a cheap fingerprint of the candidate."""
    parameters = ((name, tuple(p.shape), str(p.dtype).removeprefix("torch.")) for name, p in model.named_parameters())
    groups = (
        (type(optimizer).__name__, sum(p.numel() for p in group["params"]), float(group["lr"]))
        for optimizer in optimizers
        for group in optimizer.param_groups
    )
    return Description(tuple(parameters), tuple(groups))


def answer(model: torch.nn.Module, device: str) -> Answer:
    """The model as a function from token rows to float32 logits, both in numpy."""
    import torch

    def logits(rows: NDArray[np.uint16], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        tokens = torch.from_numpy(rows.astype(np.int64)).to(device)
        # Not inference_mode: tensors cached during training may not be used again in it, nor the other way round.
        with torch.no_grad():
            answered = model(tokens)
            if out is None:
                out = np.empty(answered.shape, np.float32)
            if answered.shape != out.shape:
                raise ValueError(f"the model answered {tuple(answered.shape)} where logits {out.shape} are asked")
            torch.from_numpy(out).copy_(answered)
        return out

    return logits


def _vitals(model: torch.nn.Module, device: str) -> dict[str, Any]:
    """Numbers about the run that only this process knows.

    FLOPs are counted as 6 a token for every parameter that is multiplied with, which leaves out embedding tables, and
    leaves out attention's own products as well.
    """
    import torch

    looked_up = {
        id(p) for module in model.modules() if isinstance(module, torch.nn.Embedding) for p in module.parameters()
    }
    parameters = list(model.parameters())
    on_gpu = device.startswith("cuda")
    return {
        "num_params": sum(p.numel() for p in parameters),
        "flops_per_token": 6 * sum(p.numel() for p in parameters if id(p) not in looked_up),
        "peak_vram_mb": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0,
        "device_name": torch.cuda.get_device_name() if on_gpu else "cpu",
    }


def _synchronize(device: str) -> None:
    """Wait for work the GPU was given but has not finished, so that time is charged to whoever spent it."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize()
