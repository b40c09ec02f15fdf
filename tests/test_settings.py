from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.records import Tier, UserError
from controller.settings import Gate, Settings, parse, parse_gate

WHOLE = """\
---
metric: {name: accuracy, goal: maximize}
gates: [top-5/accuracy >= 0.96, peak_vram_mb < 80000]
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
prices: {H100: 2.5, B200: 6}
fleet: {H100: 13, H200: 3}
llm: {model: claude-sonnet-5-5, effort: low, usd_per_call: 0.5, prices: {input: 2, output: 10}}
early_stopping: false
min_effect: 0.002
simplicity: 0.0001
timeout_minutes: 7.5
---
# The research
"""


NAMED = "should be at most 64 letters, digits and _ . / @ -, from a letter to a letter or digit"
GATED = "should be a metric, one of >= > <= <, and a number, such as `accuracy >= 0.96`"


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
    assert settings.prices == {} and settings.fleet == {} and settings.early_stopping is True


def test_every_key_can_be_set() -> None:
    assert parse(WHOLE).model_dump() == {
        "metric": {"name": "accuracy", "goal": "maximize"},
        "gates": ("top-5/accuracy >= 0.96", "peak_vram_mb < 80000"),
        "edit": "src/model.py",
        "tiers": {
            "screening": {"accelerators": ("H100", "A100"), "seeds": 2},
            "confirmation": {"accelerators": ("B200",), "seeds": 5, "promote": 4},
        },
        "budget": {"hours": 8, "gpu_hours": 128, "usd": 300, "llm_usd": 20.5},
        "prices": {"H100": 2.5, "B200": 6},
        "fleet": {"H100": 13, "H200": 3},
        "llm": {
            "model": "claude-sonnet-5-5",
            "effort": "low",
            "usd_per_call": 0.5,
            "prices": {"input": 2, "output": 10},
        },
        "early_stopping": False,
        "min_effect": 0.002,
        "simplicity": 0.0001,
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
            "line 3: unknown key min_efect;"
            " known here: metric, gates, edit, tiers, budget, prices, fleet, llm, early_stopping, min_effect,"
            " simplicity, timeout_minutes",
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
        ("llm: {modell: x}", "line 2: unknown key llm.modell; known here: model, effort, usd_per_call, prices"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_known_ones(text: str, said: str) -> None:
    assert refusal(front(text)) == f"program.md, {said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_effect: small", "line 2: min_effect: input should be a valid number"),
        ("llm: {prices: {read: 1}}", "line 2: llm.prices.read: input should be 'input', 'output', 'cache_write' or"),
        ("llm: {prices: {input: 1}}", "line 2: llm.prices: should give input and output, both, not {'input': 1}"),
        ("min_effect: -1", "line 2: min_effect: input should be greater than or equal to 0, not -1"),
        ("min_effect: .nan", "line 2: min_effect: input should be a finite number, not nan"),
        ("timeout_minutes: .inf", "line 2: timeout_minutes: input should be a finite number, not inf"),
        ("timeout_minutes: 0", "line 2: timeout_minutes: input should be greater than 0, not 0"),
        ("metric: val_bpb", "line 2: metric: input should be a valid dictionary or instance of Metric, not 'val_bpb'"),
        ("metric: {goal: smallest}", "line 2: metric.goal: input should be 'minimize' or 'maximize', not 'smallest'"),
        ("metric: {name: 'val bpb'}", f"line 2: metric.name: {NAMED}, not 'val bpb'"),
        ("metric: {name: 3}", f"line 2: metric.name: {NAMED}, not 3"),
        ("gates: [accuracy]", f"line 2: gates.0: {GATED}, not 'accuracy'"),
        ("gates: 3", f"line 2: gates.0: {GATED}, not 3"),
        ("gates: {accuracy: 0.96}", f"line 2: gates.0: {GATED}, not {{'accuracy': 0.96}}"),
        ("gates:\n  - a > 1\n  - b == 2", f"line 4: gates.1: {GATED}, not 'b == 2'"),
        ("edit: x\ngates: [a > 1,\n  b > high]", f"line 4: gates.1: {GATED}, not 'b > high'"),
        ("budget:\n  gpu_hours: 128\n  hours: -3", "line 4: budget.hours: input should be greater than 0, not -3"),
        ("prices: {H100: 0}", "line 2: prices.H100: input should be greater than 0, not 0"),
        ("fleet: {H100: 0}", "line 2: fleet.H100: input should be greater than 0, not 0"),
        ("fleet: {H100: 1.5}", "line 2: fleet.H100: input should be a valid integer"),
        ("prices: 3", "line 2: prices: input should be a valid dictionary, not 3"),
        ("edit: x\nprices:\n  H100: 2\n  H200: much", "line 5: prices.H200: input should be a valid number"),
        ("early_stopping: perhaps", "line 2: early_stopping: input should be a valid boolean"),
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


@pytest.mark.parametrize("name", ["val_bpb", "eval/accuracy", "top-1", "mAP@0.5", "_loss", "a", "a" * 64])
def test_a_metric_may_have_any_name_that_a_log_prints_as_one_word(name: str) -> None:
    settings = parse(front(f"metric: {{name: {name}}}\ngates: {name} > 1"))
    assert settings.metric.name == settings.gates[0].metric == name


@pytest.mark.parametrize(
    "name", ["a b", "a\tb", "a=", "a:", "-a", "a-", "1a", "a" * 65, "[red]a", "a<b", "é", "a'", ""]
)
def test_a_metric_can_not_be_called_what_a_log_a_terminal_or_a_trailer_would_misread(name: str) -> None:
    assert f"metric.name: {NAMED}" in refusal(front(f"metric: {{name: {json.dumps(name)}}}"))
    with pytest.raises(ValueError, match="is no gate"):
        parse_gate(f"{name} > 1")


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("accuracy >= 0.96", Gate("accuracy", ">=", 0.96)),
        ("accuracy>=.96", Gate("accuracy", ">=", 0.96)),
        (" loss  <  -1e-3 ", Gate("loss", "<", -0.001)),
        ("top-1 <= 5", Gate("top-1", "<=", 5)),
        ("eval/f1 > +0", Gate("eval/f1", ">", 0)),
    ],
)
def test_a_gate_is_a_metric_an_operator_and_a_bound_and_prints_as_it_is_written(text: str, gate: Gate) -> None:
    assert parse_gate(text) == parse_gate(str(gate)) == gate


@pytest.mark.parametrize(
    "text",
    [
        "",
        "accuracy",
        ">= 1",
        "a => 1",
        "a = 1",
        "a >= ",
        "a >= high",
        "a > 1.2.3",
        "a > 1e999",
        "a > nan",
        "a > 1 2",
        "a b > 1",
    ],
)
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_gate(text)


@pytest.mark.parametrize(
    ("gate", "passing"),
    [("a >= 1", [1.0, 1.1]), ("a > 1", [1.1]), ("a <= 1", [0.9, 1.0]), ("a < 1", [0.9])],
)
def test_a_gate_passes_what_its_operator_says(gate: str, passing: list[float]) -> None:
    assert [mean for mean in (0.9, 1.0, 1.1) if parse_gate(gate).passes(mean)] == passing


def test_gates_are_recorded_as_they_are_written() -> None:
    assert parse(front("gates: accuracy >= 0.96")).recorded()["gates"] == ["accuracy >= 0.96"]
