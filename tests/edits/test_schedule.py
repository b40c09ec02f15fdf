from __future__ import annotations

from pathlib import Path

import pytest

from controller.edits import read_knobs, same_schedule, set_knobs
from controller.edits.schedule import LARGEST
from controller.records import Value

TRAIN = (Path(__file__).parents[2] / "train" / "train.py").read_text()

FREE = {
    "DEPTH",
    "ASPECT_RATIO",
    "HEAD_DIM",
    "WINDOW_PATTERN",
    "SHORT_WINDOW_DIVISOR",
    "MLP_RATIO",
    "ROPE_BASE",
    "SOFTCAP",
    "EMBEDDING_STD",
    "UNEMBEDDING_STD",
    "EMBEDDING_RESIDUAL",
}
"""The knobs of train.py that decide what is learnt with, and not how learning goes."""


def other(value: Value) -> Value:
    match value:
        case str():
            return value + "L"
        case tuple():
            return tuple(map(other, value))
        case int() | float():
            return value * 2 + 1
        case _:
            raise AssertionError(value)


@pytest.mark.parametrize("knob", read_knobs(TRAIN))
def test_of_train_pys_knobs_those_of_the_model_leave_the_schedule_alone(knob: str) -> None:
    changed = set_knobs(TRAIN, {knob: other(read_knobs(TRAIN)[knob])})
    assert changed != TRAIN
    assert same_schedule(changed, TRAIN) is same_schedule(TRAIN, changed) is (knob in FREE)


def edited(old: str, new: str) -> str:
    assert TRAIN.count(old) == 1
    return TRAIN.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("F.relu(self.up(x)).square()", "F.gelu(self.up(x))"),
        ("x = x + mlp(norm(x))", "x = x + 0.5 * mlp(norm(x))"),
        ("        self.down = nn", "        self.extra = nn.Linear(8, 8)\n        self.down = nn"),
        ("class MLP(", "class Gate(nn.Module):\n    def forward(self, x):\n        return x\n\n\nclass MLP("),
        ('"""Two layers around', '"""The learning rate of two layers around'),
        ("return self.down(", "# the learning rate\n        return self.down("),
        ("    def forward(self, x: Tensor) -> Tensor:", "    def forward(self, x: Tensor, y: int = 0) -> Tensor:"),
        ("import functools\n", "import functools\nimport math\n"),
    ],
)  # fmt: skip
def test_edits_of_the_model_leave_the_schedule_alone(old: str, new: str) -> None:
    assert same_schedule(edited(old, new), TRAIN)
    assert same_schedule(TRAIN, edited(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    ramp = min(1.0, ", "    ramp = min(0.9, "),
        ("multiplier = up * (", "multiplier = up * 2 * ("),
        ("def set_schedules(optimizers:", "def set_schedules(optimizers, other=1, *, _:"),
        ("a, b, c = 3.4445", "a, b, c = 3.5"),
        ("    def step(self) -> None:", "    def step(self, much: int = 1) -> None:"),
        ("scale = (MODEL_DIM / 768) ** -0.5", "scale = 1.0"),
        ("            inputs, targets = next(data)  # the GPU", "            next(data)  # the GPU"),
        ("        step += 1\n", "        step += 1\n        torch.cuda.empty_cache()\n"),
        ("    loss, step = None, 0", "    loss, step = None, 100"),
        ("F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())", "F.mse_loss(model(inputs), targets)"),
        ("    trial.serve(model, depth=DEPTH)", "    average(model)\n    trial.serve(model, depth=DEPTH)"),
        ("x = x + attention(norm(x), tokens, cos, sin)", "x = x + F.dropout(attention(norm(x), tokens, cos, sin))"),
        ("import prepare\n", "import prepare\nfrom torch.optim.lr_scheduler import CosineAnnealingLR\n"),
        ("make_optimizers(model)\n    data", "other(model)\n    data"),
    ],
)  # fmt: skip
def test_edits_of_how_learning_goes_do_not(old: str, new: str) -> None:
    assert not same_schedule(edited(old, new), TRAIN)
    assert not same_schedule(TRAIN, edited(old, new))


SCRIPT = '''
PEAK_SIZE = 2
SIZE = 4
TOTAL_BATCH_SIZE = SIZE * 1024
WIDTH = 3
LAYERS = WIDTH * 2
HIGH = 0.5
model = build(LAYERS)


def set_schedules(step):
    """Sets them."""
    return helper(HIGH, step)


def helper(high, step):
    first = high / 2
    return first


def unrelated(x):
    first = x / 2
    second = x / 3
    return first + second


while step < 100:
    go(model)
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("WIDTH = 3", "WIDTH = 5", True),
        ("\nSIZE = 4", "\nSIZE = 8", False),  # the batch is computed from it
        ("HIGH = 0.5", "HIGH = 0.6", False),  # the schedule uses it
        ("first = high / 2", "first = high / 3", False),  # the schedule calls what it is in
        ("first = x / 2", "first = x / 4", True),
        ("    first = x / 2\n    second = x / 3\n", "    second = x / 3\n    first = x / 2\n", True),
        ("HIGH = 0.5\nmodel = build(LAYERS)", "model = build(LAYERS)\nHIGH = 0.5", False),  # all differ
        ("go(model)", "go(model, 2)", False),
        ("step < 100", "step < 200", False),
        ("def unrelated(x)", "def unrelated(y)", True),
        ("def unrelated(x)", "def elsewhere(x)", True),
        ("model = build(LAYERS)", "model = build(LAYERS, wide=True)", False),  # the loop refers to it
        ('    """Sets them."""\n', "", True),
    ],
)  # fmt: skip
def test_what_a_script_computes_from_or_calls_counts(old: str, new: str, same: bool) -> None:
    assert SCRIPT.count(old) == 1
    changed = SCRIPT.replace(old, new)
    assert same_schedule(changed, SCRIPT) is same_schedule(SCRIPT, changed) is same


@pytest.mark.parametrize(
    "source", ["def", "x = (", "\0", "x = '\ud800'", "(" * 500, "x = " + "+".join("1" * 900), "#" * (LARGEST + 1)]
)
def test_what_cannot_be_read_has_another_schedule(source: str) -> None:
    assert not same_schedule(source, TRAIN)
    assert not same_schedule(TRAIN, source)


def test_a_file_has_its_own_schedule_with_other_layout_and_remarks() -> None:
    assert same_schedule(TRAIN, TRAIN)
    laid_out = TRAIN.replace("DEPTH = 8  # transformer blocks", "DEPTH = (8)\n'the learning rate of a remark'\n")
    assert laid_out != TRAIN and same_schedule(laid_out, TRAIN)
