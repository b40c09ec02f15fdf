from __future__ import annotations

from itertools import combinations
from statistics import correlation, fmean, stdev

import pytest

from controller.backends.simulated import Truth, load
from controller.edits import set_knobs

KNOBS = [f"K{number}" for number in range(30)]
SOURCE = "import math\n" + "".join(f"{knob} = 0\n" for knob in KNOBS) + "def f(x):\n    return x\n"
IDEAS = [f"{knob}={level}" for knob in KNOBS for level in range(1, 31)]
EDITED = SOURCE.replace("return x", "return -x")
BUILT_IN = load()
SIGMA = BUILT_IN.truth.sigma


def truth(seed: int = 0, ideas: list[str] = IDEAS, **numbers: object) -> Truth:
    return Truth(BUILT_IN.with_truth(**numbers), seed, SOURCE, ideas)


def effects_of(one: Truth) -> list[float]:
    return [one.effect(idea) for idea in IDEAS]


def with_knobs(source: str = SOURCE, /, **knobs: int) -> str:
    return set_knobs(source, knobs)


def test_among_named_ideas_the_counts_hold_exactly() -> None:
    for seed in range(3):
        effects = effects_of(truth(seed))
        assert sum(-8 <= effect <= -3 for effect in effects) == 10
        assert sum(-1 <= effect <= -0.3 for effect in effects) == 60
        assert effects.count(0.0) == 270
        worse = [effect for effect in effects if effect > 0]
        assert len(worse) == 900 - 10 - 60 - 270
        assert fmean(effect**2 for effect in worse) ** 0.5 == pytest.approx(6, rel=0.02)


def test_in_the_null_world_no_change_is_better() -> None:
    effects = effects_of(truth(good={"count": 0}, slight={"count": 0}))
    assert min(effects) == 0
    assert effects.count(0.0) == 270


def test_without_names_the_counts_hold_on_average() -> None:
    anything = truth(ideas=[])
    effects = [anything.effect(f"X={number}") for number in range(20_000)]
    assert sum(effect <= -3 for effect in effects) / 20_000 == pytest.approx(10 / 900, rel=0.2)
    assert sum(-1 <= effect < 0 for effect in effects) / 20_000 == pytest.approx(60 / 900, rel=0.1)
    assert effects.count(0.0) / 20_000 == pytest.approx(0.3, rel=0.05)


def test_the_same_seed_is_the_same_world_and_another_is_another() -> None:
    source = with_knobs(K1=3, K2=5)

    def score(one: Truth) -> float:
        return one.score(one.nature(source), "H100", "machine 1", 7, "run", 100.0)

    assert score(truth(1)) == score(truth(1))
    assert score(truth(1)) != score(truth(2))
    assert effects_of(truth(1)) == effects_of(truth(1)) != effects_of(truth(2))


def test_a_candidate_is_what_it_differs_in_however_that_is_written() -> None:
    one = truth()
    assert one.nature(SOURCE).changes == ()
    assert one.nature(with_knobs(K3=5, K12=1)).changes == ("K12=1", "K3=5")
    assert one.nature(with_knobs(K3=5)).edit == ""
    edit = one.nature(EDITED)
    assert edit.changes == (f"edit {edit.edit}",)
    # The same edit with other knobs is the same change.
    assert one.nature(with_knobs(EDITED, K3=5)).changes == ("K3=5", f"edit {edit.edit}")
    assert one.nature(SOURCE.replace("return x", "return 2 * x")).edit not in ("", edit.edit)
    # Neither a knob that the baseline lacks nor one of another kind is a setting of the baseline's knobs.
    assert one.nature(SOURCE + "NEW = 1\n").edit
    assert one.nature(SOURCE.replace("K3 = 0", "K3 = 'a'")).edit
    assert one.nature("def f(:").edit


def test_a_score_is_expected_to_be_the_baselines_and_the_sum_of_effects() -> None:
    one = truth(interactions={"share": 0})
    assert one.expected(one.nature(SOURCE), "H100") == pytest.approx(0.9979)
    assert one.expected(one.nature(SOURCE), "H200") == pytest.approx(0.9929)
    nature = one.nature(with_knobs(K1=3, K2=5))
    effects = one.effect("K1=3") + one.effect("K2=5")
    assert one.expected(nature, "H100") == pytest.approx(0.9979 + SIGMA * effects)


def test_pairs_of_changes_interact_as_often_and_as_much_as_the_scenario_says() -> None:
    one, apart = truth(), truth(interactions={"share": 0})
    matter = [idea.split("=") for idea in IDEAS if one.effect(idea)][::7]
    differences = []
    for (knob, level), (other, its) in combinations(matter, 2):
        if knob != other:
            nature = one.nature(with_knobs(**{knob: int(level), other: int(its)}))
            differences.append((one.expected(nature, "H100") - apart.expected(nature, "H100")) / SIGMA)
    some = [difference for difference in differences if abs(difference) > 1e-9]
    assert len(some) / len(differences) == pytest.approx(0.1, abs=0.02)
    assert stdev(some) == pytest.approx(1, rel=0.1)


