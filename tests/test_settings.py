from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.records import Tier, UserError
from controller.settings import Settings, parse

WHOLE = """\
---
metric: {name: accuracy, goal: maximize}
edit: src/model.py
tiers:
  screening:
    accelerators: [H100, A100]
    seeds: 2
  confirmation: {accelerators: B200, seeds: 5, promote: 4}
budget:
  hours: 8
  gpu_hours: 128
  usd: 300
  llm_usd: 20.5
min_effect: 0.002
timeout_minutes: 7.5
---
# The research
"""


def front(text: str) -> str:
    return f"---\n{text}\n---\n# The research\n"


def refusal(program: str) -> str:
    with pytest.raises(UserError) as raised:
        parse(program)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "program",
    [
        "",
        "# The research\n",
        "prose\n---\nmin_effect: 1\n---\n",
        "---\n---\n",
        "---\n# a remark\n---\n",
        "--- \n\n---\t\n",
    ],
)
def test_without_front_matter_everything_has_its_default(program: str) -> None:
    settings = parse(program)
    assert settings == Settings()
    assert (settings.metric.name, settings.metric.goal, settings.edit) == ("val_bpb", "minimize", None)
    assert (settings.seeds(Tier.SCREENING), settings.seeds(Tier.CONFIRMATION)) == (1, 3)
    assert (settings.accelerators(Tier.SCREENING), settings.accelerators(Tier.CONFIRMATION)) == (("H100",), ("H200",))
    assert (settings.tiers.confirmation.promote, settings.min_effect, settings.timeout_minutes) == (3, 0.0005, 10)
    assert set(settings.budget.model_dump().values()) == {None}


def test_every_key_can_be_set() -> None:
    assert parse(WHOLE).model_dump() == {
        "metric": {"name": "accuracy", "goal": "maximize"},
        "edit": "src/model.py",
        "tiers": {
            "screening": {"accelerators": ("H100", "A100"), "seeds": 2},
            "confirmation": {"accelerators": ("B200",), "seeds": 5, "promote": 4},
        },
        "budget": {"hours": 8, "gpu_hours": 128, "usd": 300, "llm_usd": 20.5},
        "min_effect": 0.002,
        "timeout_minutes": 7.5,
    }


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_from_windows_are_read(newline: str, mark: str) -> None:
    assert parse(mark + WHOLE.replace("\n", newline)) == parse(WHOLE)


def test_the_project_s_own_program_says_what_it_means_to() -> None:
    settings = parse((Path(__file__).parents[1] / "program.md").read_text())
    assert (settings.metric.name, settings.edit) == ("val_bpb", "train/train.py")


@pytest.mark.parametrize("key", ["budget", "tiers", "metric", "min_effect", "edit"])
def test_a_key_with_nothing_behind_it_has_its_default(key: str) -> None:
    assert parse(front(f"{key}:")) == Settings()


