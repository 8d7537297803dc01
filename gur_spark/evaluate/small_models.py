"""Small models that probe representations: linear ones and boosted trees. Neither needs Spark or torch.

Legend of array shapes: N = users, K = classes.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gur_spark.arrays import Array, Ints
from gur_spark.extras import report_library

Matrix: TypeAlias = Array | sparse.csr_array

TREES = {
    "learning_rate": 0.1,
    "num_leaves": 15,
    "max_bin": 63,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.5,
    "verbosity": -1,
    # Deterministic settings give the same trees on every run. Trees this small are faster on one thread than on two.
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
}
ROUNDS = 50
"""Rounds of boosting. Twice as many at half the rate, with 255 bins, take 3 times as long and predict no better."""

SOLVER: Mapping[str, Any] = {"solver": "newton-cg", "max_iter": 500}

PRIOR_VARIANCES = (0.0001, 0.001, 0.01, 0.1, 1.0)
"""Candidate variances of a linear model's weights, one over the ridge penalty (for amounts, in variances of their
noise).

One is chosen for each representation, because one for all would favour either 32 numbers or 10,000. As a prior it does
not depend on the number of users, so that a sample can choose it.
"""
CHOSEN_BY = 20_000
"""Users, at most, that the variance is chosen on."""
FOLDS = 3


def logistic_regression(x: Matrix, label: Ints, x_test: Matrix, classes: int, seed: int) -> Array:
    """Predict class probabilities of the test users, (N, K), by logistic regression; see ``logistic_variance``."""
    model = fitted_logistic(x, label, logistic_variance(x, label, classes, seed))
    return np.asarray(model.predict_proba(x_test))


def fitted_logistic(x: Matrix, label: Ints, variance: float) -> Any:
    """Fit scikit-learn's logistic regression."""
    return report_library("sklearn.linear_model").LogisticRegression(C=variance, **SOLVER).fit(x, label)


def converged(model: Any) -> bool:
    """Whether a logistic regression stopped before its last step."""
    return bool(np.max(model.n_iter_) < SOLVER["max_iter"])


def logistic_variance(x: Matrix, label: Ints, classes: int, seed: int) -> float:
    """Choose the prior variance of a logistic regression by its log loss over folds.

    Users of classes with at least ``FOLDS`` users choose. Where fewer than two classes have that many, it is 0.01.
    """
    selection = report_library("sklearn.model_selection")
    some = _some(x, seed)
    some = some[np.bincount(label[some], minlength=classes)[label[some]] >= FOLDS]
    if len(np.unique(label[some])) < 2:
        return 0.01
    x, label = x[some], label[some]
    folds = list(selection.StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, label))
    # Each fold goes on from its solution at the stronger penalty before.
    # A coarse solution tells penalties a factor of ten apart, in two thirds of the time.
    library, warm = report_library("sklearn.linear_model"), {**SOLVER, "tol": 0.001, "warm_start": True}
    models = [library.LogisticRegression(**warm) for _ in folds]

    def loss(variance: float) -> float:
        total = 0.0
        for model, (fit, asked) in zip(models, folds, strict=True):
            said_NK = model.set_params(C=variance).fit(x[fit], label[fit]).predict_log_proba(x[asked])
            total -= float(said_NK[np.arange(len(asked)), np.searchsorted(model.classes_, label[asked])].mean())
        return total / len(folds)

    return _along_the_path(loss)


def _along_the_path(loss: Callable[[float], float]) -> float:
    """Choose the variance with the least loss; the path from the smallest ends where the loss rises.

    Larger variances take most of the time, because they need more steps.
    """
    best, least = PRIOR_VARIANCES[0], loss(PRIOR_VARIANCES[0])
    for variance in PRIOR_VARIANCES[1:]:
        now = loss(variance)
        if now >= least:
            break
        best, least = variance, now
    return best


def boosted_trees(x: Matrix, label: Ints, x_test: Matrix, classes: int, seed: int) -> Array:
    """Predict class probabilities of the test users, (N, K), by gradient boosted trees."""
    binary = classes == 2
    objective = {"objective": "binary"} if binary else {"objective": "multiclass", "num_class": classes}
    probability = _trees(x, label, x_test, objective, seed)
    return np.stack([1 - probability, probability], axis=1) if binary else probability


def ridge_regression(x: Matrix, value_N: Array, x_test: Matrix, seed: int) -> Array:
    """Predict values of the test users, (N,), by ridge regression; see ``ridge_variance``."""
    return fitted_ridge(x, value_N, ridge_variance(x, value_N, seed))(x_test)


def fitted_ridge(x: Matrix, value_N: Array, variance: float) -> Callable[[Matrix], Array]:
    """Fit scikit-learn's ridge regression, and return a function that predicts within the range of ``value_N``."""
    # The solver runs to the end. If it stopped early, columns of small scale would be penalised more than intended.
    model = report_library("sklearn.linear_model").Ridge(alpha=1 / variance, solver="lsqr", tol=1e-8).fit(x, value_N)
    low, high = value_N.min(), value_N.max()
    # A column that is rare among the train users may put one test user far out, and that user would make up the whole
    # error.
    return lambda x_test: np.asarray(model.predict(x_test)).clip(low, high)


def ridge_variance(x: Matrix, value_N: Array, seed: int) -> float:
    """Choose the prior variance of a ridge regression, in variances of the noise, by its squared error over folds."""
    some = _some(x, seed)
    by = report_library("sklearn.model_selection").KFold(min(FOLDS, len(some)), shuffle=True, random_state=seed)
    x, value_N = x[some], value_N[some]
    folds = list(by.split(x))

    def loss(variance: float) -> float:
        errors = [fitted_ridge(x[fit], value_N[fit], variance)(x[asked]) - value_N[asked] for fit, asked in folds]
        return float(np.mean([np.mean(error_N**2) for error_N in errors]))

    return _along_the_path(loss)


def boosted_regression(x: Matrix, value_N: Array, x_test: Matrix, seed: int) -> Array:
    """Predict values of the test users, (N,), by gradient boosted trees."""
    return _trees(x, value_N, x_test, {"objective": "regression"}, seed)


def _trees(x: Matrix, y: npt.NDArray[Any], x_test: Matrix, objective: Mapping[str, Any], seed: int) -> Array:
    lightgbm = report_library("lightgbm")
    # LightGBM takes scipy's matrices, and not yet its arrays.
    x, x_test = (sparse.csr_matrix(part) if sparse.issparse(part) else part for part in (x, x_test))
    trees = lightgbm.train({**TREES, **objective, "seed": seed}, lightgbm.Dataset(x, y), num_boost_round=ROUNDS)
    return np.asarray(trees.predict(x_test, num_threads=TREES["num_threads"]))


def _some(x: Matrix, seed: int) -> Ints:
    """Sample the positions of the users that choose the penalty."""
    users = np.random.default_rng(seed).permutation(x.shape[0])[:CHOSEN_BY]
    return np.sort(users)
