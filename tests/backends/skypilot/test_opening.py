"""From `--infra` to a backend, what is checked before anything is asked for, and the commands about clusters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from controller.backends.skypilot.claims import LABEL, Claims
from controller.cli import main
from controller.clock import RealClock
from controller.infra import fleet_size, open_backend
from controller.records import NothingRan, UserError
from controller.settings import parse
from controller.workspace import find
from tests.backends.skypilot.double import ApiServerConnectionError, Sky, World
from tests.foreign import commit, workspace

TASK = "resources: {infra: slurm, accelerators: {H100: 1, H200: 1}}\nrun: python3 train.py\n"


@pytest.fixture
def sky(world: World, monkeypatch: pytest.MonkeyPatch) -> Sky:
    """The double, wherever a command loads SkyPilot."""
    world.enabled = ["Slurm"]
    made = Sky(world)
    for module in ("infra", "inventory"):
        monkeypatch.setattr(f"controller.{module}.load_sky", lambda: made)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = workspace(tmp_path / "foreign")
    commit(root, {"experiment.yaml": TASK})
    return root


def sentence(root: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner(mix_stderr=False).invoke(main, ["-C", str(root), *arguments])
    assert done.stderr.startswith("autoresearch: ") and done.stderr.count("\n") == 1, done.stderr
    return done.exit_code, done.stderr.removeprefix("autoresearch: ").rstrip()


def offer(price: float, count: int) -> Any:
    """A machine of a catalog, with so many accelerators, for so many dollars an hour."""
    return SimpleNamespace(price=price, accelerator_count=count)


def label_of(root: Path) -> dict[str, str]:
    """What the clusters of the workspace at `root` carry."""
    return {LABEL: Claims(root / ".autoresearch" / "clusters", RealClock()).owner}


WAVE = ("wave", "--clusters", "2", "--infra", "skypilot")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("", "experiment.yaml has no `run`, and this workspace no evaluator"),
        (TASK.replace("slurm", "k8s"), "SkyPilot has no access to kubernetes, only to slurm"),
        (TASK.replace("resources", "resorces"), "experiment.yaml is not a task of SkyPilot's"),
        (TASK + "workdir: /elsewhere\n", "workdir must be `.`"),
        (TASK + "envs: {WANDB_RUN: null}\n", "leaves WANDB_RUN open"),
    ],
)
def test_a_task_that_can_not_be_run_is_said_in_a_sentence(root: Path, sky: Sky, task: str, said: str) -> None:
    (root / "experiment.yaml").write_text(task)
    code, told = sentence(root, *WAVE)
    assert code == 2 and said in told
    assert not sky.world.launches, "nothing was asked for"
    assert not (root / ".autoresearch" / "journal.db").exists()


def test_no_infra_names_the_way_without_one(root: Path, world: World, sky: Sky) -> None:
    world.enabled = []
    code, told = sentence(root, *WAVE)
    assert code == 3 and "`sky check`" in told and "--infra local" in told


def test_a_server_that_is_not_there(root: Path, world: World, sky: Sky) -> None:
    world.fail("enabled_clouds", ApiServerConnectionError("no server at http://127.0.0.1:46580"))
    code, told = sentence(root, *WAVE)
    assert code == 3 and "can't be reached" in told and "--infra local" in told


def test_skypilot_that_is_not_installed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> Any:
        raise ImportError("No module named 'sky'")

    monkeypatch.setattr("controller.backends.skypilot.load", load)
    code, told = sentence(root, *WAVE)
    assert code == 2 and "not installed" in told and "--infra local" in told


def test_a_fleet_of_what_the_task_rules_out(root: Path, sky: Sky) -> None:
    program = (root / "program.md").read_text() if (root / "program.md").exists() else ""
    (root / "program.md").write_text("---\nfleet: {B200: 2}\n---\n" + program.rpartition("---\n")[2])
    code, told = sentence(root, "wave", "--infra", "skypilot")
    assert code == 2 and "B200" in told and "H100, H200" in told


def test_how_many_clusters_there_are_to_be() -> None:
    named = parse("---\nfleet: {H100: 13, H200: 3}\n---\n")
    assert fleet_size(None, named) == 16
    assert fleet_size(4, named) == 4
    assert fleet_size(5, parse("")) == 5
    with pytest.raises(UserError, match="names 16 clusters"):
        fleet_size(17, named)
    with pytest.raises(UserError, match="--clusters"):
        fleet_size(None, parse(""))


def test_prices_are_those_of_the_catalog_where_there_is_one(root: Path, world: World, sky: Sky) -> None:
    workspace_ = find(root)
    assert dict(open_backend("skypilot", workspace_, RealClock()).prices) == {}
    world.enabled = ["AWS", "Slurm"]
    world.price_list = {
        "H100": [offer(98.0, 8), offer(3.5, 1)],
        "H200": [offer(0.0, 1)],
        "L4": [offer(0.7, 1)],
    }
    assert dict(open_backend("aws", workspace_, RealClock()).prices) == {"H100": 3.5}


class TestClusters:
    @pytest.fixture
    def up(self, root: Path, world: World, sky: Sky) -> Callable[..., list[dict[str, Any]]]:
        """What the command lists."""

        def run() -> list[dict[str, Any]]:
            done = CliRunner(mix_stderr=False).invoke(main, ["-C", str(root), "clusters", "--json"])
            assert done.exit_code == 0, done.stderr
            found: list[dict[str, Any]] = json.loads(done.stdout)
            return found

        return run

    def test_lists_ours_and_those_that_are_called_like_ours(self, root: Path, world: World, up: Any) -> None:
        from controller.backends.skypilot.claims import LABEL, Claims

        world.somebodys(
            "autoresearch-mar5-01", labels={LABEL: Claims(root / ".autoresearch" / "clusters", RealClock()).owner}
        )
        world.somebodys("autoresearch-mar5-02")
        world.somebodys("something-else")
        assert [(one["cluster"], one["ours"]) for one in up()] == [
            ("autoresearch-mar5-01", True),
            ("autoresearch-mar5-02", False),
        ]

    def test_down_takes_ours_and_leaves_the_others(self, root: Path, world: World, up: Any) -> None:
        from controller.backends.skypilot.claims import LABEL, Claims

        world.somebodys(
            "autoresearch-mar5-01", labels={LABEL: Claims(root / ".autoresearch" / "clusters", RealClock()).owner}
        )
        world.somebodys("autoresearch-mar5-02")
        done = CliRunner(mix_stderr=False).invoke(main, ["-C", str(root), "down", "--all"])
        assert done.exit_code == 0 and done.stdout == "autoresearch-mar5-01 is down\n"
        assert [one["cluster"] for one in up()] == ["autoresearch-mar5-02"]
        done = CliRunner(mix_stderr=False).invoke(main, ["-C", str(root), "down"])
        assert done.stdout == "nothing to take down\n"

    def test_none(self, root: Path, sky: Sky) -> None:
        done = CliRunner(mix_stderr=False).invoke(main, ["-C", str(root), "clusters"])
        assert done.stdout == "no clusters are up\n"

    def test_without_a_server(self, root: Path, world: World, sky: Sky) -> None:
        world.fail("status", ApiServerConnectionError("no server"))
        code, told = sentence(root, "clusters")
        assert code == NothingRan.exit_code and "can't be asked" in told
