"""From screening to confirmation to a decision. Pure: results in, promotions and decisions out.

A screening score never enters the estimate that confirms: confirmation has fresh seeds, its own controls beside it, and
compares only runs on the same accelerator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from statistics import fmean, mean
from typing import TYPE_CHECKING

from controller.journal.reading import Result
from controller.records import Decision, Label, Role, Tier, Verdict
from controller.stats import Comparison, Noise, combine, compare, pooled, prediction_interval, residual, verdict

if TYPE_CHECKING:
    from controller.settings import Gate

CONFIDENCE = 0.95
CONCURRENT_SECONDS = 2 * 3600.0
"""How far apart two runs may begin and still be compared: what drifts over a night drifts little in so long."""


@dataclass(frozen=True, slots=True)
class Block:
    """The confirmation of one wave on one accelerator: scores by arm and seed, the control's arm among them."""

    accelerator: str
    control: str
    scores: Mapping[str, Mapping[int, float]]

    def layout(self) -> list[list[float]]:
        """Arms × seeds, as far as every arm of it has every seed; what it spreads beyond additivity is noise."""
        seeds = sorted(self.scores.get(self.control, {}))
        arms = [[scores[seed] for seed in seeds] for scores in self.scores.values() if all(s in scores for s in seeds)]
        return arms if len(arms) > 1 else []


def gate_failures(
    results: Iterable[Result], measured: Mapping[str, Mapping[str, float]], gates: Sequence[Gate], tier: Tier
) -> dict[str, str]:
    """Why each candidate that fails `gates` does, by the means over its runs of `tier` that have a score.

    `measured` holds the metrics of each experiment. A run without a gate's metric fails it; controls pass any gate.
    """
    runs: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for result in results:
        experiment = result.experiment
        if experiment.tier is tier and experiment.role is not Role.CONTROL and result.score is not None:
            runs[experiment.candidate].append(measured[experiment.id])
    said = {name: [why for gate in gates if (why := _gate_failure(gate, found))] for name, found in runs.items()}
    return {name: ", ".join(whys) for name, whys in said.items() if whys}


def _gate_failure(gate: Gate, runs: Sequence[Mapping[str, float]]) -> str | None:
    values = [run[gate.metric] for run in runs if gate.metric in run]
    if len(values) < len(runs):
        return f"it reports no {gate.metric}"
    # As the decimals that they were printed as: the mean of 0.95 and 0.97 is 0.96.
    value = float(mean(Fraction(repr(value)) for value in values))
    if gate.passes(value):
        return None
    shown = f"{value:.6g}"
    return f"{gate.metric} {repr(value) if gate.passes(float(shown)) else shown} is not {gate.limit}"


def promoted(
    results: Iterable[Result], incumbent: str, minimize: bool, most: int, refused: Container[str] = ()
) -> list[str]:
    """The candidates whose mean screening score beats the concurrent controls', best first, at most `most`.

    Cells are compared with controls on their own accelerator; a candidate that failed anywhere is out, and so are those
    `refused` by a gate.
    """
    sign = 1 if minimize else -1
    changes = changes_in_screening(results, incumbent)
    better = sorted(
        (sign * change, candidate)
        for candidate, change in changes.items()
        if sign * change < 0 and candidate not in refused
    )
    return [candidate for _, candidate in better[:most]]


def changes_in_screening(results: Iterable[Result], incumbent: str) -> dict[str, float]:
    """By how much each candidate's mean screening score differs from that of the controls on its own accelerators.

    Those are left out that failed anywhere, or ran where no control has a score.
    """
    cells: dict[str, list[Result]] = defaultdict(list)
    controls: dict[str | None, list[float]] = defaultdict(list)
    for result in results:
        if result.experiment.tier is not Tier.SCREENING:
            continue
        if result.experiment.candidate != incumbent:
            cells[result.experiment.candidate].append(result)
        elif result.score is not None:
            controls[result.accelerator].append(result.score)
    means = {accelerator: fmean(scores) for accelerator, scores in controls.items()}
    changes = {}
    for candidate, runs in cells.items():
        paired = [(run.score, means.get(run.accelerator)) for run in runs]
        apart = [score - mean for score, mean in paired if score is not None and mean is not None]
        if len(apart) == len(paired):
            changes[candidate] = fmean(apart)
    return changes


