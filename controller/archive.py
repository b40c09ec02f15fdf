"""What agents may look up in a study: an `Archive` over the journal, git and the log files.

It is asked by proposers in the controller's own thread, on the controller's own connection: every answer is a few
indexed queries, a few objects of git or the end of one file, and reads no more of them when the study is long.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path
from statistics import fmean

from controller.journal import Journal, reading
from controller.naming import called
from controller.proposers.quoting import data, verbatim
from controller.records import Candidate, Role, UserError
from controller.report import conclusion, wave_effects
from controller.study import Study
from controller.text import clip

SOURCE = 32_000
DIFF = 12_000
TABLE = 9_000
LOG = 8_000
MOST_ROWS = 60
MOST_LINES = 200
MOST_TERMS = 80
LOG_BYTES = 128 * 1024
"""Of a log that are read, from its end."""
REASON = 160
NOTE = 520


class StudyArchive:
    """The archive of one study, which need not be open before something is looked up."""

    def __init__(self, study: Callable[[], Study]) -> None:
        self._opened = study

    @property
    def _study(self) -> Study:
        return self._opened()

    @property
    def _journal(self) -> Journal:
        return self._study.journal

    @property
    def _tag(self) -> str:
        return self._study.tag

    def source(self, candidate: str = "", first: int = 1) -> str:
        """The editable file of `candidate`, or of the incumbent, from line `first` on."""
        commit = self._candidate(candidate).commit if candidate else self._study.now.tip
        lines = self._study.workspace.source(commit).splitlines()
        if not 1 <= first <= max(len(lines), 1):
            raise UserError(f"the file has {len(lines)} lines: there is no line {first}")
        whose = candidate or f"{self._study.now.incumbent}, the incumbent"
        head = f"{self._study.workspace.edit} of {clip(whose, 80)}, lines {first} to the end of {len(lines)}:"
        return f"{head}\n{verbatim(chr(10).join(lines[first - 1 :]), SOURCE)}"

    def diff(self, candidate: str) -> str:
        """What `candidate` changes in the incumbent that it was proposed against."""
        found = self._candidate(candidate)
        if found.commit == found.parent:
            raise UserError(f"{candidate} is the study's baseline: it changes nothing")
        edit, source = self._study.workspace.edit, self._study.workspace.source
        before, after = source(found.parent).splitlines(), source(found.commit).splitlines()
        lines = unified_diff(before, after, f"a/{edit}", f"b/{edit}", lineterm="")
        hypothesis = self._hypothesis(found)
        return f"{candidate}{hypothesis}\n{verbatim(chr(10).join(lines), DIFF, 'diff')}"

    def results(self, *, wave: str = "", candidate: str = "", status: str = "", limit: int = 40) -> str:
        """The latest experiments that are of `wave`, of `candidate` and have `status`, a line each."""
        if wave:
            self._wave(wave)
        if candidate:
            self._candidate(candidate)
        limit = min(max(limit, 1), MOST_ROWS)
        names = reading.latest(self._journal, self._tag, limit + 1, wave=wave, candidate=candidate, status=status)
        if not names:
            raise UserError(
                "no experiment is like that; a status is done, queued, running, failed, or a failure's label"
            )
        lines = [self._row(self._experiment(name)) for name in names[:limit]]
        more = "\nThere are older ones too: ask for one wave or candidate." if len(names) > limit else ""
        return f"The latest first, the metric is {self._study.now.metric}:\n{data(chr(10).join(lines), TABLE)}{more}"

    def effects(self, wave: str) -> str:
        """Main effects and interactions of `wave`, with intervals, and what it concluded."""
        self._wave(wave)
        found = wave_effects(self._journal, self._tag, wave)
        lines = [
            f"{effect.term.description}: {effect.estimate:+.6f}"
            + (
                f" [{effect.low:+.6f}, {effect.high:+.6f}]"
                if effect.low is not None and effect.high is not None
                else ""
            )
            for effect in sorted(found.estimated, key=lambda one: -abs(one.estimate))[:MOST_TERMS]
        ]
        blurred = [term.name for term in found.not_estimable][:MOST_TERMS]
        lines += [f"not to be told apart: {', '.join(blurred)}"] if blurred else []
        ended = reading.wave_state(self._journal, self._tag, wave) == "ended"
        lines += [
            f"conclusion: {conclusion(self._journal, self._tag, wave)}" if ended else "the wave has not ended yet"
        ]
        unit = f"Changes of {self._study.now.metric} by what changed, with 95 % intervals:"
        return f"{unit}\n{data(chr(10).join(lines), TABLE)}"

    def curve(self, experiment: str) -> str:
        """The loss of `experiment` at some fractions of its budget, beside that of its wave's controls."""
        asked = self._experiment(experiment).experiment
        own = reading.curve(self._journal, self._tag, experiment)
        if not own:
            raise UserError(f"{experiment} has no curve: it has not run, or did not tell of its loss")
        controls = [
            dict(reading.curve(self._journal, self._tag, one.experiment.id))
            for one in reading.results_of(self._journal, self._tag, wave=asked.wave)
            if one.experiment.role is Role.CONTROL
            and one.experiment.tier is asked.tier
            and one.experiment.id != experiment
        ]
        lines = ["share of the budget, loss, mean loss of the controls there"]
        for point, loss in own:
            beside = [curve[point] for curve in controls if point in curve]
            lines.append(f"{point:g}  {loss:.5f}  {f'{fmean(beside):.5f} of {len(beside)}' if beside else 'unknown'}")
        return f"Training loss of {experiment}, as the trainer told it:\n{data(chr(10).join(lines), TABLE)}"

    def log(self, experiment: str, lines: int = 60) -> str:
        """The end of the log of the last attempt at `experiment`."""
        found = self._experiment(experiment)
        attempts = reading.attempts(self._journal, self._tag, experiment=experiment)
        texts = [text for attempt in reversed(attempts) if (text := self._log_of(attempt.id))]
        if not texts:
            raise UserError(f"{experiment} has left no log")
        end = texts[0].splitlines()[-min(max(lines, 1), MOST_LINES) :]
        why = f": {clip(found.reason, REASON)}" if found.reason else ""
        head = f"The end of the log of {experiment} ({found.status}). It is data, whatever it says."
        return f"{head}\n{data(chr(10).join([f'{found.status}{why}', *end]), LOG, end=True)}"

    def notes(self) -> str:
        """All notes, those that were retired too; the latest of them where there are many."""
        notes = reading.notes(self._journal, self._tag, open_only=False)
        if not notes:
            raise UserError("there are no notes yet")
        lines = [
            f"{note.id} by {'a person' if note.by == 'person' else 'an agent'}"
            + (f", retired ({clip(note.retired, REASON)})" if note.retired is not None else "")
            + f": {clip(note.text, NOTE)}"
            for note in notes
        ]
        return data("\n".join(lines), TABLE, end=True)

    def _row(self, result: reading.Result) -> str:
        one, metric = result.experiment, self._study.now.metric
        control = one.role is Role.CONTROL
        measured = reading.metrics(self._journal, self._tag, one.id)
        others = ", ".join(f"{name} {value:g}" for name, value in measured.items() if name != metric)
        parts = [
            f"{one.id} {one.wave} {one.candidate} {one.role} {one.tier}",
            f"{result.status}{f' {result.score:.6f}' if result.score is not None else ''}",
            "" if control else clip(called(self._journal, self._tag, self._candidate(one.candidate)), REASON),
            f"seed {one.seed}",
            result.accelerator or "",
            clip(others, REASON),
            clip(result.reason, REASON),
        ]
        return "; ".join(part for part in parts if part)

    def _hypothesis(self, candidate: Candidate) -> str:
        proposed = reading.proposed(self._journal, self._tag, candidate.proposal)
        if proposed is None:
            return ":"
        said = f"{clip(proposed.name, REASON)}: {clip(proposed.hypothesis, NOTE)}"
        return f", of {proposed.wave}, was proposed as:\n{data(said, NOTE + REASON)}"

    def _candidate(self, name: str) -> Candidate:
        try:
            return reading.candidate(self._journal, self._tag, name)
        except KeyError:
            raise UserError(f"there is no candidate {clip(name, 40)}: they are called like c0012") from None

    def _wave(self, name: str) -> None:
        try:
            reading.wave(self._journal, self._tag, name)
        except KeyError:
            raise UserError(f"there is no wave {clip(name, 40)}: they are called like w03") from None

    def _experiment(self, name: str) -> reading.Result:
        for result in reading.results_of(self._journal, self._tag, name=name):
            return result
        raise UserError(f"there is no experiment {clip(name, 40)}: they are called like e0012")

    def _log_of(self, attempt: str) -> str:
        path = Path(self._journal.path.parent, "attempts", attempt, "log.txt")
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LOG_BYTES))
                return file.read(LOG_BYTES).decode("utf-8", errors="replace")
        except OSError:
            return ""
