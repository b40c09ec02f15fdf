from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from controller.journal import AttemptEnded, Event, reading
from controller.records import Experiment, Knobs, Label, Role, Tier, UserError, Verdict
from controller.report import conclusion, details, results_table, wave_json, wave_tables
from controller.standing import study_json, study_lines
from controller.study import Study
from tests.foreign import TRAIN, workspace
from tests.studies import Answer, Answers, factors, finish, open_in, wave_of


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    opened = open_in(workspace(tmp_path / "foreign"))
    yield opened
    opened.journal.close()


async def run(study: Study, answer: Answer, **levels: Any) -> str:
    wave = await wave_of(study, factors(**levels))
    finish(study, wave, Answers(study, answer))
    return wave


def bowl(knobs: Knobs, experiment: Experiment) -> float | Label:
    rate, width = cast(float, knobs.get("RATE", 0.5)), cast(int, knobs.get("WIDTH", 4))
    if rate == 0.9:
        return Label.DIVERGED
    return 1 + (rate - 0.3) ** 2 + 0.1 / width + experiment.seed % 3 / 1e3


def hopeless(knobs: Knobs, experiment: Experiment) -> float:
    """Better than the controls in screening, worse in confirmation, and least so with a small RATE."""
    if experiment.role is Role.CONTROL:
        return 1.0 + experiment.seed % 3 / 1e3
    return 0.5 if experiment.tier is Tier.SCREENING else 1.0 + cast(float, knobs["RATE"]) + experiment.seed % 3 / 1e3


def printed(*tables: Any) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    for table in tables:
        console.print(table)
    console.file.close()
    return console.export_text()


async def test_a_kept_winner_is_the_conclusion_and_the_standing(study: Study) -> None:
    wave = await run(study, bowl, RATE=(0.5, 0.3), WIDTH=(4, 8))
    (keep,) = [one for one in reading.decisions(study.journal, "mar5") if one.verdict is Verdict.KEEP]
    assert conclusion(study.journal, "mar5", wave) == keep.sentence
    told = study_json(study.journal, "mar5", False)
    assert told["incumbent"]["candidate"] == keep.candidate and told["incumbent"]["commit"] == study.tip == told["tip"]
    assert told["incumbent"]["score"] == pytest.approx(sum(keep.scores) / 3)
    assert (told["incumbent"]["low"], told["incumbent"]["high"]) == (keep.low, keep.high)
    lines = study_lines(study.journal, "mar5", False)
    assert lines[0].startswith("study mar5 on branch autoresearch/mar5: 1 wave") and lines[0].endswith("not running")
    assert f"last       {keep.sentence}" in lines


async def test_when_nothing_is_kept_the_nearest_is_named(study: Study) -> None:
    wave = await run(study, hopeless, RATE=(0.9, 0.7, 0.2), WIDTH=(4,))
    said = conclusion(study.journal, "mar5", wave)
    assert said.startswith("nothing is kept; nearest was: discard c0003 (RATE=0.2): val_bpb 1.001")
    assert reading.decisions(study.journal, "mar5", wave=wave)[0].candidate == "c0001"


async def test_a_wave_that_promotes_nobody_says_so(study: Study) -> None:
    wave = await run(study, lambda knobs, one: 1.0 if one.role is Role.CONTROL else 2.0, RATE=(0.8, 0.9))
    said = "nothing is kept: none of 2 scored candidates was better than the controls in screening"
    assert conclusion(study.journal, "mar5", wave) == said
    assert study_lines(study.journal, "mar5", False)[1] == "improved   nothing yet"