def blocks(results: Iterable[Result], incumbent: str) -> list[Block]:
    """The confirmation results of one wave, one block for each accelerator they ran on.

    A run that began long before or after the control of its seed is left out: it would compare two times of the day, as
    when a controller was dead for a night in the middle of a block.
    """
    runs: dict[tuple[str, int], list[Result]] = defaultdict(list)
    for result in results:
        experiment = result.experiment
        if experiment.tier is Tier.CONFIRMATION and result.score is not None and result.accelerator:
            runs[result.accelerator, experiment.seed].append(result)
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for (accelerator, seed), block in runs.items():
        control = next((run.started for run in block if run.experiment.candidate == incumbent), None)
        for run in block:
            apart = 0.0 if run.started is None or control is None else abs(run.started - control)
            if run.score is not None and apart <= CONCURRENT_SECONDS:
                found[accelerator][run.experiment.candidate][seed] = run.score
    return [Block(accelerator, incumbent, scores) for accelerator, scores in found.items()]


def noise_of(blocks: Iterable[Block], accelerator: str) -> Noise | None:
    """The sd of one run about its arm's and its seed's effect, pooled over all confirmations on `accelerator`."""
    return combine(
        *(residual(block.layout()) for block in blocks if block.accelerator == accelerator and block.layout())
    )


