"""A run for a part of the budget: what it may spend, and what takes as long as ever."""

from __future__ import annotations

import json
import subprocess

import pytest

from controller.harness.limits import Limits, part_of
from prepare.profile import FULL, TINY, Budget
from tests.harness.attempts import Attempts

OTHER_STEPS = "ready()\nwhile step(tokens=2**12)['go']: pass\nserve()\n"
TOLD = "ready(); print('told', json.dumps(TERMS['budget'])); train(); serve()\n"


def test_a_share_of_the_tokens_is_trained_for_and_the_result_says_how_many(attempts: Attempts) -> None:
    ran = attempts.evaluated(TOLD, share=0.25)
    assert ran.ending == ("done", "")
    assert ran.metrics["total_tokens_M"] == 2**16 / 1e6
    assert ran.metrics["num_steps"] == 1
    assert ran.result["budget"] == "65536 tokens, 5 CPU s"
    (told,) = (line for line in ran.output.splitlines() if line.startswith("| told "))
    expected = {"tokens": 2**16, "seconds": None, "cpu_seconds": 5.0, "warmup_seconds": 60.0}
    assert json.loads(told.removeprefix("| told ")) == expected


def test_a_crooked_share_is_spent_to_its_last_token(attempts: Attempts) -> None:
    ran = attempts.evaluated(OTHER_STEPS, share=0.3)
    tokens = ran.metrics["total_tokens_M"] * 1e6
    assert ran.result["budget"] == f"{tokens:.0f} tokens, 6 CPU s"
    assert 0.28 * 2**18 < tokens <= 0.3 * 2**18


def test_a_share_of_the_seconds_is_trained_for(attempts: Attempts) -> None:
    profile = {"budget=Budget(tokens=2**18, seconds=None, cpu": "budget=Budget(tokens=None, seconds=40.0, cpu"}
    ran = attempts.evaluated(OTHER_STEPS, profile, share=0.01)
    assert ran.ending == ("done", "")
    assert ran.result["budget"] == "0.4 s, 0.2 CPU s"
    assert 0.4 <= ran.metrics["training_seconds"] < 4.4


def test_getting_ready_may_take_as_long_as_ever_and_training_may_not(attempts: Attempts) -> None:
    """A hundredth of the CPU seconds: 0.07 of them until ready, were they scaled too, and 0.2 from then on."""
    busy = "while time.process_time() < {}: pass\n"
    assert attempts.evaluated(busy.format(1.0) + OTHER_STEPS, share=0.01).ending == ("done", "")
    ran = attempts.evaluated("ready(); step(tokens=1)\n" + busy.format(2.0) + "step(tokens=1); serve()\n", share=0.01)
    assert ran.ending[0] == "overtime"


@pytest.mark.parametrize("share", [0, -0.5, 1.5, "nan"])
def test_a_share_that_is_none_is_refused(attempts: Attempts, share: float | str) -> None:
    with attempts.started(attempts.speaker(OTHER_STEPS, share=float(share)), stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert process.wait() == 1


@pytest.mark.parametrize("budget", [TINY.budget, FULL.budget])
def test_the_whole_share_is_the_budget_itself(budget: Budget) -> None:
    assert part_of(budget, 1.0) is budget


def test_a_share_of_any_number_of_tokens_is_at_least_a_part_of_it_and_never_too_much() -> None:
    for tokens in (1, 63, 100, 1000, 2**18):
        for share in (1e-9, 0.01, 0.1, 1 / 3, 0.999):
            part = part_of(Budget(tokens, None, None, 60.0), share).tokens
            assert part is not None
            assert 1 <= part <= tokens
            assert part <= max(tokens * share, tokens / 64, 1)


def test_what_does_not_become_less_with_the_budget_is_held_to_the_whole() -> None:
    for budget in (TINY.budget, FULL.budget):
        whole, part = Limits(budget, 1.0), Limits(budget, 0.1)
        assert part.budget.warmup_seconds == whole.budget.warmup_seconds
        assert part.warmup_cpu == whole.warmup_cpu
        assert (part.settle_seconds, part.settle_cpu) == (whole.settle_seconds, whole.settle_cpu)
        assert part.evaluation_seconds == whole.evaluation_seconds
        assert part.evaluation_cpu(2.0, 2**14, 2**17) == whole.evaluation_cpu(2.0, 2**14, 2**17)


def test_the_limits_of_a_whole_budget() -> None:
    full, tiny = Limits(FULL.budget, 1.0), Limits(TINY.budget, 1.0)
    assert (full.training_seconds, full.settle_seconds, full.evaluation_seconds) == (330.0, 6.0, 75.0)
    assert (full.warmup_cpu, full.training_cpu(0.5), full.settle_cpu, full.evaluation_cpu(1, 1, 1)) == (None,) * 4
    assert (tiny.training_seconds, tiny.settle_seconds, tiny.evaluation_seconds) == (None, 30.0, 300.0)
    assert (tiny.warmup_cpu, tiny.settle_cpu) == (pytest.approx(8.4), pytest.approx(0.48))
    assert [tiny.training_cpu(progress) for progress in (0.0, 0.5, 0.9)] == [6.0, 18.0, 24.0]
    assert tiny.evaluation_cpu(8.0, 2**18, 2**17) == 4.5
    assert tiny.evaluation_cpu(20.0, 2**18, 2**17) == tiny.evaluation_cpu(0.0, 0, 2**17) == 6.0


def test_the_limits_of_a_part() -> None:
    full, tiny = Limits(FULL.budget, 0.1), Limits(TINY.budget, 0.5)
    assert (full.training_seconds, str(full)) == (60.0, "30 s")
    assert [tiny.training_cpu(progress) for progress in (0.0, 0.25, 0.9)] == [6.0, 9.0, 12.0]
    assert str(tiny) == "131072 tokens, 12 CPU s"
