"""A small GPT, trained until the budget is spent: the one file that research edits.

    python train/train.py                # by hand: trains, scores itself, prints the summary
    SEED=7 python train/train.py

Everything a number can say is a knob in the block below; the rest is the model, the optimizers and the loop. What must
be equal for two scores to be comparable (text, tokenizer, budget, evaluation) is in prepare/ and out of bounds here.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

# The copy of prepare/ beside this file, whatever else may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prepare
from prepare.loader import batches

# ---------------------------------------------------------------------------------------------------------------------
# Knobs: one a line, literals only.

DEPTH = 8  # transformer blocks
ASPECT_RATIO = 64  # model width per block of depth, before rounding up to whole heads
HEAD_DIM = 128  # width of one attention head
WINDOW_PATTERN = "SSSL"  # attention of block after block, repeated: S short window, L everything; the last block is L
SHORT_WINDOW_DIVISOR = 2  # a short window reaches back SEQUENCE_LENGTH // this many tokens
MLP_RATIO = 4  # width of the hidden layer of an MLP, in model widths
ROPE_BASE = 10000.0  # rotary embedding: the longest wavelength is about 2 pi times this many tokens
SOFTCAP = 15.0  # logits are squashed into (-SOFTCAP, SOFTCAP)

SEQUENCE_LENGTH = 2048  # tokens in a training row
TOTAL_BATCH_SIZE = 2**19  # tokens in an optimizer step
DEVICE_BATCH_SIZE = 128  # rows in a forward pass; bounded by memory, several make a step

EMBEDDING_LR = 0.6  # AdamW: token and value embeddings, at width 768
UNEMBEDDING_LR = 0.004  # AdamW: output layer, at width 768
SCALAR_LR = 0.5  # AdamW: how much of the embedding each block sees again
RESIDUAL_LR_FRAC = 0.01  # AdamW: residual and gate scalars learn at this fraction of SCALAR_LR, as they compound
MATRIX_LR = 0.04  # Muon: all matrices of the blocks
WEIGHT_DECAY = 0.2  # Muon, falling to 0 over the run
ADAM_BETAS = (0.8, 0.95)  # embeddings and output layer
SCALAR_BETAS = (0.96, 0.95)  # scalars
ADAM_EPS = 1e-10  # added to the denominator
MUON_MOMENTUM = 0.95  # decay of the momentum
MUON_MOMENTUM_START = 0.85  # its value at the first step
MUON_MOMENTUM_RAMP = 300  # steps until MUON_MOMENTUM is reached
MUON_NS_STEPS = 5  # Newton-Schulz iterations
MUON_BETA2 = 0.95  # decay of the second moment that evens out a matrix's neurons

WARMUP_RATIO = 0.0  # fraction of the budget over which learning rates rise from 0
WARMDOWN_RATIO = 0.5  # fraction of the budget over which they fall
FINAL_LR_FRAC = 0.0  # where they end, as a fraction of their peak

EMBEDDING_STD = 1.0  # initial standard deviation of token and value embeddings
UNEMBEDDING_STD = 0.001  # of the output layer
EMBEDDING_RESIDUAL = 0.1  # initial share of the embedding added again before each block

# ---------------------------------------------------------------------------------------------------------------------
# Derived from knobs by plain arithmetic, and what this file can hold: both are checked before anything is run.

MODEL_DIM = -(-DEPTH * ASPECT_RATIO // HEAD_DIM) * HEAD_DIM
NUM_HEADS = MODEL_DIM // HEAD_DIM
SHORT_WINDOW = SEQUENCE_LENGTH // SHORT_WINDOW_DIVISOR
TOKENS_PER_PASS = DEVICE_BATCH_SIZE * SEQUENCE_LENGTH
PASSES_PER_STEP = TOTAL_BATCH_SIZE // TOKENS_PER_PASS

# Accelerator memory that training takes at least: what the backward pass needs of each block in bfloat16, logits over
# 8,192 tokens with their gradient, and the matrices with gradient and momentum. By hand, not measured.
MEMORY_GIB = (
    TOKENS_PER_PASS * (2 * (6 + MLP_RATIO) * MODEL_DIM * DEPTH + 8 * 8192)
    + 12 * DEPTH * (4 + 2 * MLP_RATIO) * MODEL_DIM**2
) / 2**30

assert DEPTH >= 1 and MODEL_DIM >= HEAD_DIM, "a model needs at least one block and one head"
assert HEAD_DIM >= 2 and HEAD_DIM % 2 == 0, "rotary embeddings turn pairs: HEAD_DIM must be even"
assert len(WINDOW_PATTERN) >= 1 and set(WINDOW_PATTERN) <= set("SL"), "WINDOW_PATTERN is made of S and L"
assert 1 <= SHORT_WINDOW <= SEQUENCE_LENGTH, "a short window must reach at least one token back"
assert MLP_RATIO >= 1 and ROPE_BASE > 1 and SOFTCAP > 0, "MLP_RATIO, ROPE_BASE and SOFTCAP must be positive"
assert DEVICE_BATCH_SIZE >= 1 and SEQUENCE_LENGTH >= 2, "a pass needs rows, and a row at least two tokens"
assert TOTAL_BATCH_SIZE > 0, "a step needs tokens"
assert TOTAL_BATCH_SIZE % TOKENS_PER_PASS == 0, "TOTAL_BATCH_SIZE must be whole passes of DEVICE_BATCH_SIZE rows"
assert min(EMBEDDING_LR, UNEMBEDDING_LR, SCALAR_LR, RESIDUAL_LR_FRAC, MATRIX_LR) > 0, "learning rates must be positive"
assert WEIGHT_DECAY >= 0 and ADAM_EPS > 0, "WEIGHT_DECAY must not be negative, ADAM_EPS must be positive"
assert len(ADAM_BETAS) == 2 and min(ADAM_BETAS) >= 0 and max(ADAM_BETAS) < 1, "ADAM_BETAS are two numbers in [0, 1)"
assert len(SCALAR_BETAS) == 2 and min(SCALAR_BETAS) >= 0 and max(SCALAR_BETAS) < 1, "SCALAR_BETAS are two in [0, 1)"
assert 0 <= MUON_MOMENTUM < 1 and 0 <= MUON_MOMENTUM_START < 1 and 0 <= MUON_BETA2 < 1, "Muon's decays are in [0, 1)"
assert MUON_NS_STEPS >= 1 and MUON_MOMENTUM_RAMP >= 1, "MUON_NS_STEPS and MUON_MOMENTUM_RAMP must be at least 1"
assert 0 <= WARMUP_RATIO <= 1 and 0 <= WARMDOWN_RATIO <= 1, "WARMUP_RATIO and WARMDOWN_RATIO are fractions"
assert 0 <= FINAL_LR_FRAC <= 1, "FINAL_LR_FRAC is a fraction"
assert EMBEDDING_STD > 0 and UNEMBEDDING_STD >= 0, "initial standard deviations must not be negative"

# ---------------------------------------------------------------------------------------------------------------------
# Attention. Every kernel takes q, k, v as [B, T, H, D] and a window: position i sees positions i - window to i, which
# is window + 1 keys, as FlashAttention counts; None is everything up to i. Only SDPA on a CPU has been run so far: the
# GPU kernels stand in the order of their authors' figures, and neither they nor torch.compile have been measured here.

Kernel = Callable[[Tensor, Tensor, Tensor, int | None], Tensor]


def choose_attention(device: str) -> Kernel:
    """The best kernel that is installed; none is downloaded at run time."""
    if not device.startswith("cuda") or torch.cuda.get_device_capability() < (8, 0):
        return sdpa
    for module in ("flash_attn_interface", "flash_attn.cute"):  # FlashAttention-3, for Hopper; flash-attn-4
        with contextlib.suppress(ImportError):
            return functools.partial(flash, importlib.import_module(module).flash_attn_func)
    with contextlib.suppress(ImportError):
        from torch.nn.attention.varlen import varlen_attn

        if "window_size" in inspect.signature(varlen_attn).parameters:
            return varlen
    with contextlib.suppress(ImportError):
        importlib.import_module("torch.nn.attention.flex_attention")
        return flex
    return sdpa


def flash(function: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """FlashAttention, from a package of its own."""
    out = function(q, k, v, causal=True, **({} if window is None else {"window_size": (window, 0)}))
    return out[0] if isinstance(out, tuple) else out  # some versions add the log-sum-exp


def varlen(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """torch's own FlashAttention: rows of equal length are packed into one long row with their boundaries."""
    from torch.nn.attention.varlen import varlen_attn

    rows, length = q.shape[:2]
    ends = torch.arange(0, (rows + 1) * length, length, dtype=torch.int32, device=q.device)
    reach = (-1 if window is None else window, 0)
    packed = (tensor.flatten(0, 1) for tensor in (q, k, v))
    return varlen_attn(*packed, ends, ends, length, length, window_size=reach).view_as(q)


