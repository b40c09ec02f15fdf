from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.journal.reading import Result
from controller.promotion import (
    CONCURRENT_SECONDS,
    Block,
    Rules,
    blocks,
    decide,
    gate_failures,
    noise_of,
    promoted,
    replicate_noise,
    reproduction_interval,
)
from controller.records import Experiment, Label, Role, Tier, Verdict
from controller.settings import parse_gate

CONTROL = "c0000"
NAMES = {f"c{number:04d}": f"candidate {number}" for number in range(20)}


def ran(
    candidate: str,
    score: float | None,
    seed: int = 1,
    tier: Tier = Tier.SCREENING,
    accelerator: str | None = "H100",
    status: str = "",
) -> Result:
    other = Role.CELL if tier is Tier.SCREENING else Role.CONFIRMATION
    role = Role.CONTROL if candidate == CONTROL else other
    experiment = Experiment(f"{candidate}-{tier}-{seed}-{accelerator}", "w01", candidate, role, tier, seed)
    ended = status or ("done" if score is not None else "crash")
    return Result(experiment, ended, score, accelerator, "cluster", 1, "why not", {}, "", False)


def confirmed(candidate: str, scores: Sequence[float | None], accelerator: str = "H200") -> list[Result]:
    return [ran(candidate, score, 501 + place, Tier.CONFIRMATION, accelerator) for place, score in enumerate(scores)]


def rules(minimize: bool = True, min_effect: float = 0.001, refused: Mapping[str, str] | None = None) -> Rules:
    return Rules("val_bpb", minimize, min_effect, NAMES, refused or {})


def failures(gate: str, *values: float | None, tier: Tier = Tier.SCREENING) -> dict[str, str]:
    """What `gate` says of c0001, each of whose runs in `tier` reports one of these accuracies."""
    runs = [ran("c0001", 0.5, seed, tier) for seed in range(len(values))]
    measured = {
        run.experiment.id: {} if value is None else {"accuracy": value} for run, value in zip(runs, values, strict=True)
    }
    return gate_failures(runs, measured, [parse_gate(gate)], tier)


def test_only_cells_better_than_the_controls_beside_them_are_promoted_best_first() -> None:
    results = [
        ran(CONTROL, 1.00, 1),
        ran("c0001", 0.97),
        ran("c0002", 1.02),
        ran("c0003", 0.95),
        ran("c0004", 1.01),
        ran(CONTROL, 1.02, 2),
    ]
    assert promoted(results, CONTROL, True, 3) == ["c0003", "c0001"], "c0004 is only as good as the controls' mean"
    assert promoted(results, CONTROL, True, 1) == ["c0003"]
    assert promoted(results, CONTROL, False, 3) == ["c0002"]


def test_a_cell_that_failed_on_any_seed_is_not_promoted() -> None:
    results = [
        ran(CONTROL, 1.0),
        ran("c0001", 0.5, 1),
        ran("c0001", None, 2),
        ran("c0002", None, 1, status="out_of_memory"),
        ran("c0003", None, 1, status="lost"),
        ran("c0004", 0.9),
    ]
    assert promoted(results, CONTROL, True, 9) == ["c0004"]


def test_a_pruned_candidate_is_not_promoted() -> None:
    results = [ran(CONTROL, 1.0), ran("c0001", None, status="pruned"), ran("c0002", 0.9)]
    assert promoted(results, CONTROL, True, 9) == ["c0002"]
    results += [ran("c0003", 0.5, 1), ran("c0003", None, 2, status="pruned")]
    assert promoted(results, CONTROL, True, 9) == ["c0002"], "one seed of it was clearly worse"


def test_cells_are_compared_with_controls_on_their_own_accelerator() -> None:
    results = [
        ran(CONTROL, 1.0, 1, accelerator="H100"),
        ran(CONTROL, 0.5, 2, accelerator="B200"),
        ran("c0001", 0.9, accelerator="H100"),
        ran("c0002", 0.6, accelerator="B200"),
        ran("c0003", 0.1, accelerator="A100"),
    ]
    assert promoted(results, CONTROL, True, 9) == ["c0001"], "c0003 has no control beside it"


