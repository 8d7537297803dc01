"""Fits of both small models on every representation of a split, and their predictions for its test users."""

# N = users

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from gur_spark.arrays import Array, Ints, Mask
from gur_spark.errors import EvaluationError
from gur_spark.evaluate.figures import EMBEDDING, PCA, RAW
from gur_spark.evaluate.pooling import DatedQuestion, Split
from gur_spark.evaluate.questions import Classification, Question
from gur_spark.evaluate.small_models import (
    Matrix,
    boosted_regression,
    boosted_trees,
    converged,
    fitted_logistic,
    fitted_ridge,
    logistic_variance,
    ridge_variance,
)
from gur_spark.extras import report_library

log = logging.getLogger("gur_spark")

TREES = "LightGBM"
CURVE = (RAW, PCA, EMBEDDING)
"""Representations that are also measured with fewer labels."""


@dataclass(frozen=True)
class Fitter:
    """Fits at one date, with what they found on the way."""

    seed: int
    variances: dict[tuple[str, str, float], float] = field(default_factory=dict)
    """Prior variance of the linear model by (task, representation, share of the labels): chosen on the train users of
    the first split, and used in all."""
    stopped: dict[tuple[str, str], None] = field(default_factory=dict)
    """Pairs (task, representation) in which a logistic regression ran out of steps."""

    def splits(
        self, dated: DatedQuestion, made: Mapping[str, Matrix], train_N: Mask, number: int, shares: Sequence[float]
    ) -> dict[float, Split]:
        """Predict for the test users of a split, with all labels and with each share of them.

        A share is left out where its labels do not answer the task.

        Raises:
            EvaluationError: a side of the split does not have what the task needs.
        """
        task, seed = dated.question, self.seed + number
        train, test = np.flatnonzero(task.known_N & train_N), np.flatnonzero(task.known_N & ~train_N)
        task.check(train, test)
        found = {1.0: self._split(dated, made, train, test, seed, 1.0)}
        for share in shares:
            some = sample(task, train, share, seed)
            try:
                task.check(some, test)
            except EvaluationError as error:
                log.info("evaluate: %s with %g of the labels is left out: %s", task.name, share, error)
                continue
            few = {name: made[name] for name in CURVE if name in made}
            found[share] = self._split(dated, few, some, test, seed, share)
        return found

    def _split(
        self, dated: DatedQuestion, made: Mapping[str, Matrix], train: Ints, test: Ints, seed: int, share: float
    ) -> Split:
        task = dated.question
        linear = linear_of(task)

        def by_linear() -> dict[tuple[str, str], Array]:
            return {(linear, name): self.linear(task, name, x, train, test, seed, share) for name, x in made.items()}

        # Each of the two models has a thread. Products are small, so the threads of one fit would wait for one another,
        # and the sums would depend on their number. LightGBM has globals, so it stays in this thread.
        with quiet(), report_library("threadpoolctl").threadpool_limits(1), ThreadPoolExecutor(1) as beside:
            waiting = beside.submit(by_linear)
            by_trees = {(TREES, name): trees(task, x, train, test, seed) for name, x in made.items()}
            said = waiting.result() | by_trees
        log.info("%s: %s and %s on %d representations, %d labels", task.name, linear, TREES, len(made), len(train))
        return Split(dated, train, test, said, share)

    def linear(
        self, task: Question, name: str, x: Matrix, train: Ints, test: Ints, seed: int, share: float = 1.0
    ) -> Array:
        """Fit the linear model and predict probabilities (N, K), or values (N,), of the test users."""
        fitted, key = x[train], (task.name, name, share)
        if not isinstance(task, Classification):
            if key not in self.variances:
                self.variances[key] = ridge_variance(fitted, task.answer_N[train], seed)
            return fitted_ridge(fitted, task.answer_N[train], self.variances[key])(x[test])
        if key not in self.variances:
            self.variances[key] = logistic_variance(fitted, task.label_N[train], len(task.classes), seed)
        model = fitted_logistic(fitted, task.label_N[train], self.variances[key])
        if not converged(model):
            self.stopped[task.name, name] = None
        return np.asarray(model.predict_proba(x[test]))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep scikit-learn from warning of each model that ran out of steps: ``Fitter.stopped`` has them, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", report_library("sklearn.exceptions").ConvergenceWarning)
        yield


def trees(task: Question, x: Matrix, train: Ints, test: Ints, seed: int) -> Array:
    """Fit boosted trees and predict probabilities (N, K), or values (N,), of the test users."""
    if isinstance(task, Classification):
        return boosted_trees(x[train], task.label_N[train], x[test], len(task.classes), seed)
    return boosted_regression(x[train], task.answer_N[train], x[test], seed)


def linear_of(task: Question) -> str:
    """Name the linear model of a task."""
    return "logistic regression" if isinstance(task, Classification) else "ridge regression"


def sample(task: Question, train: Ints, share: float, seed: int) -> Ints:
    """Sample a share of the train rows, of each class alike and at least one; a greater share only adds rows."""
    mixed = np.random.default_rng(seed).permutation(train)
    group = task.label_N[mixed] if isinstance(task, Classification) else np.zeros(len(mixed), dtype=np.int64)
    chosen = [rows[: int(np.ceil(share * len(rows)))] for k in np.unique(group) for rows in [mixed[group == k]]]
    return np.sort(np.concatenate(chosen))