def flex(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """torch's compiled attention, which skips the blocks that the window leaves out."""
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return flex_attention(q, k, v, block_mask=block_mask(q.size(2), window, str(q.device))).transpose(1, 2)


@functools.cache
def block_mask(length: int, window: int | None, device: str) -> object:
    """Which blocks of a square of `length` positions flex_attention has to look at."""
    from torch.nn.attention.flex_attention import create_block_mask

    reach = length if window is None else window
    within = lambda row, head, i, j: (i >= j) & (i - j <= reach)  # noqa: E731
    return create_block_mask(within, None, None, length, length, device=device)


def sdpa(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Everywhere, the CPU too: torch's scaled dot product, with a mask where there is a window."""
    length = q.size(1)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if window is None or window >= length - 1:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        position = torch.arange(length, device=q.device)
        back = position[:, None] - position
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=(back >= 0) & (back <= window))
    return out.transpose(1, 2)


# ---------------------------------------------------------------------------------------------------------------------
# Model


def norm(x: Tensor) -> Tensor:
    """RMS norm without weights, over the last dimension."""
    return F.rms_norm(x, (x.size(-1),))


def rotation(length: int, device: str) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary embeddings (arXiv 2104.09864), each [length, 1, HEAD_DIM / 2]."""
    frequency = ROPE_BASE ** -(torch.arange(0, HEAD_DIM, 2, device=device) / HEAD_DIM)
    angle = torch.outer(torch.arange(length, device=device), frequency)[:, None]
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (first half, second half) of x [B, T, H, D] by its position's angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Attention(nn.Module):
    """Causal attention with normed queries and keys; some blocks add an embedding of the token itself to the values."""

    def __init__(self, kernel: Kernel, window: int | None, values: nn.Embedding | None) -> None:
        super().__init__()
        self.kernel, self.window = kernel, window
        self.query = nn.Linear(MODEL_DIM, MODEL_DIM, bias=False)
        self.key = nn.Linear(MODEL_DIM, MODEL_DIM, bias=False)
        self.value = nn.Linear(MODEL_DIM, MODEL_DIM, bias=False)
        self.out = nn.Linear(MODEL_DIM, MODEL_DIM, bias=False)
        self.values = values
        self.gate = nn.Parameter(torch.ones(NUM_HEADS, 1)) if values is not None else None

    def forward(self, x: Tensor, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        heads = (*x.shape[:2], NUM_HEADS, HEAD_DIM)
        q, k, v = self.query(x).view(heads), self.key(x).view(heads), self.value(x).view(heads)
        if self.values is not None:
            v = v + (self.gate * self.values(tokens).view(heads)).type_as(v)
        q, k = (norm(rotate(t, cos, sin)).type_as(v) for t in (q, k))
        return self.out(self.kernel(q, k, v, self.window).reshape(x.shape))


class MLP(nn.Module):
    """Two layers around a squared ReLU (arXiv 2109.08668)."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(MODEL_DIM, MLP_RATIO * MODEL_DIM, bias=False)
        self.down = nn.Linear(MLP_RATIO * MODEL_DIM, MODEL_DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class GPT(nn.Module):
    """tokens [B, T] -> raw logits [B, T, vocab_size] in float32."""

    def __init__(self, vocab_size: int, max_length: int, device: str) -> None:
        super().__init__()
        kernel = choose_attention(device)
        self.embedding = nn.Embedding(vocab_size, MODEL_DIM)
        self.attentions, self.mlps = nn.ModuleList(), nn.ModuleList()
        for i in range(DEPTH):
            short = WINDOW_PATTERN[i % len(WINDOW_PATTERN)] == "S" and i < DEPTH - 1
            values = nn.Embedding(vocab_size, MODEL_DIM) if (DEPTH - 1 - i) % 2 == 0 else None
            self.attentions.append(Attention(kernel, SHORT_WINDOW if short else None, values))
            self.mlps.append(MLP())
        self.head = nn.Linear(MODEL_DIM, vocab_size, bias=False)
        # Before block i the stream x becomes residual[i] * x + again[i] * (the embedding it began as).
        self.residual = nn.Parameter(torch.ones(DEPTH))
        self.again = nn.Parameter(torch.full((DEPTH,), EMBEDDING_RESIDUAL))
        self.reset()
        self.to(device)
        cos, sin = rotation(max_length, device)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @torch.no_grad()
    def reset(self) -> None:
        """Initial weights. Every block starts as a no-op: what it writes to the residual stream is 0."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(std=EMBEDDING_STD)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(std=module.in_features**-0.5)
        self.head.weight.normal_(std=UNEMBEDDING_STD)
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            attention.out.weight.zero_()
            mlp.down.weight.zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
            cos, sin = self.cos[: tokens.size(1)], self.sin[: tokens.size(1)]
            x = norm(self.embedding(tokens))
            x = start = x.bfloat16() if x.is_cuda else x  # the residual stream is most of the memory
            for i, (attention, mlp) in enumerate(zip(self.attentions, self.mlps, strict=True)):
                x = self.residual[i] * x + self.again[i] * start
                x = x + attention(norm(x), tokens, cos, sin)
                x = x + mlp(norm(x))
            logits = self.head(norm(x)).float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP)


# ---------------------------------------------------------------------------------------------------------------------
# Optimizers


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest matrix with all singular values near 1, for each of [n, rows, columns], by Newton-Schulz.

    A quintic tuned for speed, not precision (Keller Jordan, kellerjordan.github.io/posts/muon).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(MUON_NS_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, its neurons evened out by a second moment (NorMuon, arXiv 2510.05491).

    Weight decay acts only where it agrees with the step (arXiv 2510.12402). Matrices of one shape are one group and
    are handled as one stack.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float) -> None:
        shapes = sorted({matrix.shape for matrix in matrices})
        groups = [{"params": [matrix for matrix in matrices if matrix.shape == shape]} for shape in shapes]
        super().__init__(groups, {"lr": lr, "momentum": MUON_MOMENTUM, "weight_decay": WEIGHT_DECAY})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            matrices = group["params"]
            gradient = torch.stack([matrix.grad for matrix in matrices])
            state = self.state[matrices[0]]
            if not state:
                state["momentum"] = torch.zeros_like(gradient)
                state["neurons"] = torch.zeros_like(gradient[..., :1])
            momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            update = orthogonalise(gradient.lerp(momentum, group["momentum"]))
            size = update.norm(dim=(-2, -1), keepdim=True)
            neurons = state["neurons"].lerp_(update.square().mean(-1, keepdim=True), 1 - MUON_BETA2)
            update = update * neurons.clamp(min=1e-10).rsqrt()
            update *= size / update.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-10)
            lr = group["lr"] * max(1, update.size(-2) / update.size(-1)) ** 0.5
            weights = torch.stack(list(matrices))
            decayed = weights * (weights * update > 0) * group["weight_decay"]
            for matrix, change in zip(matrices, (update + decayed) * lr, strict=True):
                matrix -= change


def make_optimizers(model: GPT) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else; each group remembers its peak learning rate."""
    embeddings = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    gates = [attention.gate for attention in model.attentions if attention.gate is not None]
    matrices = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m is not model.head]
    scale = (MODEL_DIM / 768) ** -0.5  # what suits Adam falls with the width; Muon's steps are sized by the shape
    groups = [
        {"params": embeddings, "lr": EMBEDDING_LR * scale, "betas": ADAM_BETAS},
        {"params": [model.head.weight], "lr": UNEMBEDDING_LR * scale, "betas": ADAM_BETAS},
        {"params": [model.residual, *gates], "lr": SCALAR_LR * RESIDUAL_LR_FRAC, "betas": SCALAR_BETAS},
        {"params": [model.again], "lr": SCALAR_LR, "betas": SCALAR_BETAS},
    ]
    adamw = torch.optim.AdamW(groups, eps=ADAM_EPS, weight_decay=0.0, fused=True)
    optimizers = [Muon(matrices, MATRIX_LR), adamw]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_schedules(optimizers: list[torch.optim.Optimizer], step: int, progress: float) -> None:
    """Learning rates, Muon's momentum and weight decay for the coming step; progress in [0, 1] is the budget's."""
    up = min(1.0, progress / WARMUP_RATIO) if WARMUP_RATIO else 1.0
    down = min(1.0, (1 - progress) / WARMDOWN_RATIO) if WARMDOWN_RATIO else 1.0
    multiplier = up * (down + (1 - down) * FINAL_LR_FRAC)
    ramp = min(1.0, step / MUON_MOMENTUM_RAMP)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * multiplier
            if isinstance(optimizer, Muon):
                group["momentum"] = MUON_MOMENTUM_START + ramp * (MUON_MOMENTUM - MUON_MOMENTUM_START)
                group["weight_decay"] = WEIGHT_DECAY * (1 - progress)


# ---------------------------------------------------------------------------------------------------------------------
# Training


def warm_up(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizers: list[torch.optim.Optimizer],
    inputs: Tensor,
    targets: Tensor,
) -> None:
    """Compile and allocate everything one step needs, and leave weights and optimizers as they were.

    Takes tensors with the strides of a batch, as the compiled code holds only for those.
    """
    (0.0 * loss_of(inputs, targets)).backward()
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"]
        optimizer.state.clear()
        optimizer.zero_grad(set_to_none=True)


def main() -> None:
    """One trial: build, warm up, train until the budget is spent, be scored."""
    trial = prepare.trial()
    model = GPT(trial.profile.vocab_size, max(SEQUENCE_LENGTH, trial.profile.sequence_length), trial.device)
    optimizers = make_optimizers(model)
    data = batches(DEVICE_BATCH_SIZE, trial.seed, trial.device, SEQUENCE_LENGTH)  # there is none before trial.ready

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    if trial.device.startswith("cuda"):  # on a CPU compiling takes longer than the whole run
        torch.set_float32_matmul_precision("high")
        loss_of = torch.compile(loss_of, dynamic=False)
        blank = torch.zeros(DEVICE_BATCH_SIZE, SEQUENCE_LENGTH + 1, dtype=torch.int64, device=trial.device)
        warm_up(loss_of, optimizers, blank[:, :-1], blank[:, 1:])

    loss, step = None, 0
    trial.ready(model, optimizers)
    inputs, targets = next(data)
    while trial.more(tokens=TOTAL_BATCH_SIZE, loss=loss):
        set_schedules(optimizers, step, trial.progress)
        losses = []
        for _ in range(PASSES_PER_STEP):
            part = loss_of(inputs, targets) / PASSES_PER_STEP
            part.backward()
            losses.append(part.detach())
            inputs, targets = next(data)  # the GPU is still busy with the pass before
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(losses).sum().item()  # waits for the GPU, so that a step is charged for its own time
        step += 1
    trial.serve(model, depth=DEPTH)


if __name__ == "__main__":
    main()
