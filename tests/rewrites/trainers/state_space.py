"""No attention and no position either: gated diagonal state spaces, each run as one long convolution by FFT."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prepare
from prepare.loader import batches

DEPTH = 2  # layers
WIDTH = 64  # channels
STATES = 8  # exponential averages a channel keeps
ROWS = 16  # in a step
LR = 0.01  # Adam's, falling to 0 over the run


class StateSpace(nn.Module):
    """Every channel is a sum of exponential averages of its past, let through by a gate (after arXiv 2206.11893)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.inward, self.outward = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.decay = nn.Parameter(torch.linspace(-4.0, 1.0, STATES).repeat(WIDTH, 1))
        self.share = nn.Parameter(torch.randn(WIDTH, STATES) / STATES)

    def forward(self, x: Tensor) -> Tensor:
        length = x.size(1)
        gate, signal = self.inward(self.norm(x)).chunk(2, dim=-1)
        times = torch.arange(length, device=x.device)
        kernel = (self.share[..., None] * torch.exp(-F.softplus(self.decay)[..., None] * times)).sum(1)
        # Rows twice as long leave room for what an FFT would otherwise wrap around from their end to their beginning.
        spectrum = torch.fft.rfft(signal.mT, 2 * length) * torch.fft.rfft(kernel, 2 * length)
        mixed = torch.fft.irfft(spectrum, 2 * length)[..., :length].mT
        return x + self.outward(F.silu(gate) * mixed)


def main() -> None:
    """One trial."""
    trial = prepare.trial()
    vocabulary = trial.profile.vocab_size
    layers = [StateSpace() for _ in range(DEPTH)]
    model = nn.Sequential(nn.Embedding(vocabulary, WIDTH), *layers, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary))
    model.to(trial.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    data = batches(ROWS, trial.seed, trial.device)
    trial.ready(model, [optimizer])
    loss = None
    while trial.more(tokens=ROWS * trial.profile.sequence_length, loss=loss):
        optimizer.param_groups[0]["lr"] = LR * (1 - trial.progress)
        inputs, targets = next(data)
        error = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        loss = error.item()
    trial.serve(model, depth=DEPTH)


if __name__ == "__main__":
    main()