async def test_a_wave_as_json_is_plain_and_complete(study: Study) -> None:
    wave = await run(study, bowl, RATE=(0.5, 0.3, 0.9), WIDTH=(4, 8))
    told = json.loads(json.dumps(wave_json(study.journal, "mar5", wave, 2), allow_nan=False))
    assert (told["study"], told["wave"], told["kept"]) == ("mar5", wave, study.incumbent.id)
    assert told["commit"] == study.tip
    assert len(told["experiments"]) == len(reading.results_of(study.journal, "mar5"))
    assert {"decisions", "effects", "busy_share", "training_share", "conclusion"} <= set(told)


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Study]:
    root = workspace(tmp_path / "gated", {"train.py": TRAIN, "program.md": "---\ngates: val_bpb >= 1.01\n---\n"})
    opened = open_in(root)
    yield opened
    opened.journal.close()


def suspicious(knobs: Knobs, experiment: Experiment) -> float:
    """Below the gate with RATE 0.9 in screening already, with RATE 0.8 in confirmation only."""
    worth = {0.9: 1.0, 0.8: 1.02 if experiment.tier is Tier.SCREENING else 1.0}
    return worth.get(cast(float, knobs["RATE"]), 1.04) + experiment.seed % 3 / 1e3


async def test_who_failed_a_gate_and_why_is_in_the_tables_and_in_the_json(gated: Study) -> None:
    wave = await run(gated, suspicious, RATE=(0.9, 0.8, 0.7))
    text = printed(*wave_tables(gated.journal, "mar5", wave, 2))
    screening, confirmation = text.split("Confirmation")
    why = {"0.9": "val_bpb 1.002 is not >= 1.01", "0.8": "passed", "0.7": "passed"}
    for rate, said in why.items():
        (line,) = [line for line in screening.splitlines() if f"RATE={rate}" in line]
        assert line.rstrip().endswith(said)
    (control,) = [line for line in screening.splitlines() if "control ×" in line]
    assert control.rstrip().endswith("done")
    told = wave_json(gated.journal, "mar5", wave, 2)
    names = {row["knobs"]["RATE"]: row["candidate"] for row in told["experiments"] if row["role"] == "cell"}
    assert f"refused by a gate: {names[0.8]}: val_bpb 1.001 is not >= 1.01" in confirmation
    assert told["gates"] == ["val_bpb >= 1.01"]
    assert told["refused"] == [
        {"candidate": names[0.9], "tier": "screening", "reason": "val_bpb 1.002 is not >= 1.01"},
        {"candidate": names[0.8], "tier": "confirmation", "reason": "val_bpb 1.001 is not >= 1.01"},
    ]
    assert told["conclusion"].startswith(
        f"nothing is kept; nearest was: discard {names[0.8]} (RATE=0.8): val_bpb 1.001"
    )
    json.dumps(told, allow_nan=False)


async def test_a_wave_whose_better_candidates_all_failed_a_gate_says_so(gated: Study) -> None:
    wave = await run(gated, suspicious, RATE=(0.9, 0.7))
    name = next(iter(wave_json(gated.journal, "mar5", wave, 2)["refused"]))["candidate"]
    assert conclusion(gated.journal, "mar5", wave) == (
        f"nothing is kept: 1 of 2 scored candidates failed a gate in screening ({name}: val_bpb 1.002 is not >= 1.01),"
        " and none of the others was better than the controls"
    )


async def test_without_gates_there_is_no_word_of_them(study: Study) -> None:
    wave = await run(study, bowl, RATE=(0.5, 0.3), WIDTH=(4, 8))
    assert "gate" not in printed(*wave_tables(study.journal, "mar5", wave, 2))
    told = wave_json(study.journal, "mar5", wave, 2)
    assert (told["gates"], told["refused"]) == ([], [])


class Boasts(Answers):
    """Every score is the trainer's own word."""

    def _events_of(self, experiment: Experiment) -> list[Event]:
        return [
            replace(event, outcome=replace(event.outcome, self_reported=True))
            if isinstance(event, AttemptEnded)
            else event
            for event in super()._events_of(experiment)
        ]


