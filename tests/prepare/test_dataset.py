from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prepare import corpus, dataset
from prepare.profile import TINY

ROOT = Path(__file__).resolve().parents[2]
MAKE = "from prepare import dataset, profile; print(dataset.ensure(profile.TINY), dataset.hashes(profile.TINY))"


def test_the_tiny_data_is_the_same_everywhere(tiny_data: Path) -> None:
    assert np.fromfile(tiny_data / "train.bin", "<u2").size == 1_750_396
    assert np.fromfile(tiny_data / "val.bin", "<u2").size == 116_691
    assert np.load(tiny_data / "token_bytes.npy").shape == (512,)
    assert {name: digest[:12] for name, digest in dataset.hashes(TINY).items()} == {
        "data": "f0e26a64dbd5",
        "tokenizer": "dcfe2537551b",
    }


def test_validation_text_is_not_in_the_training_stream(tiny_data: Path) -> None:
    train = np.fromfile(tiny_data / "train.bin", "<u2").tobytes()
    val = np.fromfile(tiny_data / "val.bin", "<u2")
    assert not any(val[i : i + 100].tobytes() in train for i in range(50, len(val) - 100, 20_000))


def test_what_is_there_is_used_from_a_cache_that_cannot_be_written(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_make", lambda *_: pytest.fail("made again"))
    monkeypatch.setattr(dataset, "_lock", lambda *_: pytest.fail("locked"))
    assert dataset.ensure(TINY) == tiny_data


def test_another_vocabulary_is_another_directory(cache: Path) -> None:
    assert dataset.location(TINY) != dataset.location(dataclasses.replace(TINY, vocab_size=1024))
    assert dataset.location(TINY).parent == cache


def test_concurrent_processes_make_it_once_and_agree(tmp_path: Path) -> None:
    environment = {**os.environ, "AUTORESEARCH_CACHE": str(tmp_path)}
    commands = [
        subprocess.Popen([sys.executable, "-c", MAKE], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = {command.communicate()[0] for command in commands}
    assert [command.returncode for command in commands] == [0, 0, 0]
    assert len(outputs) == 1
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".lock"]


def test_leftovers_of_a_killed_process_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path))
    leftover = dataset.location(TINY).with_name(dataset.location(TINY).name + ".partial")
    leftover.mkdir()
    (leftover / "train.bin").write_text("half")
    dataset.verify(TINY)
    assert not leftover.exists()


def test_a_changed_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path))
    path = dataset.ensure(TINY) / "val.bin"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(corpus.ChangedData, match=r"val\.bin"):
        dataset.verify(TINY)


def test_the_manifest_names_what_was_made(tiny_data: Path) -> None:
    content = json.loads((tiny_data / "manifest.json").read_text())
    assert content["profile"] == "tiny"
    assert content["tokens"] == {"train.bin": 1_750_396, "val.bin": 116_691}
    assert set(content["sha256"]) == {path.name for path in tiny_data.iterdir()} - {"manifest.json"}
