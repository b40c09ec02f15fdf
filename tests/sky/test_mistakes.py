"""What a person gets wrong, or what is not there, with the real SkyPilot: one sentence each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sky.conftest import Desk

WAVE = ("wave", "--tag", "apr1", "--clusters", "2", "--factor", "DEPTH=1,3")


def sentence(code: int, said: str) -> str:
    assert said.startswith("autoresearch: ") and said.count("\n") == 1, said
    return f"{code}: {said.removeprefix('autoresearch: ').rstrip()}"


@pytest.fixture
def task(desk: Desk) -> Path:
    return desk.root / "experiment.yaml"


def test_no_infra_is_enabled(desk: Desk, tmp_path: Path) -> None:
    said = sentence(*desk.fails(*WAVE, "--infra", "k8s"))
    assert said.startswith("2: SkyPilot has no access to kubernetes, only to slurm")


def test_no_server(desk: Desk) -> None:
    said = sentence(*desk.fails(*WAVE, SKYPILOT_API_SERVER_ENDPOINT="http://127.0.0.1:9"))
    assert said.startswith("3: SkyPilot") and "--infra local" in said


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (("H100: 1", "H1000: 1"), "H1000"),
        (("resources:", "resorces:"), "resorces"),
        (("workdir: .", "workdir: /tmp"), "workdir must be `.`"),
        (("name: rig", "name: [rig"), "experiment.yaml, line"),
        (("num_nodes: 1", "num_nodes: 2"), "set num_nodes to 1"),
    ],
)
def test_a_task_that_makes_no_sense(desk: Desk, task: Path, change: tuple[str, str], answer: str) -> None:
    right = task.read_text()
    try:
        task.write_text(f"num_nodes: 1\n{right}".replace(*change))
        said = sentence(*desk.fails(*WAVE))
    finally:
        task.write_text(right)
    assert said[0] in "23" and answer in said
