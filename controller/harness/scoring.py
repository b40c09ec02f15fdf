"""Asks a trainer that serves what an examination wants to know, and makes a score of its answers.

prepare/ is imported from the bundle, so only once its code has been checked.
"""

from __future__ import annotations

import math
import os
from statistics import median
from typing import TYPE_CHECKING, Any

from .failure import Failure
from .probes import Caught, Examination, Question
from .processes import cpu_seconds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOGITS_AT_ONCE = 2**22
ROWS_AT_ONCE = 4
"""At least, however many logits they have: a GPU has little to do with one."""
FIRST_ANSWER = (0.5, 4.0)
"""CPU seconds, and multiples of the usual, that the first answer may take under a budget of CPU seconds.

Under a wall clock there is no such bound: a compiled model may compile anew for rows of another shape.
"""


class Scoring:
    """The rows of the evaluation with their targets and all that the score depends on, loaded before a trainer starts.

    Raises ImportError where prepare/ can't be imported, and OSError, ValueError or KeyError where its data can't be
    read.
    """

    def __init__(self) -> None:
        import numpy as np

        from prepare import dataset, evaluation, memory, wire
        from prepare.profile import CURRENT

        self._evaluation, self._wire, self._profile = evaluation, wire, CURRENT
        directory = dataset.location()
        self._score = evaluation.Score(np.load(directory / "token_bytes.npy"))
        inputs, self._targets = evaluation.rows(CURRENT, directory)
        random = np.random.default_rng(int.from_bytes(os.urandom(16), "big"))
        spare = evaluation.between(CURRENT, directory)
        self._examination = Examination(inputs, self._targets, spare, CURRENT.vocab_size, random)
        logits_in_a_row = CURRENT.sequence_length * CURRENT.vocab_size
        self._rows = min(max(ROWS_AT_ONCE, LOGITS_AT_ONCE // logits_in_a_row), len(inputs))
        self._portions: list[list[Question]] = []
        # Two halves: while one is scored, the trainer writes to the other.
        self._half = 4 * self._rows * logits_in_a_row
        self.shared = memory.make(2 * self._half)
        self._memory = None if self.shared is None else memory.Memory(self.shared, 2 * self._half)

    @property
    def terms(self) -> dict[str, Any]:
        """What a trainer is told of where its logits go: a descriptor, and its bytes."""
        return {} if self.shared is None else {"memory": [self.shared, 2 * self._half]}

    def close(self) -> None:
        """Let go of the shared memory's descriptor, once the trainer has it or is gone."""
        if self.shared is not None:
            os.close(self.shared)
            self.shared = None

    def prepare(self) -> None:
        """Write down the questions, which takes a moment."""
        self._portions = list(self._examination.portions(self._rows))

    def score(self, to_trainer: int, from_trainer: int, pid: int) -> float:
        """Bits per byte. Raises Failure, and what wire raises."""
        spent: list[float] = []
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        begin = cpu_seconds(pid)
        self._ask(to_trainer, 0)
        for number, questions in enumerate(self._portions):
            logits = self._hear(from_trainer, number)
            spent.append(cpu_seconds(pid) - begin)
            begin += spent[-1]
            if number + 1 < len(self._portions):
                self._ask(to_trainer, number + 1)  # it works while we do
            self._judge(questions, logits, threads)
        first, usual = spent[0], median(spent[1:] or spent)
        if self._profile.budget.cpu_seconds is not None and first > FIRST_ANSWER[0] + FIRST_ANSWER[1] * usual:
            raise Failure("overtime", f"its first answer took {first:.1f} CPU s, the others {usual:.1f}")
        try:
            self._examination.conclude()
        except Caught as caught:
            raise Failure(caught.label, str(caught)) from None
        self._score.add_nats(self._examination.nats, self._targets)
        found = float(self._score.bits_per_byte)
        if found < self._profile.floor:
            raise Failure("implausible", f"{found:.6f} bits per byte are fewer than any model can reach")
        return found

    @property
    def tokens(self) -> int:
        """How many tokens will be asked, probes included."""
        return sum(len(questions) for questions in self._portions) * self._profile.sequence_length

    @property
    def leak_evidence(self) -> float:
        """The log of how much likelier than chance the trainer foresaw what it could not know; see probes.py."""
        return self._examination.evidence

    def _shape(self, number: int) -> tuple[int, int, int]:
        return len(self._portions[number]), self._profile.sequence_length, self._profile.vocab_size

    def _offset(self, number: int) -> int:
        return number % 2 * self._half

    def _ask(self, to_trainer: int, number: int) -> None:
        import numpy as np

        rows = np.stack([question.tokens[:-1] for question in self._portions[number]]).astype("<u2")
        count, length, vocabulary = self._shape(number)
        header = {"type": "rows", "rows": count, "length": length}
        if self._memory is not None:
            header |= {"vocabulary": vocabulary, "at": self._offset(number)}
        self._wire.send(to_trainer, header, rows.data)

    def _hear(self, from_trainer: int, number: int) -> NDArray[np.float32]:
        """The logits, in the answer itself or in the memory that is shared, which the trainer may go on writing to."""
        import numpy as np

        shape = self._shape(number)
        header, payload = self._wire.receive(from_trainer, limit=4 * math.prod(shape))
        if header.get("type") == "logits" and header.get("shape") == list(shape):
            if len(payload) == 4 * math.prod(shape):
                return np.frombuffer(payload, "<f4").reshape(shape)
            if self._memory is not None and not payload and header.get("at") == self._offset(number):
                shared: NDArray[np.float32] = self._memory.floats(self._offset(number), shape)
                return shared
        raise Failure("tampered", f"it answered with something else where logits of shape {list(shape)} were asked")

    def _judge(self, questions: list[Question], logits: NDArray[np.float32], threads: int) -> None:
        import numpy as np

        targets = np.stack([self._examination.targets_of(question) for question in questions])
        try:
            nats = self._evaluation.cross_entropy(logits, targets, threads)
        except self._evaluation.BadLogits as error:
            raise Failure("diverged", str(error)) from None
        for question, answer in zip(questions, nats, strict=True):
            self._examination.answer(question, answer)
