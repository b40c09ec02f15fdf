"""Runs a kept commit again from what the commit itself says, and compares. Needs no journal; a bare clone will do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean

from controller.backends import Backend, Ended, Fleet
from controller.bundles import bundler
from controller.clock import Clock
from controller.keep import Claim, claim_of
from controller.records import Attempt, NothingRan, Outcome, UserError
from controller.repo import Repository
from controller.watcher import judge
from controller.workspace import at_commit

BRANCHES = "autoresearch/"


@dataclass(frozen=True)
class Reproduction:
    """What the commit claims beside what was found now; `differs` names what was not the same besides the score."""

    commit: str
    claim: Claim
    scores: tuple[float, ...]
    accelerator: str
    differs: tuple[str, ...]

    @property
    def value(self) -> float:
        """The mean of the new scores."""
        return fmean(self.scores)

    @property
    def exact(self) -> bool:
        """Whether every seed gave the recorded score to every recorded digit."""
        return all(f"{new:.10g}" == f"{old:.10g}" for new, old in zip(self.scores, self.claim.scores, strict=True))

    @property
    def reproduced(self) -> bool:
        """Whether the new mean lies in the interval that was recorded for it."""
        return self.exact or self.claim.low <= self.value <= self.claim.high


def find_claim(repository: Repository, name: str | None) -> tuple[str, Claim]:
    """The kept commit called `name`, or the latest one at the tip of a study branch, local or origin's.

    Raises UserError where it isn't there, or claims nothing.
    """
    if name is not None:
        commit = repository.resolve(name) or repository.resolve(f"origin/{name}")
        if commit is None:
            raise UserError(f"there is no commit {name} in {repository.root}; `git log --all` lists what there is")
        claim = claim_of(repository.message(commit))
        if claim is None:
            raise UserError(
                f"commit {commit[:10]} carries no result of a study; give one whose message begins with 'Keep'"
            )
        return commit, claim
    found = [
        (repository.committed_at(commit), commit, claim)
        for commit in repository.branches(BRANCHES).values()
        if (claim := claim_of(repository.message(commit))) is not None
    ]
    if not found:
        raise UserError(f"no study branch in {repository.root} holds a kept result; run `autoresearch wave` first")
    _, commit, claim = max(found, key=lambda one: one[0])
    return commit, claim


async def reproduce(
    repository: Repository, commit: str, claim: Claim, backend: Backend, clock: Clock, say: Callable[[str], None]
) -> Reproduction:
    """Run `commit` once with each of its seeds. Raises NothingRan where no cluster can be had, or a run gives no score.

    On clusters that cost money while they idle, the seeds follow each other on one.
    """
    workspace = at_commit(repository, commit)
    bundle = bundler(workspace)
    wanted = Fleet(1 if backend.idle_seconds else len(claim.seeds), bundle(commit, claim.seeds[0]), "reproduce")
    clusters = [cluster.name async for cluster in backend.acquire(wanted)]
    if not clusters:
        raise NothingRan(f"no cluster with {claim.accelerator} could be had; try again later, or on another --infra")
    attempts = {}
    for cluster, seed in zip(cycle(clusters), claim.seeds, strict=False):
        attempt = Attempt(f"reproduce.{commit[:10]}.{seed}.{clock.token()[:8]}", str(seed), cluster, clock.token())
        attempts[attempt.id] = (attempt, seed)
        await backend.submit(cluster, attempt, bundle(commit, seed))
    outcomes: dict[int, Outcome] = {}
    try:
        async for event in backend.events():
            if isinstance(event, Ended) and event.attempt in attempts:
                attempt, seed = attempts[event.attempt]
                outcome = judge(attempt, event, bundle(commit, seed).job["hashes"], claim.metric)
                await backend.discard(event.attempt)
                if outcome.label is not None:
                    raise NothingRan(f"seed {seed} gave no score: {outcome.label}, {outcome.reason}")
                outcomes[seed] = outcome
                by_whom = " (self-reported)" if outcome.self_reported else ""
                say(f"seed {seed}: {claim.metric} {outcome.metrics[claim.metric]:.6f}{by_whom}")
                if len(outcomes) == len(attempts):
                    break
    finally:
        await backend.release(clusters)
    some = outcomes[claim.seeds[0]]
    differs = [
        f"{kind} (now {some.hashes.get(kind, 'unknown')[:12]}, recorded {digest[:12]})"
        for kind, digest in claim.hashes.items()
        if some.hashes.get(kind) != digest
    ]
    if some.accelerator != claim.accelerator:
        differs.append(f"accelerator (now {some.accelerator}, recorded {claim.accelerator})")
    scores = tuple(outcomes[seed].metrics[claim.metric] for seed in claim.seeds)
    return Reproduction(commit, claim, scores, some.accelerator, tuple(differs))
