"""What a cluster is found to have: its GPU, whether programs may use it, its Python, its packages."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import pytest

from tests.harness.attempts import Attempts

SCORED = "print('val_bpb: 1.25')"
SMI = """#!/bin/sh
case "$*" in
  *--query-gpu=name*) what="NVIDIA H100 80GB HBM3" ;;
  *--query-gpu=driver_version*) what="550.54.15" ;;
  *) exit 1 ;;
esac
echo "$what"
case "$*" in *"-i 0"*) ;; *) echo "$what" ;; esac
"""


@pytest.fixture
def with_gpus(attempts: Attempts, tmp_path: Path) -> Attempts:
    """Attempts on a machine whose nvidia-smi speaks of two GPUs; nvidia-modprobe leaves a file beside itself."""
    (tmp_path / "bin").mkdir()
    programs = {"nvidia-smi": SMI, "nvidia-modprobe": f"#!/bin/sh\n> {tmp_path}/bin/awake\n"}
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    attempts.environment["PATH"] = f"{tmp_path}/bin:{os.environ['PATH']}"
    return attempts


LIMITED = "import resource; print('limited', resource.getrlimit(resource.RLIMIT_DATA)[0] > 0)\n" + SCORED


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "-1,0"])
def test_a_gpu_that_is_hidden_from_programs_is_reported_and_not_trained_on(
    with_gpus: Attempts, tmp_path: Path, visible: str
) -> None:
    with_gpus.environment["CUDA_VISIBLE_DEVICES"] = visible
    ran = with_gpus.foreign(LIMITED)
    assert (ran.result["accelerator"], ran.result["device"]) == ("H100", "cpu")
    assert "| limited True" in ran.output
    assert not (tmp_path / "bin/awake").exists()


@pytest.mark.parametrize("visible", [None, "0", "1,0", "GPU-5ad"])
def test_a_gpu_that_is_not_hidden_is_trained_on(with_gpus: Attempts, tmp_path: Path, visible: str | None) -> None:
    if visible is not None:
        with_gpus.environment["CUDA_VISIBLE_DEVICES"] = visible
    ran = with_gpus.foreign(LIMITED)
    assert (ran.result["accelerator"], ran.result["device"]) == ("H100", "cuda")
    assert "| limited False" in ran.output
    assert (tmp_path / "bin/awake").exists() or Path("/dev/nvidia-uvm").exists()


@pytest.mark.parametrize(("visible", "device"), [("", "cpu"), ("0", "cuda")])
def test_a_trial_is_told_what_it_trains_on(with_gpus: Attempts, visible: str, device: str) -> None:
    with_gpus.environment["CUDA_VISIBLE_DEVICES"] = visible
    ran = with_gpus.evaluated("ready(); print('on', TERMS['device']); train(); serve()\n")
    assert ran.ending == ("done", "")
    assert f"| on {device}" in ran.output
    assert (ran.result["accelerator"], ran.result["device"]) == ("H100", device)


def test_without_a_gpu_the_device_is_the_cpu(attempts: Attempts, tmp_path: Path) -> None:
    attempts.environment["PATH"] = str(tmp_path)
    ran = attempts.foreign(SCORED, survey=True)
    assert (ran.result["accelerator"], ran.result["device"]) == ("CPU", "cpu")
    found = ran.result["environment"]
    assert (found["gpu"], found["driver"], found["gpus"]) == ("", "", 0)


def test_a_survey_says_what_is_there_and_only_where_it_is_asked_for(with_gpus: Attempts) -> None:
    found = with_gpus.foreign(SCORED, survey=True).result["environment"]
    assert set(found) == {"gpu", "driver", "gpus", "python", "machine", "packages"}
    assert (found["gpu"], found["driver"], found["gpus"]) == ("NVIDIA H100 80GB HBM3", "550.54.15", 2)
    assert found["python"] == platform.python_version()
    assert found["machine"] == platform.machine()
    assert found["packages"]["numpy"] == metadata.version("numpy")
    assert "environment" not in with_gpus.foreign(SCORED).result


def test_a_survey_counts_the_gpus_that_are_its_own(with_gpus: Attempts) -> None:
    with_gpus.environment["CUDA_VISIBLE_DEVICES"] = "0"
    assert with_gpus.foreign(SCORED, survey=True).result["environment"]["gpus"] == 1


def test_an_attempt_that_fails_tells_of_its_cluster_all_the_same(attempts: Attempts) -> None:
    ran = attempts.foreign("raise ValueError", survey=True)
    assert ran.ending[0] == "crash"
    assert "numpy" in ran.result["environment"]["packages"]


def package(folder: Path, name: str, version: str | None) -> None:
    """A package's record, without a version a broken one."""
    record = folder / f"{name}-1.dist-info"
    record.mkdir(parents=True)
    if version is not None:
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_packages_have_one_name_and_one_version_and_a_broken_one_is_left_out(
    attempts: Attempts, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    package(first, "Two__Words.and_More", "1.2")
    package(second, "two-words-and-more", "3.4")
    package(first, "broken", None)
    (first / "odd-1.dist-info").mkdir()
    (first / "odd-1.dist-info/METADATA").write_bytes(b"\xff\xfe\0Name: odd")
    attempts.environment["PYTHONPATH"] = f"{first}:{second}"
    laid = attempts.lay_out({"train.py": SCORED.encode()}, evaluated=False, survey=True)
    package(laid[0] / "bundle", "of-the-bundle", "1")
    found = attempts.finish(laid).result["environment"]["packages"]
    assert found["two-words-and-more"] == "1.2"
    assert not {"broken", "odd", "of-the-bundle", "Two__Words.and_More"} & set(found)


def test_packages_without_end_are_cut(attempts: Attempts, tmp_path: Path) -> None:
    for number in range(520):
        package(tmp_path / "many", f"aaa-{number:03d}", "1")
    attempts.environment["PYTHONPATH"] = str(tmp_path / "many")
    found = attempts.foreign(SCORED, survey=True).result["environment"]["packages"]
    assert len(found) == 512
    assert (min(found), max(found)) == ("aaa-000", "aaa-511")
