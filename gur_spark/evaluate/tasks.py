"""Questions about users: which class, or how much; and by what an answer is measured."""

# N = users, R = resamples, K = classes

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gur_spark.arrays import Array, Ints
from gur_spark.errors import EvaluationError
from gur_spark.statistics.bootstrap import Weights, accuracy, auc, average_precision, macro_auc, r2, spearman

Metric = Callable[[Any, Array, Weights], Array]
"""(answers (N,), what a model says: probabilities (N, K) or values (N,), weights (R, N)) -> (R,)."""

MOST_CLASSES = 50


@dataclass(frozen=True)
class Task:
    """Which class is a user of?"""

    name: str
    classes: tuple[str, ...]
    """Of two, the second is the positive one."""
    label_N: Ints
    """Index of the user's class; -1 where it is not known."""

    @classmethod
    def of(cls, name: str, labels: pa.ChunkedArray) -> "Task":
        """A task from text labels, null where not known; classes in alphabetical order.

        Raises:
            EvaluationError: fewer than two classes, or more than can be probed.
        """
        values = labels.to_pylist()
        found = sorted({value for value in values if value is not None})
        if len(found) < 2:
            raise EvaluationError(f"label '{name}': expected at least two classes among the users, got {found}")
        if len(found) > MOST_CLASSES:
            expected = f"at most {MOST_CLASSES} classes"
            raise EvaluationError(f"label '{name}': expected {expected}, got {len(found)}: is it a number?")
        index = {value: position for position, value in enumerate(found)}
        return cls(name, tuple(found), np.array([index.get(value, -1) for value in values], dtype=np.int64))

    @property
    def answer_N(self) -> Ints:
        return self.label_N

    @property
    def known_N(self) -> npt.NDArray[np.bool_]:
        return self.label_N >= 0

    @property
    def metrics(self) -> tuple[tuple[str, Metric], tuple[str, Metric]]:
        """The first one is what verdicts go by."""
        if len(self.classes) > 2:
            return ("macro AUC", macro_auc), ("accuracy", accuracy)
        return (
            ("AUC", lambda label, p, weights: auc(label == 1, p[:, 1], weights)),
            ("average precision", lambda label, p, weights: average_precision(label == 1, p[:, 1], weights)),
        )

    def shares(self, users: Ints) -> dict[str, float]:
        """Of each class among these users; the greatest is the accuracy of always saying the most frequent one."""
        return {name: float((self.label_N[users] == k).mean()) for k, name in enumerate(self.classes)}

    def check(self, train: Ints, test: Ints) -> None:
        """Refuse a split in which a class has nobody to train on, or to test on.

        Raises:
            EvaluationError: naming the task, the side and the classes.
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
    """How much of something does a user have?"""

    name: str
    value_N: Array
    """NaN where it is not known."""

    @classmethod
    def of(cls, name: str, amounts: pa.ChunkedArray) -> "Quantity":
        """From amounts, null where not known; of these it is ``sign(y) log(1 + |y|)``, as few have most of it.

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
    def known_N(self) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.value_N)

    @property
    def metrics(self) -> tuple[tuple[str, Metric], tuple[str, Metric]]:
        return ("R2", r2), ("Spearman", spearman)

    def shares(self, users: Ints) -> dict[str, float]:
        """Of nothing and of something among these users."""
        something = float((self.value_N[users] != 0).mean())
        return {"nothing": 1 - something, "something": something}

    def check(self, train: Ints, test: Ints) -> None:
        """Refuse a split with a side on which all are equal.

        Raises:
            EvaluationError: naming the task and the side.
        """
        for side, users in (("train", train), ("test", test)):
            if len(np.unique(self.value_N[users])) < 2:
                raise EvaluationError(
                    f"task '{self.name}': expected different amounts among the {len(users)} {side} users, all are equal"
                )


Question: TypeAlias = Task | Quantity


def question(name: str, answers: pa.ChunkedArray) -> Question:
    """By the type of the answers: numbers are quantities, texts are classes."""
    return Quantity.of(name, answers) if pa.types.is_floating(answers.type) else Task.of(name, answers)
