"""The two sizes of the task: `tiny` learns Jane Austen on one CPU core in seconds, `full` is five minutes of a GPU.

A profile fixes what must be equal for two scores to be comparable: corpus, vocabulary, row length, budget, evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PROFILE = "full"


@dataclass(frozen=True)
class Budget:
    """What one trial may spend. A limit that is None does not apply; exactly one of `tokens` and `seconds` is set.

    tokens: training tokens, spent to the last one. The rule on CPUs, where wall clocks depend on the neighbours.
    seconds: wall-clock seconds of training. The rule on GPUs.
    cpu_seconds: CPU seconds of the trainer's process from ready to the end of training, so that under a token budget
        a bigger model is not free.
    warmup_seconds: wall-clock seconds from the process's start until it is ready: imports, compilation.
    """

    tokens: int | None
    seconds: float | None
    cpu_seconds: float | None
    warmup_seconds: float

    def __post_init__(self) -> None:
        if (self.tokens is None) == (self.seconds is None):
            raise ValueError("a budget is counted in tokens or in seconds: set exactly one of them")


@dataclass(frozen=True)
class Profile:
    """One size of the task.

    corpus: "austen" (vendored) or "climbmix" (downloaded). train_shards counts climbmix shards, and is 0 for austen.
    vocab_size: tokens, the special ones included. sequence_length: tokens in a row of the evaluation.
    eval_tokens: validation tokens scored, a multiple of sequence_length.
    floor: bits per byte that no honest model reaches within the budget, by a wide margin.
    knobs: values of train.py's knobs that suit this profile where train.py's own do not.
    """

    name: str
    corpus: str
    train_shards: int
    vocab_size: int
    sequence_length: int
    eval_tokens: int
    floor: float
    budget: Budget
    knobs: dict[str, bool | int | float | str | tuple[float, ...]] = field(default_factory=dict)


TINY = Profile(
    name="tiny",
    corpus="austen",
    train_shards=0,
    vocab_size=512,
    sequence_length=64,
    eval_tokens=2**15,
    floor=1.2,
    # The baseline takes 7 to 8 CPU seconds on a server core of the 2020s, DEPTH 3 takes 16; a bigger model is not free.
    budget=Budget(tokens=2**18, seconds=None, cpu_seconds=24.0, warmup_seconds=60.0),
    knobs={
        "SEQUENCE_LENGTH": 64,
        "DEPTH": 2,
        "ASPECT_RATIO": 32,
        "HEAD_DIM": 32,
        "WINDOW_PATTERN": "SL",
        "TOTAL_BATCH_SIZE": 2**10,
        "DEVICE_BATCH_SIZE": 16,
    },
)

# All logits go to the evaluator through shared memory: 2**19 tokens of 8192 float32 are 17 GB. `bench/scoring.py` shows
# what that takes; a GPU's own share of it has not been measured. The aim is under 5 % of the training time.
FULL = Profile(
    name="full",
    corpus="climbmix",
    train_shards=10,
    vocab_size=8192,
    sequence_length=2048,
    eval_tokens=2**19,
    floor=0.5,
    budget=Budget(tokens=None, seconds=300.0, cpu_seconds=None, warmup_seconds=240.0),
)

PROFILES = {profile.name: profile for profile in (TINY, FULL)}
CURRENT = PROFILES[PROFILE]