def test_nothing_is_promoted_where_no_control_gave_a_score() -> None:
    assert promoted([ran(CONTROL, None), ran("c0001", 0.5)], CONTROL, True, 3) == []
    assert promoted([], CONTROL, True, 3) == []


def test_confirmation_scores_promote_nobody() -> None:
    results = [ran(CONTROL, 1.0), *confirmed(CONTROL, [2.0]), *confirmed("c0001", [0.1])]
    assert promoted(results, CONTROL, True, 3) == []


scores = st.floats(0.5, 1.5).map(lambda score: round(score, 3))


@given(controls=st.lists(scores, min_size=1, max_size=5), cells=st.lists(scores, max_size=12), most=st.integers(1, 5))
def test_promotion_takes_the_best_and_no_more_than_it_may(controls: list[float], cells: list[float], most: int) -> None:
    results = [ran(CONTROL, score, seed) for seed, score in enumerate(controls)]
    results += [ran(f"c{number:04d}", score) for number, score in enumerate(cells, 1)]
    chosen = [cells[int(name[1:]) - 1] for name in promoted(results, CONTROL, True, most)]
    beside = sum(controls) / len(controls)
    better = sorted(score for score in cells if score < beside - 1e-9)
    assert len(chosen) <= most
    assert chosen[: len(better)] == better[:most]


def test_a_clear_winner_is_kept_with_its_evidence() -> None:
    results = [*confirmed(CONTROL, [1.0, 1.1, 1.05]), *confirmed("c0001", [0.9, 1.001, 0.951])]
    (decision,) = decide("w01", results, [], CONTROL, rules())
    assert decision.verdict is Verdict.KEEP and decision.accelerator == "H200"
    assert decision.change == pytest.approx(-0.0993, abs=1e-4)
    assert decision.low is not None and decision.high is not None
    assert decision.low < decision.change < decision.high < 0
    assert (decision.seeds, decision.scores) == ((501, 502, 503), (0.9, 1.001, 0.951))
    assert decision.control_scores == (1.0, 1.1, 1.05)
    assert decision.sentence.startswith("keep candidate 1: val_bpb 1.050000 → 0.950667, change -0.099333 (95% interval")


def test_screening_scores_never_enter_a_decision() -> None:
    confirmation = [*confirmed(CONTROL, [1.0, 1.1, 1.05]), *confirmed("c0001", [0.9, 1.001, 0.951])]
    screening = [
        *(ran("c0001", 0.0001, seed, accelerator="H200") for seed in range(1, 9)),
        *(ran(CONTROL, 9.9, seed, accelerator="H200") for seed in (501, 502, 601)),
        ran("c0002", 0.0001, accelerator="H200"),
    ]
    alone = decide("w01", confirmation, [], CONTROL, rules())
    assert decide("w01", [*screening, *confirmation], [], CONTROL, rules()) == alone
    assert blocks([*screening, *confirmation], CONTROL) == blocks(confirmation, CONTROL)


def test_at_most_one_candidate_is_kept_and_the_others_are_told_who_beat_them() -> None:
    results = [
        *confirmed(CONTROL, [1.0, 1.1, 1.05]),
        *confirmed("c0001", [0.90, 1.001, 0.95]),
        *confirmed("c0002", [0.80, 0.901, 0.85]),
        *confirmed("c0003", [1.2, 1.301, 1.25]),
    ]
    decisions = decide("w01", results, [], CONTROL, rules())
    assert [(one.candidate, one.verdict) for one in decisions] == [
        ("c0002", Verdict.KEEP),
        ("c0001", Verdict.DISCARD),
        ("c0003", Verdict.DISCARD),
    ]
    assert decisions[1].sentence.startswith("discard candidate 1:")
    assert decisions[1].sentence.endswith("; c0002 is better still")


