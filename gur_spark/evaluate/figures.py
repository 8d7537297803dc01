"""Figures of a report: scores, differences with their verdicts, and the users that a task was about."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

RAW, PCA, RANDOM, EMBEDDING, BOTH = "raw windows", "PCA", "random encoder", "embedding", "raw + embedding"
REPRESENTATIONS = (RAW, PCA, RANDOM, EMBEDDING, BOTH)
HAND_MADE, COLES = "hand-made", "CoLES"
"""Names of the baselines made from sequences; see ``baselines``. They are shown where they were made."""

Verdict = Literal["win", "as good", "no clear difference", "loss"]


@dataclass(frozen=True)
class SplitUsers:
    """Users of one split of one date with a known answer."""

    as_of: str
    train_users: int
    test_users: int
    train_positives: int | None
    """Users of the positive class, or with an amount other than 0; None where a task has more than two classes."""
    test_positives: int | None


@dataclass(frozen=True)
class TaskResult:
    """Users that a task was about."""

    name: str
    classes: dict[str, float]
    """Share of each class among the test users; for a quantity, the shares of ``nothing`` and ``something``."""
    train_users: int
    """Train users of the first split of the first date."""
    test_users: int
    """Different test users, in all splits together."""
    segments: dict[str, int] = field(default_factory=dict)
    """Different test users of each segment."""
    positive: str | None = None
    """The positive class, where there are two classes."""
    splits: Sequence[SplitUsers] = ()
    """Each split of each date, date by date."""


@dataclass(frozen=True)
class Score:
    """One metric of one model on one representation, with its 95 % bootstrap interval."""

    task: str
    model: str
    metric: str
    representation: str
    value: float
    low: float
    high: float
    segment: str = "all"
    by_seed: Sequence[float] = ()
    """The metric of each split, date by date; ``value`` is their mean."""
    label_share: float = 1.0
    """Share of the train users whose answers the model was fitted on."""


@dataclass(frozen=True)
class Difference:
    """The metric of one representation minus that of another, over the same resamples."""

    task: str
    model: str
    metric: str
    representation: str
    against: str
    value: float
    low: float
    high: float
    segment: str = "all"
    by_seed: Sequence[float] = ()
    label_share: float = 1.0

    def verdict(self, smallest: float) -> Verdict:
        """Judge the difference.

        It is a win or a loss if its interval lies on one side of 0 and its value is at least ``smallest``, and as good
        if the whole interval lies within ``smallest`` of 0.
        """
        if abs(self.value) >= smallest and (self.low > 0 or self.high < 0):
            return "win" if self.low > 0 else "loss"
        return "as good" if -smallest <= self.low and self.high <= smallest else "no clear difference"

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
