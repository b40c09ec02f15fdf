"""What three proposers make of the same CPU-seconds of training: `doe`, `optuna` and `random`, each an arm.

Training is real: train/train.py on the tiny profile, in the harness's sandbox, scored by it. So are the studies: one
for every arm and seed, with a journal, the controller's waves, and its decision on what to keep. What makes it fair:

- The budget is CPU-seconds of training as the harness measures them, cells, controls and confirmations alike. A profile
  gives each run as many tokens, so that a bigger model costs more. Starting Python and scoring are not billed. A run
  that failed has not told what it spent, and is billed the most that it can have been.
- A wave has 12 cells and three controls. Its best cell, if better than the controls, is confirmed with three fresh
  seeds beside the incumbent, and kept only if the interval says so. As in the controller, enough is set aside for that:
  what the rest of the budget cannot screen is called off. No run is ended early.
- What is reported of an incumbent is its mean on seeds that no wave has, trained afterwards and not billed: the luck of
  screening, and of confirmation, is not in it.
- `doe` draws no lots. Seeds enter as those that are trained with, in the same wave the same for every arm. `random`
  draws uniformly around the incumbent, on optuna's axes, with the lots that optuna has while it knows nothing.
- A model is trained once with each seed, and every arm that asks for it is billed.

It says nothing of other models or of a whole night: a budget of minutes is a few waves.

    python bench/proposers.py [--json] [--cpu-seconds N] [--seeds N] [--slots N] [--cache FILE] [--plot FILE]

With `--cache` a bench that was interrupted goes on, and costs only what is new.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean, median, quantiles, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from controller.backends import Bundle, Fleet
from controller.backends.local import Local
from controller.backends.protocol import Ended, Progressed
from controller.bundles import Bundler, bundler
from controller.clock import RealClock
from controller.harness.limits import Limits
from controller.journal import AttemptEnded, AttemptStarted, AttemptSubmitted, ExperimentAbandoned, Journal, reading
from controller.proposers import Context, Doe, Proposer
from controller.proposers.draft import Draft
from controller.proposers.tpe import PATIENCE, Optuna, axes
from controller.records import Attempt, Design, Experiment, Factor, Label, NothingRan, Outcome, Proposal, Tier
from controller.search import CELLS
from controller.stats import Comparison, compare, residual
from controller.study import Study, open_study
from controller.template import init
from controller.text import describe
from controller.watcher import judge
from controller.wave import Request, advance, begin, design
from controller.workspace import PROGRAM, Workspace, find, open_directory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # prepare/ belongs to a workspace and is not installed

from prepare.profile import TINY

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

assert TINY.budget.cpu_seconds is not None
MOST = TINY.budget.cpu_seconds
"""CPU-seconds of training that a run may take."""

TAG = "arm"
METRIC = "val_bpb"
SEEDS = 3
"""Those that a wave's best cell and the incumbent are confirmed with."""
LEAST = 3
"""Runs, however dear, that a wave must be able to begin with."""
FRESH = range(1, 4)
"""The seeds that incumbents are measured with; those of waves are all larger."""
TRIES = 3
SETTINGS = f"---\ntiers: {{confirmation: {{seeds: {SEEDS}, promote: 1}}}}\n---\n"
COLOURS = {"doe": "#1a7f37", "optuna": "#0969da", "random": "#8c959f"}
DASHES = {"doe": "solid", "optuna": "solid", "random": "dot"}
"""Random begins where optuna does: neither line may hide the other."""
BANDS = {"doe": "rgba(26,127,55,0.12)", "optuna": "rgba(9,105,218,0.10)", "random": "rgba(110,119,129,0.16)"}


