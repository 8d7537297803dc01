"""Scores and differences over several splits of the same users.

The figure of a representation is the mean of a metric over the splits' test users. Its interval is that of a bootstrap
of users, not of (user, split) pairs: a user who is drawn twice counts twice in each split that tests them, so that what
the splits have in common is not taken for new evidence. All representations are measured on the same draws, so that
their differences have intervals too. What is random in fitting probes is averaged over splits, not in the interval.
"""

# N = users, U = users tested in some split, R = resamples

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gur_spark.evaluate.bootstrap import Array, Weights, interval, resamples
from gur_spark.evaluate.report import Difference, Score
from gur_spark.evaluate.tasks import Ints, Metric, Question

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """What was said of the test users of one split."""

    test: Ints
    """Their positions."""
    said: Mapping[tuple[str, str], Array]
    """By model and representation: probabilities or values, a row per test user."""


@dataclass(frozen=True)
class Measured:
    """A metric of one model and representation."""

    by_split: tuple[float, ...]
    resampled_R: Array

    @property
    def value(self) -> float:
        return float(np.mean(self.by_split))


class Pool:
    """The splits of a task, and the resamples of all users that they test."""

    def __init__(self, task: Question, splits: Sequence[Split], bootstrap: int, seed: int) -> None:
        self.task, self.splits = task, splits
        self.tested_U = np.unique(np.concatenate([split.test for split in splits]))
        self.weights: Weights = resamples(len(self.tested_U), bootstrap, seed)

    def scores(
        self,
        metrics: Sequence[tuple[str, Metric]],
        segment: str = "all",
        members_N: Mask | None = None,
    ) -> tuple[list[Score], dict[tuple[str, str, str], Measured]]:
        """Those of every model, metric and representation, over the users of a segment, where they are defined."""
        scores, found = [], {}
        for model, representation in self.splits[0].said:
            for metric, of in metrics:
                measured = self._measure(of, (model, representation), members_N)
                if np.isfinite(measured.value):
                    low, high = interval(measured.resampled_R)
                    found[model, metric, representation] = measured
                    scores.append(
                        Score(
                            self.task.name, model, metric, representation, measured.value, low, high, segment,
                            measured.by_split,
                        )
                    )  # fmt: skip
        return scores, found

    def _measure(self, metric: Metric, key: tuple[str, str], members_N: Mask | None) -> Measured:
        points, resampled = [], []
        for split in self.splits:
            chosen = np.ones(len(split.test), dtype=bool) if members_N is None else members_N[split.test]
            test, said = split.test[chosen], split.said[key][chosen]
            if not len(test):
                return Measured((float("nan"),), np.full(len(self.weights), np.nan))
            answers = self.task.answer_N[test]
            everyone = np.ones((1, len(test)), dtype=np.uint16)
            points.append(float(metric(answers, said, everyone)[0]))
            resampled.append(metric(answers, said, self.weights[:, np.searchsorted(self.tested_U, test)]))
        return Measured(tuple(points), np.mean(resampled, axis=0))


def differences(
    task: str, found: Mapping[tuple[str, str, str], Measured], pairs: Sequence[tuple[str, str]], segment: str = "all"
) -> Iterator[Difference]:
    """Of each pair of representations that were measured, by model and metric, on the same resamples."""
    for model, metric in dict.fromkeys((model, metric) for model, metric, _ in found):
        for ours, theirs in pairs:
            if {(model, metric, ours), (model, metric, theirs)} <= found.keys():
                a, b = found[model, metric, ours], found[model, metric, theirs]
                low, high = interval(a.resampled_R - b.resampled_R)
                by_seed = tuple(x - y for x, y in zip(a.by_split, b.by_split, strict=True))
                value = a.value - b.value
                yield Difference(task, model, metric, ours, theirs, value, low, high, segment, by_seed)
