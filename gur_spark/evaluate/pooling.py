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
from gur_spark.evaluate.figures import Difference, Score
from gur_spark.evaluate.questions import Classification, Question
from gur_spark.evaluate.segments import Segments
from gur_spark.statistics.bootstrap import Weights, interval, resamples


@dataclass(frozen=True)
class DatedQuestion:
    """A question at one date."""

    question: Question
    user_N: Ints
    """A number of each row's user; a user has the same number at every date."""
    segments: Segments | None = None

    def members(self, *segments: str) -> Mask:
        """Select the rows of some segments; without a name, all rows."""
        if not segments:
            return np.ones(len(self.user_N), dtype=bool)
        assert self.segments is not None
        return self.segments.members(*segments)


@dataclass(frozen=True)
class Split:
    """Predictions for the test users of one split of one date."""

    dated: DatedQuestion
    train: Ints
    """Rows of the users that the models were fitted on."""
    test: Ints
    """Rows of the test users."""
    predictions: Mapping[tuple[str, str], Array]
    """Prediction by (model, representation): probabilities or values, a row per test user."""
    label_share: float = 1.0
    """Share of the train users whose answers the models were fitted on."""

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

    def tested(self, *segments: str) -> int:
        """Count the different users that are tested while in some segments; without a name, all."""
        rows = [(split.dated.user_N[split.test], split.dated.members(*segments)[split.test]) for split in self.splits]
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

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Pairs (model, representation) that all splits have."""
        return [key for key in self.splits[0].predictions if all(key in split.predictions for split in self.splits)]

    def scores(self, metrics: int, *segments: str) -> tuple[list[Score], dict[tuple[str, str, str], Measured]]:
        """Score every model and representation that all dates have by the first ``metrics`` metrics, over the users of
        some segments; without a name, over all.

        A split has no part where the metric is not defined: its segment has nobody, or one answer only.
        """
        scores, found = [], {}
        chosen = [split.dated.members(*segments)[split.test] for split in self.splits]
        for key in self.keys:
            for number, metric in enumerate(self.metrics[:metrics]):
                measured = self.measure(number, key, chosen)
                if np.isfinite(measured.value):
                    found[key[0], metric, key[1]] = measured
                    scores.append(self.score(measured, metric, *key, segment=" + ".join(segments) or "all"))
        return scores, found

    def score(self, measured: Measured, metric: str, model: str, representation: str, segment: str = "all") -> Score:
        """Make a score with its interval."""
        low, high = interval(measured.resampled_R)
        share = self.splits[0].label_share
        return Score(
            self.name, model, metric, representation, measured.value, low, high, segment, measured.by_split, share
        )

    def measure(self, number: int, key: tuple[str, str], chosen: Sequence[Mask]) -> Measured:
        """Measure a metric over the chosen test users of each split."""
        parts = [self._measure_split(split, number, key, in_N) for split, in_N in zip(self.splits, chosen, strict=True)]
        return Measured(tuple(value for value, _ in parts), mean_defined([resampled_R for _, resampled_R in parts]))

    def _measure_split(self, split: Split, number: int, key: tuple[str, str], in_N: Mask) -> tuple[float, Array]:
        test, said = split.test[in_N], split.predictions[key][in_N]
        if not len(test):
            return float("nan"), np.full(len(self.weights), np.nan)
        _, metric = split.dated.question.metrics[number]
        answers = split.dated.question.answer_N[test]
        everyone = np.ones((1, len(test)), dtype=np.uint16)
        drawn = self.weights[:, np.searchsorted(self.tested_U, split.dated.user_N[test])]
        return float(metric(answers, said, everyone)[0]), metric(answers, said, drawn)


def mean_defined(resampled: Sequence[Array]) -> Array:
    """Average the values of each resample that are defined, (R,)."""
    with warnings.catch_warnings():
        # A resample may have no split with all answers; its figure is NaN.
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.asarray(np.nanmean(resampled, axis=0))


def _form(task: Question) -> str:
    """Name the form of a question: two classes by their names, because one is the positive; else by its metric."""
    if isinstance(task, Classification) and len(task.classes) == 2:
        return f"the classes {' and '.join(task.classes)}"
    return "many classes" if isinstance(task, Classification) else "amounts"


def differences(
    task: str,
    found: Mapping[tuple[str, str, str], Measured],
    pairs: Sequence[tuple[str, str]],
    segment: str = "all",
    label_share: float = 1.0,
) -> Iterator[Difference]:
    """Yield the difference of each measured pair of representations, by model and metric, on the same resamples."""
    for model, metric in dict.fromkeys((model, metric) for model, metric, _ in found):
        for ours, theirs in pairs:
            if {(model, metric, ours), (model, metric, theirs)} <= found.keys():
                a, b = found[model, metric, ours], found[model, metric, theirs]
                low, high = interval(a.resampled_R - b.resampled_R)
                by_seed = tuple(x - y for x, y in zip(a.by_split, b.by_split, strict=True))
                yield Difference(
                    task, model, metric, ours, theirs, a.value - b.value, low, high, segment, by_seed, label_share
                )