class Random:
    """Cells drawn uniformly on the axes that `optuna` searches; no model is proposed twice."""

    name = "random"
    usd_at_most = 0.0
    usd_spent = 0.0

    async def propose(self, context: Context, room: int) -> list[Proposal]:
        """`room` proposals of one cell each, or fewer where nothing new is found."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        draft = Draft(context, room)
        found = axes(context, draft.present)
        lots = random.Random(f"{context.seed}:{len(context.history)}:0").getrandbits(32)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=lots))
        distributions = {axis.knob: axis.distribution() for axis in found}
        misses = 0
        while found and draft.room > 0 and misses < PATIENCE:
            params = study.ask(distributions).params
            levels = {axis.knob: axis.value(params[axis.knob]) for axis in found}
            factors = tuple(
                Factor(knob, (level,)) for knob, level in levels.items() if repr(level) != repr(draft.present[knob])
            )
            misses += 1
            if factors and draft.takes(Design.FULL, factors):
                draft.add(Proposal("random", "one of these is better", factors))
                misses = 0
        return draft.proposals


ARMS: dict[str, Callable[[], Proposer]] = {"doe": Doe, "optuna": Optuna, "random": Random}


@dataclass(frozen=True, slots=True)
class Training:
    """What training a model with a seed came to, and the CPU-seconds it is billed with."""

    outcome: Outcome
    cpu_seconds: float


Train = Callable[[Bundle, str], Awaitable[Training]]
"""Trains a bundle whose model has this digest."""


@dataclass(frozen=True, slots=True)
class Step:
    """An incumbent: after how many CPU-seconds it became that, its last change, and its mean score on fresh seeds.

    A fresh run that failed, as one may whose training takes nearly all that it may, is left out of the mean.
    """

    at: float
    score: float
    change: str


@dataclass(frozen=True, slots=True)
class Trail:
    """An arm's way with one seed, from the baseline on; `runs` of `waves` are those that were billed."""

    arm: str
    seed: int
    steps: tuple[Step, ...]
    cpu_seconds: float
    waves: int
    runs: int
    failed: int

    @property
    def final(self) -> float:
        """The score of its last incumbent."""
        return self.steps[-1].score

    def at(self, cpu_seconds: float) -> float:
        """The score of its incumbent when it had spent so much."""
        return next(step.score for step in reversed(self.steps) if step.at <= cpu_seconds)


class Spent(Exception):
    """The budget is."""


@dataclass
class Account:
    """What an arm has spent; `dearest` is the dearest run of its latest wave that has a score."""

    budget: float
    spent: float = 0.0
    runs: int = 0
    failed: int = 0
    dearest: float = 0.0
    costs: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Those of each candidate's runs that have a score."""

    def bill(self, candidate: str, training: Training) -> None:
        """Add a run."""
        self.spent += training.cpu_seconds
        self.runs += 1
        if training.outcome.label is not None:
            self.failed += 1
        else:
            self.costs[candidate].append(training.cpu_seconds)
            self.dearest = max(self.dearest, training.cpu_seconds)

    def pays_for(self, runs: int, incumbent: str) -> bool:
        """Whether so many more runs, however dear, leave enough to confirm the dearest cell so far."""
        own = fmean(self.costs[incumbent] or [0.0])
        return self.spent + runs * MOST + SEEDS * (own + max(own, self.dearest)) <= self.budget


async def search(arm: str, seed: int, root: Path, train: Train, budget: float) -> Trail:
    """Search in a new workspace `root` with one arm until the budget is spent, then measure its incumbents."""
    workspace, account = make_workspace(root), Account(budget)
    journal = Journal.open(open_directory(workspace), RealClock(), durable=False)
    try:
        study = open_study(workspace, journal, TAG)
        files = bundler(workspace)
        found = [(0.0, study.incumbent)]
        with suppress(Spent):
            async for _ in waves(study, ARMS[arm](), seed, account, batch(study, files, train, account)):
                if study.incumbent != found[-1][1]:
                    found.append((account.spent, study.incumbent))
        steps = []
        for at, candidate in found:
            runs = (train(files(candidate.commit, fresh), candidate.model) for fresh in FRESH)
            scores = [one.outcome.metrics[METRIC] for one in await asyncio.gather(*runs) if not one.outcome.label]
            steps.append(Step(round(at, 1), fmean(scores), describe(candidate.knobs)))
        ended = len(reading.waves(journal, TAG, ended=True))
        spent = round(min(account.spent, budget), 1)
        return Trail(arm, seed, tuple(steps), spent, ended, account.runs, account.failed)
    finally:
        journal.close()


def make_workspace(root: Path) -> Workspace:
    """A workspace with the tiny profile in a new folder `root`."""
    init(root, TINY.name)
    (root / PROGRAM).write_text(SETTINGS)
    return find(root)


Batch = Callable[[Sequence[Experiment]], Awaitable[None]]


async def waves(study: Study, proposer: Proposer, seed: int, account: Account, batch: Batch) -> AsyncIterator[str]:
    """The waves of a study, as each ends, while another can be paid for. Raises Spent where confirming cannot."""
    clock = RealClock()
    while account.pays_for(LEAST, study.incumbent.id):
        account.dearest = 0.0
        request = Request({"seed": seed}, seed, 1, CELLS)
        try:
            wave = begin(study, proposer, request, await design(study, proposer, request), clock)
        except NothingRan:
            return
        results = reading.results_of(study.journal, study.tag, wave=wave.id)
        more: list[Experiment] | None = [result.experiment for result in results]
        while more is not None:
            await batch(more)
            more = advance(study, wave, clock)
        yield wave.id


