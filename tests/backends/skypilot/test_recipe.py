"""experiment.yaml: all the ways in which SkyPilot lets it be written, and the mistakes that can be made in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.backends.skypilot.provisioning import IDLE_MINUTES, Plan
from controller.backends.skypilot.recipe import Recipe, for_fleet, read
from controller.records import UserError

Reader = Callable[..., Recipe]

UPSTREAM = """
# Run: sky launch -c gpu-01 experiment.yaml --env EXPERIMENT_ID=exp-01 --env EXPERIMENT_DESC="baseline"
resources:
  accelerators: {H100:1, H200:1}
  image_id: docker:nvcr.io/nvidia/pytorch:24.07-py3

workdir: "."

envs:
  EXPERIMENT_ID: exp-00
  EXPERIMENT_DESC: "no description"

setup: |
  pip install uv
  uv sync
  uv run prepare.py

run: |
  uv run train.py 2>&1 | tee run.log
  echo "EXPERIMENT_STATUS: done"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Reader:
    """Reads an experiment.yaml of this text."""

    def of(text: str, environ: Mapping[str, str] | None = None) -> Recipe:
        (tmp_path / "experiment.yaml").write_text(text)
        return read(tmp_path, environ or {})

    return of


def accelerators(recipe: Recipe) -> list[dict[str, float] | None]:
    return [one.get("accelerators") for one in recipe.choices()]


@pytest.mark.parametrize(
    ("written", "meant", "kind"),
    [
        ("accelerators: H100", [{"H100": 1}], "any_of"),
        ("accelerators: H100:8", [{"H100": 8}], "any_of"),
        ("accelerators: L4:0.5", [{"L4": 0.5}], "any_of"),
        ("accelerators: {H100: 2}", [{"H100": 2}], "any_of"),
        ("accelerators: {H100: 1, H200: 1}", [{"H100": 1}, {"H200": 1}], "any_of"),
        ("accelerators: {H100:1, H200:4}", [{"H100": 1}, {"H200": 4}], "any_of"),
        ("accelerators: {H100, H200}", [{"H100": 1}, {"H200": 1}], "any_of"),
        ("accelerators: [H200, 'H100:2']", [{"H200": 1}, {"H100": 2}], "ordered"),
        ("any_of: [{accelerators: H100}, {accelerators: H200}]", [{"H100": 1}, {"H200": 1}], "any_of"),
        ("ordered: [{accelerators: H100}, {accelerators: H200}]", [{"H100": 1}, {"H200": 1}], "ordered"),
        ("accelerators: H100\n  any_of: [{infra: aws}, {infra: gcp}]", [{"H100": 1}, {"H100": 1}], "any_of"),
        ("accelerators: {A: 1, B: 1}\n  any_of: [{infra: aws}, {infra: gcp}]", [{"A": 1}, {"B": 1}] * 2, "any_of"),
        ("cpus: 4+", [None], "any_of"),
        ("accelerators:", [None], "any_of"),
    ],
)  # fmt: skip
def test_accelerators_are_understood_however_they_are_written(
    recipe: Reader, written: str, meant: list[Any], kind: str
) -> None:
    found = recipe(f"resources:\n  {written}\n")
    assert accelerators(found) == meant
    assert list(found.task(found.choices())["resources"]) == [kind]


def test_what_the_alternatives_have_in_common_is_in_each(recipe: Reader) -> None:
    found = recipe("resources: {memory: 32+, any_of: [{infra: aws, cpus: 8}, {infra: gcp}], accelerators: H100}")
    assert found.choices() == [
        {"memory": "32+", "infra": "aws", "cpus": 8, "accelerators": {"H100": 1}},
        {"memory": "32+", "infra": "gcp", "accelerators": {"H100": 1}},
    ]


def test_an_infra_that_is_asked_for_takes_the_place_of_what_is_written(recipe: Reader) -> None:
    found = recipe("resources: {cloud: aws, region: us-east-1, zone: us-east-1a, accelerators: H100, use_spot: true}")
    assert found.choices("slurm/rig") == [{"accelerators": {"H100": 1}, "use_spot": True, "infra": "slurm/rig"}]
    assert found.choices() == [
        {"cloud": "aws", "region": "us-east-1", "zone": "us-east-1a", "accelerators": {"H100": 1}, "use_spot": True}
    ]


def test_without_resources_the_choice_is_skypilots(recipe: Reader) -> None:
    found = recipe("run: true\n")
    assert found.choices() == [{}] and found.wants() == {}


def test_the_fleet_picks_among_the_alternatives(recipe: Reader) -> None:
    found = recipe("resources: {any_of: [{accelerators: 'H100:8', infra: aws}, {accelerators: H200, infra: gcp}]}")
    assert for_fleet(found, "h100", "skypilot") == [{"accelerators": {"H100": 8}, "infra": "aws"}]
    assert for_fleet(found, "H200", "k8s") == [{"accelerators": {"H200": 1}, "infra": "k8s"}]
    with pytest.raises(UserError, match=r"A100.* experiment\.yaml asks for H100, H200"):
        for_fleet(found, "A100", "skypilot")


def test_the_fleet_decides_where_the_recipe_names_no_accelerator(recipe: Reader) -> None:
    found = recipe("resources: {cpus: 4}")
    assert for_fleet(found, "A100", "skypilot") == [{"cpus": 4, "accelerators": {"A100": 1}}]