def test_a_change_does_something_else_on_another_accelerator_unless_it_does_nothing() -> None:
    one = truth()

    def elsewhere(idea: str) -> float:
        knob, level = idea.split("=")
        nature = one.nature(with_knobs(**{knob: int(level)}))
        offset = BUILT_IN.truth.offsets["H200"]
        return (one.expected(nature, "H200") - offset - one.expected(nature, "H100")) / SIGMA

    shifts = {idea: elsewhere(idea) for idea in IDEAS}
    assert all(abs(shift) < 1e-9 for idea, shift in shifts.items() if not one.effect(idea))
    matter = [abs(shift) for idea, shift in shifts.items() if one.effect(idea)]
    # 95 % with sd 0.5, 5 % with sd 2.
    assert fmean(shift**2 for shift in matter) == pytest.approx(0.95 * 0.5**2 + 0.05 * 2**2, rel=0.25)
    assert 0.005 < sum(shift > 2 for shift in matter) / len(matter) < 0.05


@pytest.mark.parametrize(("source", "expected"), [(with_knobs(K1=3), 0.3), (EDITED, 0.0)])
def test_runs_with_one_seed_go_up_and_down_together_where_candidates_differ_in_knobs_alone(
    source: str, expected: float
) -> None:
    one = truth()
    scores = [
        [one.score(one.nature(text), "H100", "machine 1", seed, f"{name}{seed}", 0.0) for seed in range(4000)]
        for name, text in (("a", SOURCE), ("b", source))
    ]
    assert correlation(*scores) == pytest.approx(expected, abs=0.05)
    assert [stdev(one) for one in scores] == pytest.approx([SIGMA, SIGMA], rel=0.05)


def test_candidates_with_the_same_edit_share_what_a_seed_does() -> None:
    one = truth()
    natures = [one.nature(EDITED), one.nature(with_knobs(EDITED, K1=3))]
    scores = [
        [one.score(nature, "H100", "machine 1", seed, f"{nature.name}{seed}", 0.0) for seed in range(4000)]
        for nature in natures
    ]
    assert correlation(*scores) == pytest.approx(0.3, abs=0.05)


def test_machines_differ_a_little_and_slow_ones_much() -> None:
    one = truth(noise=0)
    nature = one.nature(SOURCE)
    added = {
        machine: (one.score(nature, "H100", machine, 1, "run", 0.0) - 0.9979) / SIGMA
        for machine in (f"machine {number}" for number in range(2000))
    }
    slow = [extra for machine, extra in added.items() if one.is_slow(machine)]
    others = [extra for machine, extra in added.items() if not one.is_slow(machine)]
    assert len(slow) / len(added) == pytest.approx(1 / 16, rel=0.2)
    assert fmean(slow) - fmean(others) == pytest.approx(4, abs=0.1)
    assert stdev(others) == pytest.approx(0.2, rel=0.1)


def test_scores_drift_over_the_night() -> None:
    one = truth(noise=0, drift=2)
    evening, morning = (one.score(one.nature(SOURCE), "H100", "m", 1, "run", at) for at in (0.0, 8 * 3600.0))
    assert morning - evening == pytest.approx(2 * SIGMA)


def test_changes_that_crash_or_take_too_long_do_so_wherever_they_are() -> None:
    one = truth()

    def fate_of(*ideas: str) -> str:
        return one.nature(with_knobs(**{knob: int(level) for knob, level in (idea.split("=") for idea in ideas)})).fate

    fates = {idea: fate_of(idea) for idea in IDEAS}
    assert list(fates.values()).count("crash") / 900 == pytest.approx(0.15, abs=0.03)
    assert list(fates.values()).count("overtime") / 900 == pytest.approx(0.03, abs=0.015)
    assert fate_of() == ""
    for first, second in zip(IDEAS[:400], reversed(IDEAS), strict=False):
        both = {fates[first], fates[second]}
        expected = "crash" if "crash" in both else "overtime" if "overtime" in both else ""
        assert fate_of(first, second) == expected


def test_a_curve_ends_at_its_score_and_wanders_before() -> None:
    calm = truth(curve_noise=0)
    nature = calm.nature(with_knobs(K1=3))
    assert calm.loss(nature, 0.99, "run", 1.0) == pytest.approx(0.99)
    losses = [calm.loss(nature, 0.99, "run", fraction / 10) for fraction in range(11)]
    assert losses == sorted(losses, reverse=True)
    # A candidate's runs wander together, the baseline's not at all.
    halfway = [calm.loss(nature, 0.99, f"run {number}", 0.5) for number in range(3)]
    assert len(set(halfway)) == 1
    straight = calm.loss(calm.nature(SOURCE), 0.99, "run", 0.5)
    wandering = [calm.loss(calm.nature(with_knobs(K1=level)), 0.99, "run", 0.5) - straight for level in range(1, 400)]
    assert stdev(wandering) == pytest.approx(2 * SIGMA, rel=0.1)
    rough = truth()
    noisy = [rough.loss(nature, 0.99, f"run {number}", 0.5) for number in range(500)]
    assert stdev(noisy) == pytest.approx(4 * SIGMA, rel=0.1)
