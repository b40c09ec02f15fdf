"""Rewrites of how training is carried out: its precision, memory, batches, threads and files."""

from __future__ import annotations

from controller.edits import set_knobs
from tests.rewrites.rewriting import replaced, with_definition, with_knobs

BATCHES = "batches(DEVICE_BATCH_SIZE, trial.seed, trial.device, SEQUENCE_LENGTH)"


def mixed_precision(source: str) -> str:
    """Matrices are multiplied in bfloat16 on a CPU as well."""
    return replaced(
        source,
        {
            "torch.bfloat16, enabled=tokens.is_cuda)": "torch.bfloat16)",
            "x.bfloat16() if x.is_cuda else x ": "x.bfloat16() ",
        },
    )


def gradient_checkpointing(source: str) -> str:
    """The inside of a block is computed again on the way back rather than kept."""
    return replaced(
        source,
        {
            "from torch import Tensor, nn\n": """
                from torch import Tensor, nn
                from torch.utils.checkpoint import checkpoint

            """,
            "attention(norm(x), tokens, cos, sin)": (
                "checkpoint(attention, norm(x), tokens, cos, sin, use_reentrant=False)"
            ),
            "mlp(norm(x))": "checkpoint(mlp, norm(x), use_reentrant=False)",
        },
    )


def growing_batches(source: str) -> str:
    """Steps begin with half the batch and end with twice as much; the last one takes what is left of the budget."""
    passes = '''
        def passes_in_step(budget: Budget, progress: float, taken: int) -> int:
            """How many passes the step after `taken` of them has: no more than are left, but one at least."""
            wanted = round(PASSES_PER_STEP * (FIRST_BATCH + (LAST_BATCH - FIRST_BATCH) * progress))
            left = wanted if budget.tokens is None else budget.tokens // TOKENS_PER_PASS - taken
            return max(1, min(wanted, left))
    '''
    knobs = """
        FIRST_BATCH = 0.5  # size of the first step, in TOTAL_BATCH_SIZE
        LAST_BATCH = 2.0  # size that steps have grown to by the end, in TOTAL_BATCH_SIZE
    """
    source = with_definition(with_knobs(set_knobs(source, {"DEVICE_BATCH_SIZE": 4}), knobs), "main", passes)
    return replaced(
        source,
        {
            "from prepare.loader import batches\n": """
                from prepare.loader import batches
                from prepare.profile import Budget

            """,
            "loss, step = None, 0": "loss, step, taken, passes = None, 0, 0, passes_in_step(trial.budget, 0.0, 0)",
            "trial.more(tokens=TOTAL_BATCH_SIZE,": "trial.more(tokens=passes * TOKENS_PER_PASS,",
            "for _ in range(PASSES_PER_STEP):": "for _ in range(passes):",
            "loss_of(inputs, targets) / PASSES_PER_STEP": "loss_of(inputs, targets) / passes",
            "step += 1": """
                step, taken = step + 1, taken + passes
                passes = passes_in_step(trial.budget, trial.progress, taken)
            """,
        },
    )


def prefetching_thread(source: str) -> str:
    """A thread in the background reads the coming batches while the present one is trained on."""
    prefetched = '''
        def prefetched(data: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
            """The same batches, read ahead by a thread that starts when the first one is asked for."""
            waiting: queue.Queue[tuple[Tensor, Tensor]] = queue.Queue(BATCHES_AHEAD)

            def read() -> None:
                for batch in data:
                    waiting.put(batch)

            threading.Thread(target=read, daemon=True).start()
            while True:
                yield waiting.get()
    '''
    source = with_definition(source, "main", prefetched)
    return replaced(
        with_knobs(source, "BATCHES_AHEAD = 4  # batches that are read before they are needed"),
        {
            "import inspect\nimport sys\n": """
                import inspect
                import queue
                import sys
                import threading

            """,
            "from collections.abc import Callable\n": "from collections.abc import Callable, Iterator\n",
            f"data = {BATCHES}": f"data = prefetched({BATCHES})",
        },
    )


def checkpoint_files(source: str) -> str:
    """Checkpoints are written to the working directory, and the mean of the last ones is served (arXiv 2209.14981)."""
    mean = '''
        def mean_of(paths: list[Path]) -> dict[str, Tensor]:
            """The mean of the weights in these files."""
            states = [torch.load(path, weights_only=True) for path in paths]
            return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    '''
    knobs = """
        CHECKPOINT_EVERY = 1  # steps from one checkpoint to the next
        CHECKPOINTS = 3  # how many of them are averaged
    """
    return replaced(
        with_knobs(with_definition(source, "main", mean), knobs),
        {
            "step += 1": """
                step += 1
                if step % CHECKPOINT_EVERY == 0:
                    torch.save(model.state_dict(), f"checkpoint-{step // CHECKPOINT_EVERY % CHECKPOINTS}.pt")
            """,
            "trial.serve(model, depth=DEPTH)": """
                model.load_state_dict(mean_of(sorted(Path().glob("checkpoint-*.pt"))))
                trial.serve(model, depth=DEPTH)
            """,
        },
    )
