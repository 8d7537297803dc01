"""Scores and differences over several splits of the users, at one date or at several.

The figure of a representation is the mean of a metric over the splits' test users. Its interval comes from a bootstrap
of users, not of (user, split) pairs: a user who is drawn twice counts twice in each split that tests them, at each
date. So splits and dates that share users are not taken for new evidence. All representations are measured on the same
draws, so that their differences have intervals too. Chance in fitting the probes is averaged over splits and is not in
the interval.
"""

# N = rows of a date, one per user, U = users tested in some split, R = resamples

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gur_spark.arrays import Array, Ints, Mask
from gur_spark.errors import EvaluationError
from gur_spark.evaluate.questions import Classification, Question
from gur_spark.evaluate.report import Difference, Score
from gur_spark.evaluate.segments import Segments
from gur_spark.statistics.bootstrap import Weights, interval, resamples


@dataclass(frozen=True)
class DatedQuestion:
    """A question at one date."""

    question: Question
    user_N: Ints
    """A number of each row's user; a user has the same number at every date."""
    segments: Segments | None = None

    def members(self, segment: str) -> Mask:
        """Select the rows of a segment, or of ``all``."""
        if segment == "all":
            return np.ones(len(self.user_N), dtype=bool)
        assert self.segments is not None
        return self.segments.members(segment)


@dataclass(frozen=True)
class Split:
    """Predictions for the test users of one split of one date."""

    dated: DatedQuestion
    test: Ints
    """Rows of the test users."""
    predictions: Mapping[tuple[str, str], Array]
    """Prediction by (model, representation): probabilities or values, a row per test user."""

    @property
    def representations(self) -> set[str]:
        return {representation for _, representation in self.predictions}


@dataclass(frozen=True)
class Measured:
    """A metric of one model and representation."""

    by_split: tuple[float, ...]
    resampled_R: Array

    @property
    def value(self) -> float:
        defined = [value for value in self.by_split if not np.isnan(value)]
        return float(np.mean(defined)) if defined else float("nan")


class Pool:
    """Splits of a task, and resamples of all users that they test."""

    def __init__(self, splits: Sequence[Split], bootstrap: int, seed: int) -> None:
        """Draw the resamples.

        Raises:
            EvaluationError: the task has different forms at different dates.
        """
        self.splits = splits
        self.name = splits[0].dated.question.name
        self.metrics = [metric for metric, _ in splits[0].dated.question.metrics]
        for split in splits:
            forms = [_form(one.dated.question) for one in (splits[0], split)]
            if forms[0] != forms[1]:
                raise EvaluationError(
                    f"task '{self.name}' is of {forms[0]} at one date and of {forms[1]} at another; evaluate them apart"
                )
        self.tested_U = np.unique(np.concatenate([split.dated.user_N[split.test] for split in splits]))
        self.weights: Weights = resamples(len(self.tested_U), bootstrap, seed)

    def tested(self, segment: str = "all") -> int:
        """Count the different users that are tested while in a segment."""
        rows = [(split.dated.user_N[split.test], split.dated.members(segment)[split.test]) for split in self.splits]
        return len(np.unique(np.concatenate([user_N[in_N] for user_N, in_N in rows])))

    def shares(self) -> dict[str, float]:
        """Share of each class among the test users of each date; the mean over the dates."""
        tests: dict[int, list[Split]] = {}
        for split in self.splits:
            tests.setdefault(id(split.dated), []).append(split)
        found = [
            splits[0].dated.question.shares(np.unique(np.concatenate([split.test for split in splits])))
            for splits in tests.values()
        ]
        names = dict.fromkeys(name for shares in found for name in shares)
        return {name: float(np.mean([shares.get(name, 0.0) for shares in found])) for name in names}

    def scores(self, metrics: int, segment: str = "all") -> tuple[list[Score], dict[tuple[str, str, str], Measured]]:
        """Score every model and representation that all dates have by the first ``metrics`` metrics, over a segment's
        users.

        A split has no part where the metric is not defined: its segment has nobody, or one answer only.
        """
        scores, found = [], {}
        for model, representation in self.splits[0].predictions:
            if any((model, representation) not in split.predictions for split in self.splits):
                continue
            for number, metric in enumerate(self.metrics[:metrics]):
                measured = self._measure(number, (model, representation), segment)
                if np.isfinite(measured.value):
                    low, high = interval(measured.resampled_R)
                    found[model, metric, representation] = measured
                    scores.append(
                        Score(
                            self.name, model, metric, representation, measured.value, low, high, segment,
                            measured.by_split,
                        )
                    )  # fmt: skip
        return scores, found

    def _measure(self, number: int, key: tuple[str, str], segment: str) -> Measured:
        points, resampled = [], []
        for split in self.splits:
            chosen = split.dated.members(segment)[split.test]
            test, said = split.test[chosen], split.predictions[key][chosen]
            if not len(test):
                points.append(float("nan"))
                resampled.append(np.full(len(self.weights), np.nan))
                continue
            _, metric = split.dated.question.metrics[number]
            answers = split.dated.question.answer_N[test]
            everyone = np.ones((1, len(test)), dtype=np.uint16)
            points.append(float(metric(answers, said, everyone)[0]))
            drawn = self.weights[:, np.searchsorted(self.tested_U, split.dated.user_N[test])]
            resampled.append(metric(answers, said, drawn))
        with warnings.catch_warnings():
            # A resample may have no split with all answers; its figure is NaN.
            warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
            return Measured(tuple(points), np.nanmean(resampled, axis=0))


def _form(task: Question) -> str:
    """Name the form of a question: two classes by their names, because one is the positive; else by its metric."""
    if isinstance(task, Classification) and len(task.classes) == 2:
        return f"the classes {' and '.join(task.classes)}"
    return "many classes" if isinstance(task, Classification) else "amounts"


def differences(
    task: str, found: Mapping[tuple[str, str, str], Measured], pairs: Sequence[tuple[str, str]], segment: str = "all"
) -> Iterator[Difference]:
    """Yield the difference of each measured pair of representations, by model and metric, on the same resamples."""
    for model, metric in dict.fromkeys((model, metric) for model, metric, _ in found):
        for ours, theirs in pairs:
            if {(model, metric, ours), (model, metric, theirs)} <= found.keys():
                a, b = found[model, metric, ours], found[model, metric, theirs]
                low, high = interval(a.resampled_R - b.resampled_R)
                by_seed = tuple(x - y for x, y in zip(a.by_split, b.by_split, strict=True))
                value = a.value - b.value
                yield Difference(task, model, metric, ours, theirs, value, low, high, segment, by_seed)