def batch(study: Study, files: Bundler, train: Train, account: Account) -> Batch:
    """A function that trains experiments one by one, and records what came of them; see `waves`."""
    tag = study.tag

    async def run(experiments: Sequence[Experiment]) -> None:
        for place, experiment in enumerate(experiments):
            if experiment.tier is Tier.SCREENING and not account.pays_for(1, study.incumbent.id):
                why = "the rest of the budget is set aside for confirmation"
                off = [ExperimentAbandoned(one.id, Label.CANCELLED, why) for one in experiments[place:]]
                study.journal.record(tag, *off)
                return
            candidate = reading.candidate(study.journal, tag, experiment.candidate)
            training = await train(files(candidate.commit, experiment.seed), candidate.model)
            account.bill(candidate.id, training)
            if account.spent > account.budget:
                raise Spent
            attempt = Attempt(f"{tag}.{experiment.id}.1", experiment.id, "local-01", "")
            ended = AttemptEnded(attempt.id, training.outcome)
            study.journal.record(tag, AttemptSubmitted(attempt), AttemptStarted(attempt.id), ended)

    return run


class Trainings:
    """Has each model trained once with each seed. What came of it is kept in `file`, if there is one."""

    def __init__(self, train: Train, file: Path | None) -> None:
        self._train = train
        self._file = file
        self._known: dict[str, asyncio.Task[Training]] = {}
        self._earlier = dict(_read(file)) if file is not None and file.exists() else {}

    async def __call__(self, bundle: Bundle, model: str) -> Training:
        key = f"{model} {bundle.job['hashes']['fixed']} {bundle.job['seed']}"
        if key in self._earlier:
            return self._earlier[key]
        if key not in self._known:
            self._known[key] = asyncio.create_task(self._new(key, bundle, model))
        return await self._known[key]

    async def _new(self, key: str, bundle: Bundle, model: str) -> Training:
        training = await self._train(bundle, model)
        if self._file is not None:
            with self._file.open("a") as file:
                # The line break comes first, as the line before may have been cut off.
                file.write("\n" + json.dumps({"key": key, **asdict(training)}))
        return training


def _read(file: Path) -> list[tuple[str, Training]]:
    found = []
    for line in file.read_text().splitlines():
        with suppress(ValueError):  # a line that was cut off
            row = json.loads(line)
            told = row["outcome"]
            outcome = Outcome(**told | {"label": Label(told["label"]) if told["label"] else None, "curve": ()})
            found.append((row["key"], Training(outcome, row["cpu_seconds"])))
    return found


@asynccontextmanager
async def machine(directory: Path, slots: int) -> AsyncIterator[Train]:
    """This machine's slots, by the local backend: a function that trains on the first that is free."""
    clock = RealClock()
    backend = Local(directory, Path(sys.executable), clock, capacity=slots)
    free: asyncio.Queue[str] = asyncio.Queue()
    ends: dict[str, asyncio.Future[Ended]] = {}
    progress: dict[str, float] = {}

    async def listen() -> None:
        async for event in backend.events():
            if isinstance(event, Progressed):
                progress[event.attempt] = event.fraction
            elif isinstance(event, Ended):
                ends[event.attempt].set_result(event)

    async def once(bundle: Bundle) -> Training:
        cluster = await free.get()
        try:
            attempt = Attempt(f"{TAG}.e{len(ends)}.1", f"e{len(ends)}", cluster, clock.token())
            ends[attempt.id] = asyncio.get_running_loop().create_future()
            await backend.submit(cluster, attempt, bundle)
            outcome = judge(attempt, await ends[attempt.id], bundle.job["hashes"], METRIC)
            await backend.discard(attempt.id)
        finally:
            free.put_nowait(cluster)
        return Training(outcome, billed(outcome, progress.get(attempt.id, 0.0)))

    async def train(bundle: Bundle, model: str) -> Training:
        for _ in range(TRIES):
            training = await once(bundle)
            if not never_began(training.outcome):
                return training
        raise NothingRan(f"{training.outcome.label} {TRIES} times: {training.outcome.reason}")

    workspace = make_workspace(directory / "workspace")
    fleet = Fleet(slots, bundler(workspace)(workspace.head, 0))
    async for cluster in backend.acquire(fleet):
        free.put_nowait(cluster.name)
    async with asyncio.TaskGroup() as tasks:
        listening = tasks.create_task(listen())
        try:
            yield train
        finally:
            listening.cancel()
            await backend.release([cluster.name for cluster in await backend.up(TAG)])