@pytest.mark.parametrize("made", [Answers, Boasts])
async def test_every_table_of_self_reported_scores_says_so(study: Study, made: type[Answers]) -> None:
    wave = await wave_of(study, factors(RATE=(0.5, 0.3), WIDTH=(4, 8)))
    finish(study, wave, made(study, bowl))
    text = printed(*wave_tables(study.journal, "mar5", wave, 2))
    for title in (f"Screening, wave {wave}", "Effects on val_bpb", "Confirmation"):
        assert (f"{title} (self-reported)\n" in re.sub(" +\n", "\n", text)) is (made is Boasts)
    told = wave_json(study.journal, "mar5", wave, 2)
    assert told["self_reported"] is (made is Boasts)
    assert ("self-reported" in told["conclusion"]) is (made is Boasts)
    assert ("self-reported" in printed(results_table(study.journal, "mar5"))) is (made is Boasts)


async def test_effects_point_the_way_the_scores_do(study: Study) -> None:
    wave = await run(study, bowl, RATE=(0.5, 0.3), WIDTH=(4, 8))
    told = wave_json(study.journal, "mar5", wave, 2)["effects"]
    estimates = {effect["effect"]: effect["estimate"] for effect in told}
    assert estimates["RATE 0.3 → 0.5"] == pytest.approx(0.04, abs=0.002)
    assert estimates["WIDTH 4 → 8"] == pytest.approx(-0.0125, abs=0.002)


async def test_the_tables_hold_every_candidate_and_dashes_for_missing_scores(study: Study) -> None:
    wave = await run(study, bowl, RATE=(0.3, 0.9), WIDTH=(4, 8))
    text = printed(*wave_tables(study.journal, "mar5", wave, 2))
    for result in reading.results_of(study.journal, "mar5", wave=wave):
        assert result.experiment.candidate in text
    (line,) = [line for line in text.splitlines() if "RATE=0.9, WIDTH=8" in line]
    assert "—" in line and "diverged" in line
    table = printed(results_table(study.journal, "mar5"))
    assert table.count("—") == 2 and "0.000000" not in table


async def test_details_are_found_by_experiment_candidate_and_wave(study: Study) -> None:
    wave = await run(study, bowl, RATE=(0.3, 0.9))
    journal = study.journal
    kept = study.incumbent
    assert details(journal, "mar5", wave)["base"] == {"RATE": 0.5}
    assert details(journal, "mar5", kept.id)["commit"] == kept.commit
    one = details(journal, "mar5", "e0001")
    assert one["experiment"] == "e0001" and [row["label"] for row in one["attempts"]] == [None]
    for name in (wave, kept.id, "e0001"):
        json.dumps(details(journal, "mar5", name), allow_nan=False)
    with pytest.raises(UserError, match="study mar5 has no experiment, candidate or wave e9999"):
        details(journal, "mar5", "e9999")


async def test_the_standing_has_the_keys_of_the_contract_from_the_first_moment(study: Study) -> None:
    keys = ["study", "branch", "tip", "incumbent", "baseline", "budget", "counts", "clusters", "run", "health"]
    told = study_json(study.journal, "mar5", True)
    assert list(told) == keys
    assert told["incumbent"]["score"] is None and told["counts"] == {}
    assert told["health"]["controller_running"] is True and told["health"]["unfinished_wave"] is None
    assert set(told["budget"]) == {"hours", "gpu_hours", "usd", "llm_usd", "caps", "spent"} and told["run"] is None
    assert study_lines(study.journal, "mar5", True)[0].endswith("running now")
    wave = await wave_of(study, factors(RATE=(0.3,)))
    assert study_json(study.journal, "mar5", False)["health"]["unfinished_wave"] == wave
    assert f"wave {wave} is unfinished" in "\n".join(study_lines(study.journal, "mar5", False))


async def test_a_knob_that_looks_like_markup_is_shown_as_it_is(study: Study) -> None:
    wave = await run(study, lambda knobs, experiment: 1.0, SHAPE=("[/bold]", "[red]x"))
    text = printed(*wave_tables(study.journal, "mar5", wave, 2), results_table(study.journal, "mar5"))
    assert text.count("SHAPE=[/bold]") == 2