def test_upstreams_recipe_is_used_as_it_is(recipe: Reader) -> None:
    found = recipe(UPSTREAM)
    assert accelerators(found) == [{"H100": 1}, {"H200": 1}]
    assert found.wants() == {"H100": 1, "H200": 1}
    assert found.environment == {"EXPERIMENT_ID": "exp-00", "EXPERIMENT_DESC": "no description"}
    assert found.setup.splitlines() == ["pip install uv", "uv sync", "uv run prepare.py"]
    assert found.run.endswith('echo "EXPERIMENT_STATUS: done"\n')
    task = found.task(found.choices(), workdir="/elsewhere", run="mine")
    assert (task["workdir"], task["run"], task["setup"]) == ("/elsewhere", "mine", found.setup)
    assert all(one["image_id"] == "docker:nvcr.io/nvidia/pytorch:24.07-py3" for one in task["resources"]["any_of"])


def test_this_projects_own_recipe_is_one(tmp_path: Path) -> None:
    own = read(Path(__file__).parents[3], {})
    assert own.wants() == {"H100": 1, "H200": 1} and own.nodes == 1 and own.run


def test_paths_of_file_mounts_are_those_of_the_workspace(recipe: Reader, tmp_path: Path) -> None:
    found = recipe(
        "file_mounts: {/a: data, /b: ./more/data, /c: /whole, /d: ~/home, /e: s3://bucket, /f: {source: gs://x}}"
    )
    assert found.task([])["file_mounts"] == {
        "/a": f"{tmp_path}/data",
        "/b": f"{tmp_path}/more/data",
        "/c": "/whole",
        "/d": "~/home",
        "/e": "s3://bucket",
        "/f": {"source": "gs://x"},
    }


def test_what_is_left_open_is_the_environments(recipe: Reader) -> None:
    text = "envs: {A: null, B: 2, C: ''}\nsecrets: {TOKEN: null}\n"
    found = recipe(text, {"A": "a", "TOKEN": "t", "OTHER": "o"})
    assert found.environment == {"A": "a", "B": "2", "C": ""}
    assert found.secrets == {"TOKEN": "t"}
    assert found.task([])["envs"] == found.environment
    assert "secrets" not in found.task([])
    with pytest.raises(UserError, match="leaves A open; set it in the environment"):
        recipe(text, {"TOKEN": "t"})
    with pytest.raises(UserError, match="leaves TOKEN open; set it in the environment"):
        recipe(text, {"A": "a"})


@pytest.mark.parametrize(
    ("written", "minutes"),
    [("5", 5), ("30m", 30), ("2h", 120), ("{idle_minutes: 7, down: true}", 7), ("true", None), ("false", None)],
)
def test_idle_minutes_are_the_recipes_where_it_names_them(recipe: Reader, written: str, minutes: int | None) -> None:
    found = recipe(f"resources: {{autostop: {written}}}")
    assert found.idle_minutes == minutes
    assert Plan(found).idle_minutes == (minutes or IDLE_MINUTES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("resources: {accelerators: 'H100:many'}", "'many' is no number of accelerators"),
        ("resources: {accelerators: {H100: -1}}", "-1 is no number of accelerators"),
        ("resources: {accelerators: 'H100:nan'}", "'nan' is no number of accelerators"),
        ("resources: {accelerators: 'H100:1e999'}", "'1e999' is no number of accelerators"),
        ("resources: H100", "resources must be keys with values"),
        ("resources: {any_of: [H100]}", "any_of and ordered must be lists of resources"),
        ("resources: {ordered: {accelerators: H100}}", "any_of and ordered must be lists of resources"),
        ("envs: [A]", "envs must be names with values"),
        ("secrets: [A]", "secrets must be names with values"),
        ("file_mounts: [A]", "file_mounts must be paths"),
        ("num_nodes: two", "num_nodes must be a whole number"),
        ("num_nodes: 0", "num_nodes must be a whole number"),
        ("workdir: /elsewhere", "workdir must be `.`"),
        ("workdir: {url: https://example.org/x.git}", "workdir must be `.`"),
        ("- run", "must be a SkyPilot task"),
        ("run: [\n", "experiment.yaml, line 2: can't be read"),
        ("a: 1\n---\nb: 2\n", "can't be read"),
        ("run: \x07", "can't be read"),
        ("a: " * 5000, "can't be read"),
    ],
)
def test_a_mistake_is_one_sentence(recipe: Reader, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe(text)
    sentence = str(caught.value)
    assert said in sentence and "experiment.yaml" in sentence and "\n" not in sentence


def test_a_missing_recipe_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no experiment.yaml, .* add one, or use --infra local"):
        read(tmp_path, {})


@pytest.mark.parametrize(
    ("text", "infra", "infras", "expected"),
    [
        ("", "skypilot", ("kubernetes",), False),
        ("", "skypilot", ("kubernetes", "Slurm"), True),
        ("resources: {infra: aws}", "skypilot", ("aws", "slurm"), False),
        ("resources: {infra: slurm/rig}", "skypilot", (), True),
        ("resources: {any_of: [{infra: aws}, {infra: slurm}]}", "skypilot", (), True),
        ("resources: {infra: aws}", "slurm", (), True),
        ("resources: {cloud: Slurm}", "skypilot", (), True),
    ],
)
def test_slurm_is_told_from_what_is_asked_for_and_what_there_is(
    recipe: Reader, text: str, infra: str, infras: tuple[str, ...], expected: bool
) -> None:
    assert Plan(recipe(text), infra, infras=infras).may_be_slurm is expected
