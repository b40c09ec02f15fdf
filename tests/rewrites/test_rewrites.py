"""No false alarm: honest rewrites of train.py, each of another idea, are scored like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from controller.edits import model_digest, refusal
from controller.harness.fingerprint import fingerprint
from tests.harness.attempts import Attempts, Ran
from tests.rewrites import attention, blocks, execution, losses, optimizers
from tests.rewrites.rewriting import replaced, tiny_train

EDIT = "train/train.py"
TOKENS = 2**13

REWRITES: tuple[Callable[[str], str], ...] = (
    attention.alibi,
    attention.convolution_before_attention,
    attention.grouped_query_attention,
    blocks.depth_drawn_for_each_batch,
    blocks.dropout,
    blocks.gradient_of_its_own,
    blocks.mixture_of_experts,
    blocks.tied_embeddings,
    execution.checkpoint_files,
    execution.gradient_checkpointing,
    execution.growing_batches,
    execution.mixed_precision,
    execution.prefetching_thread,
    losses.label_smoothing,
    losses.two_tokens_ahead,
    optimizers.adamw_alone,
    optimizers.average_of_the_weights,
    optimizers.lion_and_sgd,
)
TRAINERS = {path.stem: path for path in sorted((Path(__file__).parent / "trainers").glob("*.py"))}
NAMES = [rewrite.__name__ for rewrite in REWRITES] + list(TRAINERS)


def source_of(name: str) -> str:
    """The train.py of a rewrite."""
    if name in TRAINERS:
        return TRAINERS[name].read_text(encoding="utf-8")
    (rewrite,) = (rewrite for rewrite in REWRITES if rewrite.__name__ == name)
    return rewrite(tiny_train())


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    cache: Path,
    prepare_files: Mapping[str, bytes],
) -> Iterator[dict[str, Future[Ran]]]:
    """The attempts of all rewrites that are asked for, two at a time."""
    directory = tmp_path_factory.mktemp("rewrites")
    profile = replaced(prepare_files["prepare/profile.py"].decode(), {"Budget(tokens=2**18": f"Budget(tokens={TOKENS}"})

    def run(name: str) -> Ran:
        files = {**prepare_files, "prepare/profile.py": profile.encode(), EDIT: source_of(name).encode()}
        attempts = Attempts(directory / name, cache, prepare_files)
        hashes = fingerprint(files.items(), EDIT)
        return attempts.finish(attempts.lay_out(files, evaluated=True, edit=EDIT, hashes=hashes))

    asked = {item.name for item in request.session.items}
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(run, name) for name in NAMES if any(f"[{name}]" in test for test in asked)}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_honest_rewrite_is_scored_without_a_label(runs: Mapping[str, Future[Ran]], name: str) -> None:
    ran = runs[name].result()
    assert ran.ending == ("done", ""), ran.output
    assert not ran.result.get("flags")
    assert ran.result["self_reported"] is False
    assert ran.metrics["total_tokens_M"] == TOKENS / 1e6
    assert 1.5 < ran.metrics["val_bpb"] < 6


def test_preflight_takes_every_rewrite_for_a_model_of_its_own() -> None:
    incumbent = tiny_train()
    models: dict[str, str] = {}
    for name in NAMES:
        source = source_of(name)
        assert refusal(source, incumbent, models) is None, name
        models[model_digest(source)] = name
    assert len(models) == len(NAMES)
