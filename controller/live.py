"""What a person sees while a wave runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from controller.budget import Ledger
from controller.clock import Clock, RealClock
from controller.journal import Journal, reading
from controller.naming import called
from controller.records import Experiment, Outcome
from controller.scheduler import Running, Scheduler

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

SHOWN_CLUSTERS = 40
REFRESH_SECONDS = 0.25


class Display:
    """Observes a scheduler for one study; `live` is the terminal's table where there is a terminal."""

    def __init__(self, console: Console, journal: Journal, tag: str, clock: Clock, live: bool = True) -> None:
        self._console = console
        self._journal = journal
        self._tag = tag
        self._clock = clock
        self._last: dict[str, str] = {}
        self._ended = 0
        self._left = 0
        self._wants_live = live and console.is_terminal
        # Whoever looks lives in real time: a simulated night passes in seconds, and drawing would take most of them.
        self._eyes = RealClock()
        self._drawn_at = 0.0
        self.ledger: Ledger | None = None
        self.live: Live | None = None

    def changed(self, scheduler: Scheduler) -> None:
        self._left = len(scheduler.waiting) + len(scheduler.running)
        if self.live and self._eyes.monotonic() - self._drawn_at > REFRESH_SECONDS:
            self._drawn_at = self._eyes.monotonic()
            self.live.update(self._table(scheduler), refresh=True)

    def ended(self, experiment: Experiment, cluster: str, outcome: Outcome) -> None:
        self._ended += 1
        score = next(iter(self._score(outcome)), outcome.label or "")
        self._last[cluster] = f"{score} {experiment.id}"
        if self.live is None:
            seconds = outcome.timings.get("total")
            spent = f" in {seconds:.1f} s" if seconds else ""
            why = f": {outcome.reason}" if outcome.label else ""
            line = f"{experiment.id} {self._name(experiment)} seed {experiment.seed} on {cluster}{spent}: {score}{why}"
            self._console.print(
                f"{line}  [{max(self._left - 1, 0)} to go]", markup=False, highlight=False, soft_wrap=True
            )

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the live table for as long as this context lasts, if this is a terminal."""
        if not self._wants_live:
            yield
            return
        from rich.live import Live

        with Live(console=self._console, auto_refresh=False, transient=True) as self.live:
            yield
        self.live = None

    def _score(self, outcome: Outcome) -> Iterator[str]:
        study = reading.study(self._journal, self._tag)
        if study is not None and study.metric in outcome.metrics:
            yield f"{outcome.metrics[study.metric]:.6f}" + (" (self-reported)" if outcome.self_reported else "")

    def _name(self, experiment: Experiment) -> str:
        candidate = reading.candidate(self._journal, self._tag, experiment.candidate)
        what = called(self._journal, self._tag, candidate)
        return f"{experiment.role} {candidate.id}" + (f" {what}" if what and experiment.role != "control" else "")

    def _table(self, scheduler: Scheduler) -> Table:
        from rich.table import Table
        from rich.text import Text

        title = f"{self._ended} done, {self._left} to go"
        for name, (spent, cap) in (self.ledger.used() if self.ledger else {}).items():
            title += f", {spent:.2f} of {cap:g} {name.replace('_', ' ')}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("cluster", "accelerator", "running", "progress", "last score"):
            table.add_column(heading)
        busy: dict[str, Running] = {}
        for running in scheduler.running.values():
            if running.started is not None or running.cluster not in busy:
                busy[running.cluster] = running
        for name in sorted(scheduler.clusters)[:SHOWN_CLUSTERS]:
            now = busy.get(name)
            what = Text(f"{now.experiment.id} {self._name(now.experiment)}" if now else "idle", no_wrap=True)
            what.truncate(60, overflow="ellipsis")
            accelerator = scheduler.clusters[name].accelerator
            table.add_row(name, accelerator, what, self._progress(now), Text(self._last.get(name, "")))
        if len(scheduler.clusters) > SHOWN_CLUSTERS:
            table.add_row(f"and {len(scheduler.clusters) - SHOWN_CLUSTERS} more")
        return table

    def _progress(self, running: Running | None) -> str:
        if running is None:
            return ""
        if running.started is None:
            return "waiting"
        if running.fraction is None:
            return "starting"
        filled = round(running.fraction * 20)
        loss = f"  loss {running.loss:.3f}" if running.loss is not None else ""
        return f"{'━' * filled}{'╌' * (20 - filled)} {running.fraction:4.0%}{loss}"
