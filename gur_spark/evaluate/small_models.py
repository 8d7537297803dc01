"""Small models that probe representations: linear ones and boosted trees. Neither needs Spark or torch.

Legend of array shapes: N = users, K = classes.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gur_spark.arrays import Array, Ints
from gur_spark.extras import report_library

Matrix: TypeAlias = Array | sparse.csr_array

TREES = {
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.5,
    "verbosity": -1,
    # Deterministic settings give the same trees on every run. Trees this small are faster on one thread than on two.
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
}
ROUNDS = 100

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
    """Predict class probabilities of the test users, (N, K), by logistic regression.

    The ridge penalty is chosen within ``x``, on users of classes with at least ``FOLDS`` users. Where fewer than two
    classes have that many, the variance is 0.01.
    """
    linear_model, selection = report_library("sklearn.linear_model"), report_library("sklearn.model_selection")
    settings = {"solver": "newton-cg", "max_iter": 500}
    some = _some(x, seed)
    some = some[np.bincount(label[some], minlength=classes)[label[some]] >= FOLDS]
    variance = 0.01
    if len(np.unique(label[some])) > 1:
        by = selection.StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        # A later release of scikit-learn spells its default ratio so.
        choice = linear_model.LogisticRegressionCV(
            Cs=PRIOR_VARIANCES, l1_ratios=(0,), cv=by, scoring="neg_log_loss", use_legacy_attributes=False, **settings
        )
        variance = choice.fit(x[some], label[some]).C_
    model = linear_model.LogisticRegression(C=variance, **settings)
    return np.asarray(model.fit(x, label).predict_proba(x_test))


def boosted_trees(x: Matrix, label: Ints, x_test: Matrix, classes: int, seed: int) -> Array:
    """Predict class probabilities of the test users, (N, K), by gradient boosted trees."""
    binary = classes == 2
    objective = {"objective": "binary"} if binary else {"objective": "multiclass", "num_class": classes}
    probability = _trees(x, label, x_test, objective, seed)
    return np.stack([1 - probability, probability], axis=1) if binary else probability


def ridge_regression(x: Matrix, value_N: Array, x_test: Matrix, seed: int) -> Array:
    """Predict values of the test users, (N,), by ridge regression; the penalty is chosen within ``x``."""
    linear_model, selection = report_library("sklearn.linear_model"), report_library("sklearn.model_selection")
    low, high = value_N.min(), value_N.max()

    def clipped(model: Any, x: Matrix) -> Array:
        # A column that is rare among the train users may put one test user far out, and that user would make up the
        # whole error.
        return np.asarray(model.predict(x)).clip(low, high)

    def score(model: Any, x: Matrix, value_N: Array) -> float:
        return -float(((clipped(model, x) - value_N) ** 2).mean())

    # The solver runs to the end. If it stopped early, columns of small scale would be penalised more than intended.
    model = linear_model.Ridge(solver="lsqr", tol=1e-8, random_state=seed)
    some = _some(x, seed)
    by = selection.KFold(min(FOLDS, len(some)), shuffle=True, random_state=seed)
    trials = {"alpha": [1 / variance for variance in PRIOR_VARIANCES]}
    search = selection.GridSearchCV(model, trials, scoring=score, cv=by, refit=False).fit(x[some], value_N[some])
    return clipped(model.set_params(**search.best_params_).fit(x, value_N), x_test)


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
