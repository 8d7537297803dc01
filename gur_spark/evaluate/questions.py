"""Questions about users: a class or an amount, with the metrics of their answers."""

# N = users, R = resamples, K = classes

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from gur_spark.arrays import Array, Ints, Mask
from gur_spark.errors import EvaluationError, nearest
from gur_spark.statistics.bootstrap import Weights, accuracy, auc, average_precision, macro_auc, r2, spearman

Metric = Callable[[Any, Array, Weights], Array]
"""Metric: (answers (N,), predictions: probabilities (N, K) or values (N,), weights (R, N)) -> (R,)."""

MOST_CLASSES = 50


def check_positive(name: str, classes: list[str], positive: str) -> None:
    """Check that the positive class of a label is one of two.

    Raises:
        EvaluationError: it is not; the message names the label and its classes.
    """
    if len(classes) > 2 or positive not in classes:
        expected = f"expected one of two classes, got {classes}{nearest(positive, classes)}"
        raise EvaluationError(f"label '{name}': positive '{positive}': {expected}")


@dataclass(frozen=True)
class Classification:
    """A question with classes as answers."""

    name: str
    classes: tuple[str, ...]
    """Names of the classes. Where there are two, the second is the positive one."""
    label_N: Ints
    """Index of the user's class; -1 where it is not known."""

    @classmethod
    def of(cls, name: str, labels: pa.ChunkedArray, positive: str | None = None) -> "Classification":
        """Make a question from text labels, null where not known; classes are in alphabetical order.

        Args:
            positive: the positive one of two classes; default: the second.

        Raises:
            EvaluationError: fewer than two classes, or more than can be probed, or ``positive`` is none of two.
        """
        values = labels.to_pylist()
        found = sorted({value for value in values if value is not None})
        if len(found) < 2:
            raise EvaluationError(f"label '{name}': expected at least two classes among the users, got {found}")
        if len(found) > MOST_CLASSES:
            expected = f"at most {MOST_CLASSES} classes"
            raise EvaluationError(f"label '{name}': expected {expected}, got {len(found)}: is it a number?")
        if positive is not None:
            check_positive(name, found, positive)
            found.sort(key=lambda value: value == positive)
        index = {value: position for position, value in enumerate(found)}
        return cls(name, tuple(found), np.array([index.get(value, -1) for value in values], dtype=np.int64))

    @property
    def answer_N(self) -> Ints:
        return self.label_N

    @property
    def known_N(self) -> Mask:
        return self.label_N >= 0

    @property
    def positive(self) -> str | None:
        """Name of the positive class, where there are two."""
        return self.classes[1] if len(self.classes) == 2 else None

    def positives(self, users: Ints) -> int | None:
        """Count the users of the positive class."""
        return int((self.label_N[users] == 1).sum()) if self.positive else None

    @property
    def metrics(self) -> tuple[tuple[str, Metric], tuple[str, Metric]]:
        """Metrics by name; verdicts go by the first."""
        if len(self.classes) > 2:
            return ("macro AUC", macro_auc), ("accuracy", accuracy)
        return (
            ("AUC", lambda label, p, weights: auc(label == 1, p[:, 1], weights)),
            ("average precision", lambda label, p, weights: average_precision(label == 1, p[:, 1], weights)),
        )

    def shares(self, users: Ints) -> dict[str, float]:
        """Share of each class among these users. The greatest is the accuracy of always predicting the most frequent
        class."""
        return {name: float((self.label_N[users] == k).mean()) for k, name in enumerate(self.classes)}

    def check(self, train: Ints, test: Ints) -> None:
        """Refuse a split in which a class has no train user or no test user.

        Raises:
            EvaluationError: a class is missing; the message names the task, the side and the classes.
        """
        for side, users in (("train", train), ("test", test)):
            present = set(self.label_N[users].tolist())
            absent = [name for k, name in enumerate(self.classes) if k not in present]
            if absent:
                raise EvaluationError(
                    f"label '{self.name}': none of the {len(users)} {side} users is {absent}; "
                    f"expected some of each of {list(self.classes)}"
                )


@dataclass(frozen=True)
class Quantity:
    """A question with an amount as answer."""

    name: str
    value_N: Array
    """NaN where it is not known."""

    @classmethod
    def of(cls, name: str, amounts: pa.ChunkedArray) -> "Quantity":
        """Make a question from amounts, null where not known.

        Answers are ``sign(y) log(1 + |y|)``, because few users have most of the amount.

        Raises:
            EvaluationError: all known amounts are equal, or none is known.
        """
        raw_N = amounts.cast(pa.float64()).to_numpy().astype(np.float64)
        known = np.unique(raw_N[~np.isnan(raw_N)])
        if len(known) < 2:
            raise EvaluationError(f"task '{name}': expected different amounts among the users, got {known.tolist()}")
        return cls(name, np.sign(raw_N) * np.log1p(np.abs(raw_N)))

    @property
    def answer_N(self) -> Array:
        return self.value_N

    @property
    def known_N(self) -> Mask:
        return ~np.isnan(self.value_N)

    @property
    def metrics(self) -> tuple[tuple[str, Metric], tuple[str, Metric]]:
        return ("R2", r2), ("Spearman", spearman)

    @property
    def positive(self) -> None:
        """An amount has no positive class."""

    def positives(self, users: Ints) -> int | None:
        """Count the users with an amount other than 0."""
        return int((self.value_N[users] != 0).sum())

    def shares(self, users: Ints) -> dict[str, float]:
        """Shares of nothing and of something among these users."""
        something = float((self.value_N[users] != 0).mean())
        return {"nothing": 1 - something, "something": something}

    def check(self, train: Ints, test: Ints) -> None:
        """Refuse a split with a side on which all amounts are equal.

        Raises:
            EvaluationError: they are; the message names the task and the side.
        """
        for side, users in (("train", train), ("test", test)):
            if len(np.unique(self.value_N[users])) < 2:
                raise EvaluationError(
                    f"task '{self.name}': expected different amounts among the {len(users)} {side} users, all are equal"
                )


Question: TypeAlias = Classification | Quantity


def question(name: str, answers: pa.ChunkedArray, positive: str | None = None) -> Question:
    """Make the question that the type of the answers calls for: numbers are quantities, texts are classes."""
    if pa.types.is_floating(answers.type):
        return Quantity.of(name, answers)
    return Classification.of(name, answers, positive)
