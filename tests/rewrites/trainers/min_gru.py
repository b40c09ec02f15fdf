"""No attention at all: a minimal GRU (arXiv 2410.01201), run as a Python loop over time."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prepare
from prepare.loader import batches

DEPTH = 2  # recurrent layers
WIDTH = 64  # of the residual stream and of the state
ROWS = 16  # in a step
LR = 0.01  # Adam's, falling to 0 over the run


class MinGRU(nn.Module):
    """Moves its state towards a candidate; how far, and where to, the present position decides alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(WIDTH)
        self.gate, self.candidate = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        gates, candidates = self.gate(normed).sigmoid(), self.candidate(normed)
        state, states = torch.zeros_like(x[:, 0]), []
        for gate, candidate in zip(gates.unbind(1), candidates.unbind(1), strict=True):
            state = (1 - gate) * state + gate * candidate
            states.append(state)
        return x + self.out(torch.stack(states, dim=1))


def main() -> None:
    """One trial."""
    trial = prepare.trial()
    vocabulary = trial.profile.vocab_size
    layers = [MinGRU() for _ in range(DEPTH)]
    model = nn.Sequential(nn.Embedding(vocabulary, WIDTH), *layers, nn.RMSNorm(WIDTH), nn.Linear(WIDTH, vocabulary))
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