def billed(outcome: Outcome, progress: float) -> float:
    """CPU-seconds of training: measured, or else, of a run that failed, the most that they can have been.

    Training has one thread, and the harness ends what is ahead of the `progress` that it makes.
    """
    timings = outcome.timings
    if "training_cpu" in timings:
        return timings["training_cpu"]
    allowed = Limits(TINY.budget, 1).training_cpu(progress)
    return round(min(allowed or MOST, timings["total"] - timings.get("warmup", 0.0)), 3)


def never_began(outcome: Outcome) -> bool:
    """Whether a failure is this machine's: lost, or on a machine so busy that it was never ready."""
    late = outcome.label is Label.OVERTIME and "warmup" not in outcome.timings
    return late or (outcome.label is not None and outcome.label.infrastructure)


async def run(options: argparse.Namespace, scratch: Path) -> list[Trail]:
    """All arms with all seeds, seed after seed."""
    console = Console(stderr=True)
    lanes = asyncio.Semaphore(2 * options.slots)
    async with machine(scratch / "machine", options.slots) as train:
        trainings = Trainings(train, options.cache)

        async def one(arm: str, seed: int) -> Trail:
            async with lanes:
                root = scratch / f"{arm}-{seed}"
                trail = await search(arm, seed, root, trainings, options.cpu_seconds)
            scores = " → ".join(f"{step.score:.4f} at {step.at:.0f} s" for step in trail.steps)
            console.print(f"seed {seed}, {arm}: {scores}; {trail.runs} runs, {trail.failed} failed", highlight=False)
            return trail

        return await asyncio.gather(*(one(arm, seed) for seed in range(1, options.seeds + 1) for arm in ARMS))


def differences(trails: Sequence[Trail]) -> dict[tuple[str, str], Comparison]:
    """Each arm's final score minus another's, paired by seed; the intervals hold jointly with 95 %.

    Each interval is from its own pairs, as arms differ in how far their scores spread.
    """
    finals = {arm: [trail.final for trail in trails if trail.arm == arm] for arm in ARMS}
    pairs = [*combinations(ARMS, 2)]
    return {
        (one, other): compare(finals[one], finals[other], residual([finals[one], finals[other]]), len(pairs))
        for one, other in pairs
    }


def summary(trails: Sequence[Trail], budget: float) -> dict[str, Any]:
    """All that is reported, by name."""
    arms = {}
    for arm in ARMS:
        mine = [trail for trail in trails if trail.arm == arm]
        finals = [trail.final for trail in mine]
        arms[arm] = {
            METRIC: round(fmean(finals), 5),
            "median": round(median(finals), 5),
            "sd": round(stdev(finals), 5) if len(finals) > 1 else None,
            "change": round(fmean(trail.final - trail.steps[0].score for trail in mine), 5),
            "waves": round(fmean(trail.waves for trail in mine), 2),
            "keeps": round(fmean(len(trail.steps) - 1 for trail in mine), 2),
            "runs": round(fmean(trail.runs for trail in mine), 1),
            "failed": round(fmean(trail.failed for trail in mine), 1),
            "cpu_seconds": round(fmean(trail.cpu_seconds for trail in mine), 1),
        }
    apart = {f"{one} - {other}": asdict(found) for (one, other), found in differences(trails).items()}
    return {
        "cpu_seconds": budget,
        "seeds": len(trails) // len(ARMS),
        "baseline": round(trails[0].steps[0].score, 5),
        "arms": arms,
        "differences": apart,
        "trails": [asdict(trail) for trail in trails],
    }


def table(found: dict[str, Any]) -> Table:
    seeds, budget = found["seeds"], found["cpu_seconds"]
    rows = Table("arm", title=f"{budget:g} CPU-seconds of training for every arm, {seeds} seeds", title_justify="left")
    for column in (METRIC, "sd", "change", "waves", "keeps", "runs", "failed", "CPU s"):
        rows.add_column(column, justify="right")
    for arm, one in found["arms"].items():
        spread = "–" if one["sd"] is None else f"{one['sd']:.4f}"
        counts = [f"{one[name]:.1f}" for name in ("waves", "keeps", "runs", "failed")]
        rows.add_row(arm, f"{one[METRIC]:.4f}", spread, f"{one['change']:+.4f}", *counts, f"{one['cpu_seconds']:.0f}")
    said = [f"{pair}: {_interval(one)}" for pair, one in found["differences"].items()]
    rows.caption = "\n".join(["Means over the seeds; 95 % intervals hold jointly.", *said])
    rows.caption_justify = "left"
    return rows


