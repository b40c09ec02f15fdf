"""What the controller asks the harness for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Job:
    """One attempt. `hashes` are those of the code that should lie in the bundle.

    share: the fraction of the profile's budget to train for, in (0, 1]; only where the score is ours.
    telling: progress is printed as well, for whoever follows the log.
    run: a script for bash that trains and scores, instead of `edit` alone; only where the workspace scores itself.
    environment: the variables that the workspace declares for its runs.
    survey: the result also says what is installed on this cluster.
    """

    attempt: str
    nonce: str
    edit: str
    evaluated: bool
    metric: str
    seed: int
    timeout: float
    hashes: Mapping[str, str]
    share: float = 1.0
    telling: bool = False
    run: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    survey: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"a share of the budget is more than 0 and at most 1, not {self.share:g}")

    @property
    def experiment(self) -> str:
        """The middle of the attempt's id, `<study>.<experiment>.<number>`; a study's name may have dots itself."""
        return self.attempt.rsplit(".", 2)[-2] if "." in self.attempt else self.attempt