def replicate_noise(blocks: Iterable[Block], accelerator: str) -> Noise | None:
    """The sd of one candidate's scores over seeds, pooled over all arms of all confirmations on `accelerator`."""
    arms = [list(arm.values()) for block in blocks if block.accelerator == accelerator for arm in block.scores.values()]
    return pooled(arms)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a decision is made by: the metric and its direction, the least effect worth keeping, names for sentences.

    `refused` holds the candidates that fail a gate or look ahead, and why; `lines` how much more code, in lines, each
    has than the incumbent, of which every one must earn `simplicity`, in the metric's unit.
    """

    metric: str
    minimize: bool
    min_effect: float
    names: Mapping[str, str]
    refused: Mapping[str, str] = field(default_factory=dict)
    simplicity: float = 0.0
    lines: Mapping[str, float] = field(default_factory=dict)

    def cost(self, candidate: str) -> float:
        """How much better a candidate must be for the code it adds; below 0 where it takes code away."""
        return self.simplicity * self.lines.get(candidate, 0.0)


def decide(
    wave: str, results: Sequence[Result], earlier: Sequence[Block], incumbent: str, rules: Rules
) -> list[Decision]:
    """One decision for each candidate that was confirmed, best first; at most one of them is a keep.

    `results` are the wave's, `earlier` the blocks of the study's other confirmations, from which noise is pooled.
    """
    runs = [result for result in results if result.experiment.role is Role.CONFIRMATION]
    arms = sorted({run.experiment.candidate for run in runs})
    failures = {run.experiment.candidate: run for run in runs if _is_its_own_failure(run)}
    here = blocks(results, incumbent)
    by_whom = ", scores self-reported" if any(run.self_reported for run in runs) else ""
    decisions = []
    for candidate in arms:
        if candidate in failures:
            decisions.append(_failed(wave, failures[candidate], rules))
        elif not here:
            decisions.append(_unknown(wave, candidate, rules))
        else:
            # A candidate that ran on several accelerators is judged where it has most pairs.
            judged = [_judged(wave, candidate, block, [*earlier, *here], len(arms), rules) for block in here]
            best = max(judged, key=lambda decision: len(decision.seeds))
            best = replace(best, sentence=best.sentence + by_whom) if best.scores else best
            decisions.append(_refused(best, rules) if candidate in rules.refused else best)
    sign = 1 if rules.minimize else -1
    decisions.sort(key=lambda decision: sign * decision.change if decision.change is not None else float("inf"))
    keeps = [decision for decision in decisions if decision.verdict is Verdict.KEEP]
    return [_beaten(decision, keeps[0]) if decision in keeps[1:] else decision for decision in decisions]


def reproduction_interval(decision: Decision, noise: Noise | None) -> tuple[float, float]:
    """Where the mean of as many new runs of a kept candidate should fall, with whatever seeds."""
    if noise is None:
        return (min(decision.scores), max(decision.scores))
    return prediction_interval(decision.scores, noise, len(decision.scores), CONFIDENCE)


def _judged(wave: str, candidate: str, block: Block, known: Sequence[Block], arms: int, rules: Rules) -> Decision:
    mine, control = block.scores.get(candidate, {}), block.scores.get(block.control, {})
    seeds = tuple(sorted(mine.keys() & control.keys()))
    scores, beside = tuple(mine[seed] for seed in seeds), tuple(control[seed] for seed in seeds)
    # Where every seed gives the same score, as with a train.py that ignores its seed, nothing is known of noise.
    spread = replicate_noise(known, block.accelerator)
    noise = noise_of(known, block.accelerator) if spread and spread.sigma > 0 else None
    compared = compare(scores, beside, noise, arms, CONFIDENCE)
    cost = rules.cost(candidate)
    decided = verdict(compared, rules.min_effect, minimize=rules.minimize, cost=cost)
    name = rules.names[candidate]
    if compared.change is None:
        return _unknown(wave, candidate, rules)
    said = f"{decided} {name}: {rules.metric} {fmean(beside):.6f} → {fmean(scores):.6f}, {_change(compared)}"
    said += f", {len(seeds)} paired seeds on {block.accelerator}"
    if cost:
        lines = rules.lines[candidate]
        said += f", {abs(lines):.1f} lines of code {'more' if lines > 0 else 'less'} count as {abs(cost):.2g}"
    return Decision(
        wave=wave,
        candidate=candidate,
        verdict=decided,
        change=compared.change,
        low=compared.low,
        high=compared.high,
        sentence=said,
        seeds=seeds,
        scores=scores,
        control_scores=beside,
        accelerator=block.accelerator,
    )


def _change(compared: Comparison) -> str:
    if compared.low is None or compared.high is None:
        return f"change {compared.change:+.6f} with no interval (that takes seeds, two or more, that matter)"
    return f"change {compared.change:+.6f} (95% interval {compared.low:+.6f} to {compared.high:+.6f})"


def _is_its_own_failure(run: Result) -> bool:
    """A run that the infrastructure kept from its end says nothing against its candidate: it is only missing."""
    return run.score is None and not (run.status in set(Label) and Label(run.status).infrastructure)


def _unknown(wave: str, candidate: str, rules: Rules) -> Decision:
    verdict = Verdict.INCONCLUSIVE
    sentence = f"{verdict} {rules.names[candidate]}: no run of it has a control with the same seed beside it"
    return Decision(wave, candidate, verdict, None, None, None, sentence)


def _failed(wave: str, run: Result, rules: Rules) -> Decision:
    name = rules.names[run.experiment.candidate]
    sentence = f"discard {name}: {run.status} in confirmation ({run.reason})"
    return Decision(wave, run.experiment.candidate, Verdict.DISCARD, None, None, None, sentence)


def _refused(decision: Decision, rules: Rules) -> Decision:
    name, why = rules.names[decision.candidate], rules.refused[decision.candidate]
    rest = decision.sentence.removeprefix(f"{decision.verdict} {name}: ")
    return replace(decision, verdict=Verdict.DISCARD, sentence=f"discard {name}: {why}; {rest}")


def _beaten(decision: Decision, by: Decision) -> Decision:
    sentence = f"discard{decision.sentence.removeprefix('keep')}; {by.candidate} is better still"
    return replace(decision, verdict=Verdict.DISCARD, sentence=sentence)