def _interval(one: dict[str, float | None]) -> str:
    if one["low"] is None:
        return f"{one['change']:+.4f}"
    return f"{one['change']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"


def figure(trails: Sequence[Trail], budget: float) -> Figure:
    """The score of the incumbent against CPU-seconds spent: for each arm the median over seeds, and the quartiles."""
    from plotly.graph_objects import Figure

    from dashboards.figures import FONT, GRID, INK
    from dashboards.traces import PALE

    traces: list[dict[str, Any]] = []
    for arm in ARMS:
        mine = [trail for trail in trails if trail.arm == arm]
        at = sorted({0.0, float(budget), *(step.at for trail in mine for step in trail.steps)})
        low, middle, high = zip(*(_quartiles([trail.at(one) for trail in mine]) for one in at), strict=True)
        path = {"type": "scatter", "mode": "lines", "x": at, "legendgroup": arm}
        edge = path | {"line": {"width": 0, "shape": "hv"}, "showlegend": False, "hoverinfo": "skip"}
        traces += [
            edge | {"y": low},
            edge | {"y": high, "fill": "tonexty", "fillcolor": BANDS[arm]},
            path
            | {
                "y": middle,
                "name": arm,
                "line": {"color": COLOURS[arm], "width": 2.4, "shape": "hv", "dash": DASHES[arm]},
                "hovertemplate": f"<b>{arm}</b> · {METRIC} <b>%{{y:.4f}}</b> at %{{x:.0f}} s<extra></extra>",
            },
        ]
    quiet = {"zeroline": False, "showline": False, "tickfont": {"color": PALE}}
    seeds = len(trails) // len(ARMS)
    about = (
        f"Median over {seeds} seeds, with quartiles, of the incumbent's {METRIC}: the mean of {len(FRESH)} runs with"
        " seeds that no wave has, not billed.<br>Tiny profile, real training; confirmations are billed."
    )
    layout = {
        "template": "none",
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "font": {"family": FONT, "size": 13, "color": INK},
        "title": {"text": "What proposers make of the same CPU-seconds", "x": 0, "xref": "paper", "xanchor": "left"},
        "margin": {"l": 84, "r": 64, "t": 84, "b": 116},
        "modebar": {"orientation": "v"},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "xaxis": quiet
        | {
            "title": {"text": "CPU-seconds of training", "font": {"size": 13, "color": PALE}},
            "range": (0, budget),
            "showgrid": False,
        },
        "yaxis": quiet
        | {
            "title": {"text": f"{METRIC} (lower is better)", "font": {"size": 13, "color": PALE}},
            "gridcolor": GRID,
            "tickformat": ".2f",
        },
        "annotations": [
            {
                "text": about,
                "x": 0,
                "y": 0,
                "xref": "paper",
                "yref": "paper",
                "yshift": -64,
                "yanchor": "top",
                "align": "left",
                "showarrow": False,
                "font": {"size": 12, "color": PALE},
            }
        ],
    }
    return Figure(data=traces, layout=layout)


def write_page(drawn: Figure, path: Path) -> None:
    """The picture as one HTML file that needs no other, nor a network."""
    drawn.write_html(path, include_plotlyjs=True, default_height="92vh", config={"displaylogo": False})


def _quartiles(scores: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = quantiles(scores, n=4, method="inclusive") if len(scores) > 1 else [*scores] * 3
    return low, middle, high


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare proposers that have the same CPU-seconds of training.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cpu-seconds", type=float, default=420.0, help="of training, for each arm and seed")
    parser.add_argument("--seeds", type=int, default=5, help="studies of each arm")
    parser.add_argument("--slots", type=int, default=2, help="trainings at once")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="what was trained, to go on from")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw an HTML page into this file")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="autoresearch-bench-") as scratch:
        trails = asyncio.run(run(options, Path(scratch)))
    found = summary(trails, options.cpu_seconds)
    if options.plot:
        write_page(figure(trails, options.cpu_seconds), options.plot)
    print(json.dumps(found)) if options.json else Console().print(table(found))


if __name__ == "__main__":
    main()