def test_a_metric_to_be_maximized_keeps_what_is_higher() -> None:
    results = [*confirmed(CONTROL, [0.5, 0.6]), *confirmed("c0001", [0.7, 0.801]), *confirmed("c0002", [0.3, 0.401])]
    decisions = decide("w01", results, [], CONTROL, rules(minimize=False))
    assert [(one.candidate, one.verdict) for one in decisions] == [
        ("c0001", Verdict.KEEP),
        ("c0002", Verdict.DISCARD),
    ]


@pytest.mark.parametrize("label", [Label.CRASH, Label.DIVERGED, Label.OUT_OF_MEMORY, Label.TAMPERED])
def test_a_candidate_that_fails_once_in_confirmation_is_discarded(label: Label) -> None:
    results = [
        *confirmed(CONTROL, [1.0, 1.1, 1.05]),
        *confirmed("c0001", [0.1, 0.2]),
        ran("c0001", None, 503, Tier.CONFIRMATION, "H200", label.value),
    ]
    (decision,) = decide("w01", results, [], CONTROL, rules())
    assert decision.verdict is Verdict.DISCARD and decision.change is None and decision.scores == ()
    assert decision.sentence == f"discard candidate 1: {label} in confirmation (why not)"


def test_a_run_that_the_infrastructure_lost_is_not_held_against_its_candidate() -> None:
    lost = ran("c0001", None, 503, Tier.CONFIRMATION, None, "lost")
    results = [*confirmed(CONTROL, [1.0, 1.1, 1.05]), *confirmed("c0001", [0.9, 1.001]), lost]
    results += confirmed("c0002", [1.01, 1.1, 1.06])
    kept, _ = decide("w01", results, [], CONTROL, rules())
    assert (kept.candidate, kept.verdict, kept.seeds) == ("c0001", Verdict.KEEP, (501, 502))


def test_a_candidate_of_which_nothing_came_back_is_undecided() -> None:
    lost = [ran("c0001", None, seed, Tier.CONFIRMATION, None, "lost") for seed in (501, 502)]
    for controls in ([], confirmed(CONTROL, [1.0, 1.1])):
        (decision,) = decide("w01", [*controls, *lost], [], CONTROL, rules())
        assert decision.verdict is Verdict.INCONCLUSIVE and decision.change is None
        assert decision.sentence == "inconclusive candidate 1: no run of it has a control with the same seed beside it"


def test_scores_count_only_where_the_control_has_the_same_seed() -> None:
    controls = confirmed(CONTROL, [1.0, 1.1, 1.05, 1.07])
    controls[1] = ran(CONTROL, None, 502, Tier.CONFIRMATION, "H200")
    results = [*controls, *confirmed("c0001", [0.9, 0.0, 0.951, 0.97])]
    (decision,) = decide("w01", results, [], CONTROL, rules())
    assert decision.seeds == (501, 503, 504) and 0.0 not in decision.scores


def test_one_pair_alone_decides_nothing() -> None:
    results = [*confirmed(CONTROL, [1.0]), *confirmed("c0001", [0.5])]
    (decision,) = decide("w01", results, [], CONTROL, rules())
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert decision.change == -0.5 and decision.low is None
    assert "with no interval" in decision.sentence


def test_noise_known_from_earlier_waves_serves_where_this_wave_has_too_little() -> None:
    results = [*confirmed(CONTROL, [1.0]), *confirmed("c0001", [0.5])]
    scores = {CONTROL: {1: 1.0, 2: 1.1, 3: 1.2}, "c0009": {1: 0.9, 2: 1.01, 3: 1.1}}
    earlier = Block("H200", CONTROL, scores)
    (decision,) = decide("w02", results, [earlier], CONTROL, rules())
    assert decision.verdict is Verdict.KEEP
    elsewhere = Block("H100", CONTROL, scores)
    (decision,) = decide("w02", results, [elsewhere], CONTROL, rules())
    assert decision.verdict is Verdict.INCONCLUSIVE, "noise of another accelerator says nothing"