def test_a_section_within_a_section_may_be_empty_too() -> None:
    assert parse(front("tiers:\n  screening:\n  confirmation:\n    seeds: 4")).tiers.confirmation.seeds == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "min_effect: 0\nmin_efect: 1",
            "line 3: unknown key min_efect; known here: metric, edit, tiers, budget, min_effect, timeout_minutes",
        ),
        (
            "budget: {hours: 1}\ntiers:\n\n  # ours\n  screening:\n    seed: 3",
            "line 7: unknown key tiers.screening.seed; known here: accelerators, seeds",
        ),
        ("tiers: {final: {seeds: 3}}", "line 2: unknown key tiers.final; known here: screening, confirmation"),
        (
            "budget:\n  gpu_hours: 8\n  dollars: 3",
            "line 4: unknown key budget.dollars; known here: hours, gpu_hours, usd, llm_usd",
        ),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_known_ones(text: str, said: str) -> None:
    assert refusal(front(text)) == f"program.md, {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_effect: small", "line 2: min_effect: input should be a valid number"),
        ("min_effect: -1", "line 2: min_effect: input should be greater than or equal to 0, not -1"),
        ("min_effect: .nan", "line 2: min_effect: input should be a finite number, not nan"),
        ("timeout_minutes: .inf", "line 2: timeout_minutes: input should be a finite number, not inf"),
        ("timeout_minutes: 0", "line 2: timeout_minutes: input should be greater than 0, not 0"),
        ("metric: val_bpb", "line 2: metric: input should be a valid dictionary or instance of Metric, not 'val_bpb'"),
        ("metric: {goal: smallest}", "line 2: metric.goal: input should be 'minimize' or 'maximize', not 'smallest'"),
        ("metric: {name: 'val bpb'}", "line 2: metric.name: string should match pattern"),
        ("budget:\n  gpu_hours: 128\n  hours: -3", "line 4: budget.hours: input should be greater than 0, not -3"),
        ("budget:\n  llm_usd: 1\n  usd: x", "line 4: budget.usd: input should be a valid number"),
        ("tiers:\n  confirmation:\n    seeds: 0", "line 4: tiers.confirmation.seeds: input should be greater than"),
        ("tiers:\n  screening:\n    seeds: 501", "line 4: tiers.screening.seeds: input should be less than"),
        ("tiers:\n  screening: {seeds: 1.5}", "line 3: tiers.screening.seeds: input should be a valid integer"),
        (
            "tiers:\n  screening:\n    seeds: 2\n  confirmation:\n    seeds: no number",
            "line 6: tiers.confirmation.seeds: input should be a valid integer",
        ),
        ("tiers:\n  screening: {accelerators: [1]}", "line 3: tiers.screening.accelerators.0: input should be a valid"),
        ("edit: [train.py]", "line 2: edit: input should be a valid string, not ['train.py']"),
        ("1: 2", "line 2: 1: keys should be strings"),
        ("- a\n- b", "line 2: the front matter must be keys with values"),
        ("just words", "line 2: the front matter must be keys with values"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_line(text: str, said: str) -> None:
    assert refusal(front(text)).startswith(f"program.md, {said}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("metric: {name: val_bpb", 2),
        ("min_effect: 1\nbudget: [1, 2\nedit: x", 4),
        ("min_effect: 1\n\tedit: x", 3),
        ("min_effect: 1\nedit: 'x", 3),
        ("a: b: c", 2),
        ("min_effect: *nowhere", 2),
    ],
)
def test_what_is_no_yaml_is_said_with_the_line_in_the_file(text: str, line: int) -> None:
    said = refusal(front(text))
    assert said.startswith(f"program.md, line {line}: ") and said.endswith("; correct the front matter")


@pytest.mark.parametrize("text", ["edit: a\x00b", "min_effect: 2026-13-45", "edit: \x07", "a: " + "[" * 5000])
def test_what_the_yaml_reader_chokes_on_is_one_sentence(text: str) -> None:
    assert refusal(front(text)).startswith("program.md")


@pytest.mark.parametrize(
    "program", ["---\nmin_effect: 1\n# The research\n", "---\n\nbudget:\n  hours: 1\n", '---\n"edit": x']
)
def test_front_matter_that_is_not_closed_is_refused(program: str) -> None:
    assert refusal(program).startswith("program.md, line 1: the front matter is not closed")


@pytest.mark.parametrize(
    "program", ["---\n", "---\n\n# The research\n\nLower is better.\n", "---\nRead this: it matters"]
)
def test_a_horizontal_rule_at_the_top_is_no_front_matter(program: str) -> None:
    assert parse(program) == Settings()


def test_a_long_wrong_value_is_cut() -> None:
    assert len(refusal(front(f"min_effect: {'x' * 5000}"))) < 300


@pytest.mark.parametrize("settings", [Settings(), parse(WHOLE)])
def test_what_the_journal_keeps_is_plain_json_and_means_the_same(settings: Settings) -> None:
    recorded: dict[str, Any] = settings.recorded()
    assert Settings.model_validate(recorded) == settings
