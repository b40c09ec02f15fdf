"""The progress picture, read back from the figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.clock import VirtualClock
from controller.journal import Journal, export, reading
from controller.records import Label, Role
from dashboards.figures import LABELLED, progress_figure, value_range
from dashboards.history import history
from dashboards.labels import Box, place
from dashboards.text import knob_list, paragraph, plain, shorten, template
from dashboards.traces import MANY


def draw(journal: Journal, tag: str) -> Any:
    study = reading.study(journal, tag)
    assert study is not None
    rows = export.results(journal, tag)
    kept = [(wave, candidate) for wave, candidate, *_ in reading.kept(journal, tag)]
    steps = history(rows, reading.decisions(journal, tag), kept, study.baseline, study.metric, {})
    return progress_figure(rows, steps, study.metric, study.minimize)


def trace(figure: Any, name: str) -> Any:
    (found,) = [one for one in figure.data if one.name == name]
    return found


@pytest.fixture
def synthetic(tmp_path: Path, fill: Callable[[Path, int], str]) -> Callable[[int], tuple[Journal, str]]:
    def make(experiments: int) -> tuple[Journal, str]:
        directory = tmp_path / str(experiments)
        tag = fill(directory, experiments)
        journal = Journal.read(directory, VirtualClock())
        assert journal is not None
        return journal, tag

    return make


def test_every_experiment_is_drawn_once_with_a_score_or_as_a_failure(synthetic: Any) -> None:
    figure = draw(*synthetic(60))
    tried = [one for one in figure.data if one.name.startswith(("screening", "confirmation"))]
    failed = [one for one in figure.data if one.yaxis == "y2"]
    assert sorted(number for one in (*tried, *failed) for number in one.x) == list(range(1, 61))


def test_a_failure_is_a_cross_off_the_scale_of_scores(study: Any) -> None:
    study.start()
    study.design(("e1", "k0", Role.CONTROL), ("e2", "k1", Role.CELL))
    study.run("e1", 1.0)
    study.run("e2", Label.OUT_OF_MEMORY)
    cross = trace(draw(study.journal, study.tag), "failed")
    assert (cross.yaxis, cross.marker.symbol, list(cross.x)) == ("y2", "x-thin", [2])
    assert cross.customdata[0][1] == "out_of_memory: it broke"


def test_tier_and_accelerator_can_be_told_apart(study: Any) -> None:
    study.start()
    study.design(("e1", "k0", Role.CONTROL), ("e2", "k0", Role.CONTROL))
    study.run("e1", 1.0, "A100")
    study.run("e2", 1.0, "H100")
    study.confirm(("e3", "k0", Role.CONFIRMATION))
    study.run("e3", 1.0, "H100")
    figure = draw(study.journal, study.tag)
    names = ("screening · A100", "screening · H100", "confirmation · H100")
    assert [trace(figure, name).marker.symbol for name in names] == ["circle-open", "diamond-open", "diamond"]


def test_hovering_tells_who_it_was_what_for_and_with_which_knobs(study: Any) -> None:
    study.start()
    study.design(("e1", "k1", Role.CELL), hypothesis="wider is better", WIDTH=512, DEPTH=8)
    study.run("e1", 1.0)
    point = trace(draw(study.journal, study.tag), "screening · H100")
    assert list(point.customdata[0]) == ["e1 · k1 · cell · seed 1", "wider is better", "WIDTH = 512, DEPTH = 8"]
    assert "val_bpb <b>%{y:.6f}</b>" in point.hovertemplate


@pytest.mark.parametrize(("minimize", "word"), [(True, "lower"), (False, "higher")])
def test_both_directions_of_a_metric_are_drawn_upright(study: Any, minimize: bool, word: str) -> None:
    study.start("accuracy", minimize)
    study.design(("e1", "k0", Role.CONTROL), ("e2", "k0", Role.CONTROL))
    study.run("e1", 0.9, metric="accuracy")
    study.run("e2", 0.91, metric="accuracy")
    axis = draw(study.journal, study.tag).layout.yaxis
    assert axis.title.text == f"accuracy ({word} is better)"
    room_below, room_above = 0.9 - axis.range[0], axis.range[1] - 0.91
    assert (room_below > room_above) is minimize


@pytest.mark.parametrize("self_reported", [True, False])
def test_the_axis_and_every_hover_text_say_whose_word_a_score_is(study: Any, self_reported: bool) -> None:
    name = "eval/" + "x" * 59
    study.start(name)
    study.design(("e1", "k0", Role.CONTROL), ("e2", "k1", Role.CELL))
    study.run("e1", 1.0, metric=name, self_reported=self_reported)
    study.run("e2", 0.9, metric=name, self_reported=self_reported)
    figure = draw(study.journal, study.tag)
    assert (", self-reported (lower is better)" in figure.layout.yaxis.title.text) is self_reported
    hovers = [trace(figure, name).hovertemplate for name in ("screening · H100", "baseline")]
    assert [", self-reported <b>%{y" in hover for hover in hovers] == [self_reported] * 2


def test_the_line_steps_at_the_winners_to_their_scores(synthetic: Any) -> None:
    figure = draw(*synthetic(200))
    line, baseline, kept = (trace(figure, name) for name in ("best confirmed ± noise", "baseline", "kept"))
    scores = [*baseline.y, *kept.y]
    assert len(scores) > 3
    assert list(line.y) == [score for score in scores for _ in range(2)]
    assert list(line.x[::2]) == [*baseline.x, *kept.x]
    low, high = (one for one in figure.data if one.name == "noise")
    assert all(below < level < above for below, level, above in zip(low.y, line.y, high.y, strict=True))


def test_the_last_winners_are_named_and_their_number_is_bounded(synthetic: Any) -> None:
    figure = draw(*synthetic(1000))
    assert 0 < len(figure.layout.annotations) <= LABELLED
    assert all(len(one.text) <= 46 for one in figure.layout.annotations)


def test_an_empty_study_has_a_friendly_picture(study: Any) -> None:
    study.start()
    (note,) = draw(study.journal, study.tag).layout.annotations
    assert "No score yet" in note.text


def test_a_study_of_which_nothing_has_ended_says_how_much_is_planned(study: Any) -> None:
    study.start()
    study.design(("e1", "k0", Role.CONTROL))
    (note,) = draw(study.journal, study.tag).layout.annotations
    assert "the first of 1 planned" in note.text


def test_a_large_study_is_drawn_with_webgl_throughout(synthetic: Any) -> None:
    figure = draw(*synthetic(MANY + 1))
    assert {one.type for one in figure.data} == {"scattergl"}


def test_one_terrible_score_does_not_squeeze_the_others() -> None:
    assert value_range([1.0, 1.01, 1.02, 1.03, 9.0], [], minimize=True).high < 1.1
    assert value_range([0.5, 0.5], [], minimize=True).low < 0.5


def test_labels_cover_neither_each_other_nor_an_obstacle() -> None:
    points = [(500.0, 200.0), (505.0, 202.0), (510.0, 204.0)]
    wall = Box(0, 195, 495, 209)
    labels = place(points, ["first", "second", "third"], [wall], [], (1000, 400), down=True)
    boxes = []
    for label in labels:
        x, y = points[label.index][0] + label.x, points[label.index][1] + label.y
        boxes.append(Box(x - 40, y - 9, x, y + 9) if label.leftwards else Box(x, y - 9, x + 40, y + 9))
    assert [label.index for label in labels] == [2, 1, 0]
    every = [*boxes, wall]
    assert not any(one.meets(other) for number, one in enumerate(every) for other in every[:number])


def test_a_label_without_room_is_left_out() -> None:
    assert place([(5.0, 5.0)], ["far too long for this place"], [], [], (50, 10), down=True) == []


def test_text_is_cut_at_a_word_and_what_does_not_print_becomes_space() -> None:
    assert shorten("one two three four", 16) == "one two three…"
    assert shorten("a\x00b\nc\ud800d\u202ee", 99) == "a b c d e"
    assert shorten("x" * 10_000, 20) == "x" * 19 + "…"


def test_text_is_escaped_after_it_is_cut() -> None:
    assert plain("<b>&amp;", 4) == "&lt;b&gt;…"
    assert paragraph("aa <i> bb", 99, width=6) == "aa &lt;i&gt;<br>bb"


def test_a_name_can_not_become_a_variable_of_a_hover_template() -> None:
    assert template("%{customdata[0]}", 40) == "%&#123;customdata[0]}"


def test_a_list_of_many_knobs_is_bounded() -> None:
    assert knob_list({f"K{number}": number for number in range(500)}).endswith("K11 = 11, …")