def test_a_candidate_on_two_accelerators_is_judged_where_it_has_most_pairs_and_never_across() -> None:
    results = [
        *confirmed(CONTROL, [1.0, 1.1, 1.05], "H200"),
        *confirmed("c0001", [0.9, 1.001, 0.951], "H200"),
        *confirmed(CONTROL, [3.0], "H100"),
        *confirmed("c0001", [0.1], "H100"),
    ]
    (decision,) = decide("w01", results, [], CONTROL, rules())
    assert decision.accelerator == "H200" and decision.scores == (0.9, 1.001, 0.951)


def test_an_improvement_smaller_than_the_least_effect_is_not_kept() -> None:
    results = [*confirmed(CONTROL, [1.0, 1.1, 1.05]), *confirmed("c0001", [0.99, 1.0901, 1.0401])]
    (kept,) = decide("w01", results, [], CONTROL, rules(min_effect=0.005))
    (refused,) = decide("w01", results, [], CONTROL, rules(min_effect=0.05))
    assert (kept.verdict, refused.verdict) == (Verdict.KEEP, Verdict.DISCARD)


def test_nothing_confirmed_is_nothing_decided() -> None:
    assert decide("w01", [ran(CONTROL, 1.0), ran("c0001", 0.5)], [], CONTROL, rules()) == []


def test_the_interval_for_a_reproduction_holds_the_scores_it_came_from() -> None:
    results = [*confirmed(CONTROL, [1.0, 1.1, 1.05]), *confirmed("c0001", [0.9, 1.001, 0.951])]
    (decision,) = decide("w01", results, [], CONTROL, rules())
    noise = replicate_noise(blocks(results, CONTROL), "H200")
    low, high = reproduction_interval(decision, noise)
    assert low < sum(decision.scores) / 3 < high
    assert reproduction_interval(decision, None) == (0.9, 1.001)
    assert noise_of(blocks(results, CONTROL), "H100") is None


@pytest.mark.parametrize("tier", Tier)
def test_a_gate_asks_for_the_mean_and_not_for_every_run(tier: Tier) -> None:
    assert failures("accuracy >= 0.96", 0.94, 0.99, tier=tier) == {}
    assert failures("accuracy >= 0.96", 0.94, 0.962, tier=tier) == {"c0001": "accuracy 0.951 is not >= 0.96"}
    assert failures("accuracy < 80000", 79000, 81000, tier=tier) == {"c0001": "accuracy 80000 is not < 80000"}


def test_a_mean_on_the_bound_is_on_it_in_decimals() -> None:
    assert failures("accuracy >= 0.93", 0.90, 0.94, 0.95) == {}, "whose mean is less in binary"
    assert failures("accuracy <= 0.1", 0.1, 0.1, 0.1) == {}


def test_a_mean_that_misses_by_little_is_not_rounded_onto_the_bound() -> None:
    assert failures("accuracy >= 0.96", 0.95999999) == {"c0001": "accuracy 0.95999999 is not >= 0.96"}


def test_a_run_that_lacks_a_gate_s_metric_fails_it() -> None:
    assert failures("accuracy >= 0", 0.9, None) == {"c0001": "it reports no accuracy"}


def test_every_gate_that_fails_is_named() -> None:
    gates = [parse_gate(text) for text in ("accuracy >= 0.96", "loss < 1", "peak_vram_mb < 80000")]
    measured = {ran("c0001", 0.5).experiment.id: {"accuracy": 0.9, "loss": 0.5}}
    said = gate_failures([ran("c0001", 0.5)], measured, gates, Tier.SCREENING)
    assert said == {"c0001": "accuracy 0.9 is not >= 0.96, it reports no peak_vram_mb"}


def test_a_gate_is_not_asked_of_controls_nor_of_failures_nor_of_another_tier() -> None:
    results = [ran(CONTROL, 1.0), ran("c0001", None), *confirmed("c0002", [0.5])]
    measured = {result.experiment.id: {"accuracy": 0.0} for result in results}
    assert gate_failures(results, measured, [parse_gate("accuracy > 1")], Tier.SCREENING) == {}


