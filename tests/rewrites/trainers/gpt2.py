"""GPT-2 in small: learned positions, LayerNorm, GELU, biases, and AdamW with a warm-up and a cosine."""

from __future__ import annotations

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prepare
from prepare.loader import batches

DEPTH = 2  # transformer blocks
WIDTH = 64  # of the residual stream
HEADS = 2  # of attention
ROWS = 16  # in a step
EMBEDDING_STD = 0.5  # initial standard deviation of both embeddings
LR = 0.01  # AdamW's, at its peak
WEIGHT_DECAY = 0.1  # of everything
WARMUP = 0.1  # fraction of the budget over which the rate rises

assert WIDTH % HEADS == 0, "heads share the width evenly"


class Block(nn.Module):
    """Attention and an MLP, each behind a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.before_attention(x)).chunk(3, dim=-1)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(self.before_mlp(x))


class GPT2(nn.Module):
    """tokens [B, T] -> raw logits [B, T, vocabulary]."""

    def __init__(self, vocabulary: int, length: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(length, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=EMBEDDING_STD)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.size(1), device=tokens.device))
        return self.head(self.norm(self.blocks(x)))


def main() -> None:
    """One trial."""
    trial = prepare.trial()
    model = GPT2(trial.profile.vocab_size, trial.profile.sequence_length).to(trial.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY)
    data = batches(ROWS, trial.seed, trial.device)
    trial.ready(model, [optimizer])
    loss = None
    while trial.more(tokens=ROWS * trial.profile.sequence_length, loss=loss):
        rate = min(1.0, (trial.progress + 0.01) / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * trial.progress))
        optimizer.param_groups[0]["lr"] = LR * rate
        inputs, targets = next(data)
        error = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss = error.item()
    trial.serve(model, depth=DEPTH)


if __name__ == "__main__":
    main()
