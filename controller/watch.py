"""A study that somebody else runs, followed from another terminal. Reads the journal and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from controller.clock import Clock
from controller.journal import Journal, reading
from controller.naming import called
from controller.summary import summary_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LOOKS_SECONDS = 1.0
SHOWN_CLUSTERS = 40
SHOWN_RESULTS = 10


async def follow(journal: Journal, tag: str, console: Console, clock: Clock, is_running: Callable[[], bool]) -> None:
    """Show what `tag` does until nobody runs it: a live table on a terminal, a line a result elsewhere.

    Ends with the study's summary.
    """
    if console.is_terminal:
        from rich.live import Live

        with Live(console=console, auto_refresh=False, transient=True) as live:
            while is_running():
                live.update(_table(journal, tag, clock.now()), refresh=True)
                await clock.sleep(LOOKS_SECONDS)
    else:
        seen = set(finished(journal, tag))
        while True:
            running = is_running()
            for line in (line for name, line in finished(journal, tag).items() if name not in seen):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            seen |= set(finished(journal, tag))
            if not running:
                break
            await clock.sleep(LOOKS_SECONDS)
    lines = "\n".join(summary_lines(journal, tag, is_running()))
    console.print(lines, markup=False, highlight=False, soft_wrap=True)


def finished(journal: Journal, tag: str, most: int = 1000) -> dict[str, str]:
    """A line about each of the `most` experiments that finished last, by its name, oldest first."""
    query = (
        "SELECT experiment, role, candidate, seed, cluster, status, score, reason FROM experiments"
        " WHERE study = ? AND finished IS NOT NULL ORDER BY finished DESC, number DESC LIMIT ?"
    )
    lines = {}
    for name, role, candidate, seed, cluster, status, score, reason in journal.db.execute(query, (tag, most)):
        knobs = called(journal, tag, reading.candidate(journal, tag, candidate))
        what = f"{role} {candidate}" + (f" {knobs}" if knobs and role != "control" else "")
        came = f"{score:.6f}" if score is not None else f"{status}: {reason}"
        lines[name] = f"{name} {what} seed {seed} on {cluster}: {came}"
    return dict(reversed(lines.items()))


def _table(journal: Journal, tag: str, now: float) -> Table:
    from rich.table import Table
    from rich.text import Text

    counts = reading.counts(journal, tag)
    title = f"study {tag}: {', '.join(f'{number} {status}' for status, number in counts.items())}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("cluster", "accelerator", "running", "for"):
        table.add_column(heading)
    query = (
        "SELECT a.cluster, a.experiment, e.role, e.candidate, a.started FROM attempts a JOIN experiments e"
        " ON e.study = a.study AND e.experiment = a.experiment"
        " WHERE a.study = ? AND a.ended IS NULL ORDER BY a.started IS NULL, a.started"
    )
    busy: dict[str, tuple[str, str]] = {}
    for cluster, experiment, role, candidate, started in journal.db.execute(query, (tag,)):
        spent = f"{max(0.0, now - started):.0f} s" if started is not None else "waits"
        busy.setdefault(cluster, (f"{experiment} {role} {candidate}", spent))
    leases = reading.leases(journal, tag, open_only=True)
    for lease in sorted(leases, key=lambda lease: lease.cluster)[:SHOWN_CLUSTERS]:
        what, spent = busy.get(lease.cluster, ("idle", ""))
        table.add_row(lease.cluster, lease.accelerator, Text(what), spent)
    if len(leases) > SHOWN_CLUSTERS:
        table.add_row(f"and {len(leases) - SHOWN_CLUSTERS} more")
    table.add_row()
    for line in finished(journal, tag, SHOWN_RESULTS).values():
        table.add_row(Text(line, no_wrap=True, overflow="ellipsis"))
    return table
