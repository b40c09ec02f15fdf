"""No attack gains anything: each ends with a label or a score no better than the honest one, and leaves nothing."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.harness.fingerprint import fingerprint
from tests.attacks import models, reaching, speaking
from tests.attacks.attack import Attack
from tests.harness.attempts import NONCE, SPEAKER, Attempts
from tests.processes import alive_in, alive_with, namespaces_allowed, wait_for_the_end_of
from tests.rewrites.rewriting import replaced, tiny_train

TRAINED = {**models.LEAKS, **models.STATEFUL, **models.TIME, **models.CODE}
SPOKEN = {
    **speaking.CLAIMS,
    **speaking.OWN_PROCESS,
    **speaking.PROTOCOL,
    **speaking.LOGITS,
    **speaking.PROCESSES,
    **speaking.OUTPUT,
    **reaching.REACHES,
}
HONEST = {
    "honest trainer": Attack(tiny_train, "done"),
    "honest speaker": Attack("ready(); train(); serve()", "done"),
}
ATTACKS = {**TRAINED, **SPOKEN}
SANDBOXED = namespaces_allowed()
EDIT = "train/train.py"
TOKENS = {True: 2**13, False: 2**18}
CPU_SECONDS = {True: 20.0, False: 3.0}


@dataclass(frozen=True)
class End:
    """How an attempt ended. ending: its label, or `nothing` without a valid result. left: what it left elsewhere."""

    ending: str
    score: float | None
    output: str
    alive: dict[int, str]
    left: list[str]


def files_in(*directories: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything below."""
    found = (path for directory in directories for path in directory.rglob("*"))
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found if path.is_file()}


@pytest.fixture(scope="module")
def ends(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    cache: Path,
    prepare_files: Mapping[str, bytes],
) -> Iterator[dict[str, Future[End]]]:
    """The attempts of all attacks that are asked for, and of those they are compared with, two at a time."""
    base = tmp_path_factory.mktemp("attacks")
    text = prepare_files["prepare/profile.py"].decode()

    def run(name: str, attack: Attack) -> End:
        trained, marker = callable(attack.source), os.urandom(8).hex()
        source = attack.source() if callable(attack.source) else SPEAKER + attack.source + "\n"
        budget = f"Budget(tokens={TOKENS[trained]}, seconds=None, cpu_seconds={CPU_SECONDS[trained]},"
        profile = replaced(text, {"Budget(tokens=2**18, seconds=None, cpu_seconds=20.0,": budget})
        edit = EDIT if trained else "train.py"
        files = {**prepare_files, "prepare/profile.py": profile.encode()}
        files[edit] = source.replace("MARKER", marker).encode()
        attempts = Attempts(base / marker, cache, prepare_files)
        hashes = fingerprint(files.items(), edit)
        laid = attempts.lay_out(files, evaluated=True, edit=edit, hashes=hashes, timeout=attack.timeout)
        before = files_in(cache)
        output = finish(attempts, laid)
        directory = laid[0]
        ending, score = outcome(directory)
        if ending == "nothing":  # killing what is left is then the backend's part; the trainer itself ends with it
            wait_for_the_end_of(*alive_in(directory))
        left = [path.name for path in (base / marker).iterdir() if path != directory]
        left += [path for path, seen in files_in(cache).items() if before.get(path) != seen]
        return End(ending, score, output, {**alive_in(directory), **alive_with(marker)}, left)

    asked = {item.name for item in request.session.items}
    runs = HONEST | {name: attack for name, attack in ATTACKS.items() if any(f"[{name}]" in test for test in asked)}
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run, name, attack) for name, attack in runs.items()}
        pool.shutdown(cancel_futures=True)


def finish(attempts: Attempts, laid: tuple[Path, bytes]) -> str:
    """Run an attempt until its harness ends, or is stopped, which only a kill can follow; returns its output."""
    printed: list[bytes] = []
    with attempts.started(laid) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=lambda stream: printed.extend(stream), args=[process.stdout])
        reader.start()
        seen = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        if seen is not None and seen.si_code == os.CLD_STOPPED:
            process.kill()
        process.wait()
        reader.join()
    return b"".join(printed).decode()


def outcome(directory: Path) -> tuple[str, float | None]:
    """The attempt's label, or `nothing`, and its score."""
    try:
        result = json.loads((directory / "result.json").read_text())
    except (OSError, ValueError):
        return "nothing", None
    if result.get("nonce") != NONCE:
        return "nothing", None
    return result["status"], result["metrics"].get("val_bpb")


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_gained_by_a_trainer_that(ends: Mapping[str, Future[End]], name: str) -> None:
    if name in reaching.REACHES and not SANDBOXED:
        pytest.skip("this system refuses namespaces")
    attack, end = ATTACKS[name], ends[name].result()
    honest = ends["honest trainer" if callable(attack.source) else "honest speaker"].result()
    assert honest.ending == "done", honest.output
    assert honest.score is not None
    allowed = attack.endings.split()
    if end.ending == "done":
        assert "no_gain" in allowed, end.output
        assert end.score is not None
        assert end.score >= honest.score - 1e-6
    else:
        assert end.ending in allowed, end.output
        assert end.score is None
    assert end.alive == {}
    assert end.left == []