def test_a_candidate_that_a_gate_refuses_leaves_its_place_to_the_next() -> None:
    results = [ran(CONTROL, 1.0), ran("c0001", 0.7), ran("c0002", 0.8), ran("c0003", 0.9)]
    assert promoted(results, CONTROL, True, 2, {"c0001": "accuracy 0.9 is not >= 0.96"}) == ["c0002", "c0003"]


@pytest.mark.parametrize("score", [0.9, 1.05, 1.2])
def test_a_confirmed_candidate_that_a_gate_refuses_is_discarded_whatever_its_score(score: float) -> None:
    results = [*confirmed(CONTROL, [1.0, 1.1, 1.05]), *confirmed("c0001", [score - 0.05, score + 0.051, score])]
    (free,) = decide("w01", results, [], CONTROL, rules())
    (decision,) = decide("w01", results, [], CONTROL, rules(refused={"c0001": "accuracy 0.951 is not >= 0.96"}))
    assert decision.verdict is Verdict.DISCARD
    assert decision.sentence.startswith("discard candidate 1: accuracy 0.951 is not >= 0.96; val_bpb 1.050000 → ")
    assert (decision.change, decision.scores) == (free.change, free.scores), "its evidence stays"


def test_the_next_best_is_kept_where_a_gate_refuses_the_best() -> None:
    results = [*confirmed(CONTROL, [1.0, 1.1, 1.05]), *confirmed("c0001", [0.9, 1.001, 0.95])]
    results += confirmed("c0002", [0.8, 0.901, 0.85])
    decisions = decide("w01", results, [], CONTROL, rules(refused={"c0002": "it reports no accuracy"}))
    assert [(one.candidate, one.verdict) for one in decisions] == [
        ("c0002", Verdict.DISCARD),
        ("c0001", Verdict.KEEP),
    ]


def test_a_decision_says_whose_word_its_scores_are() -> None:
    results = [*confirmed(CONTROL, [1.0, 1.1, 1.05]), *confirmed("c0001", [0.9, 1.001, 0.951])]
    (ours,) = decide("w01", results, [], CONTROL, rules())
    (theirs,) = decide("w01", [replace(run, self_reported=True) for run in results], [], CONTROL, rules())
    assert "self-reported" not in ours.sentence
    assert theirs.sentence == f"{ours.sentence}, scores self-reported"


def test_runs_that_began_far_apart_are_not_compared() -> None:
    near = [replace(run, started=1000.0 * place) for place, run in enumerate(confirmed("c0001", [1.0, 1.0, 1.0]))]
    control = [replace(run, started=1000.0 * place) for place, run in enumerate(confirmed(CONTROL, [2.0, 2.1, 2.2]))]
    assert decide("w01", [*near, *control], [], CONTROL, rules())[0].seeds == (501, 502, 503)
    # The controller was dead for a night in the middle of the second block.
    late = [near[0], replace(near[1], started=1000.0 + CONCURRENT_SECONDS + 1), near[2]]
    decision = decide("w01", [*late, *control], [], CONTROL, rules())[0]
    assert decision.seeds == (501, 503)
    assert decision.change == pytest.approx(-1.1)


def test_lines_of_code_have_a_price_and_the_decision_says_so() -> None:
    scores = {CONTROL: [1.0, 1.001, 1.002], "c0001": [0.9985, 0.9994, 1.0006], "c0002": [0.9985, 0.9994, 1.0006]}
    runs = [run for name, found in scores.items() for run in confirmed(name, found)]
    priced = replace(rules(min_effect=0.0005), simplicity=0.0001, lines={"c0001": 20.0, "c0002": -3.0})
    dear, cheap = sorted(decide("w01", runs, [], CONTROL, priced), key=lambda one: one.candidate)
    assert dear.verdict is not Verdict.KEEP and "20.0 lines of code more count as 0.002" in dear.sentence
    assert cheap.verdict is Verdict.KEEP and "3.0 lines of code less count as 0.0003" in cheap.sentence
    free = decide("w01", runs, [], CONTROL, rules(min_effect=0.0005))
    assert sum(one.verdict is Verdict.KEEP for one in free) == 1 and not any(
        "lines of code" in one.sentence for one in free
    )
