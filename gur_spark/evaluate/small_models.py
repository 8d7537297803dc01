"""The small models that representations are probed by: linear ones, and boosted trees. Neither Spark nor torch.

Legend of array shapes: N = users, K = classes.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gur_spark.evaluate import extra

Array = npt.NDArray[np.float64]
Matrix: TypeAlias = Array | sparse.csr_array

TREES = {
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.5,
    "verbosity": -1,
    # The same trees on every run. Trees this small are done sooner by one thread than two threads can agree.
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
}
ROUNDS = 100


def logistic_regression(x: Matrix, label: npt.NDArray[np.int64], x_test: Matrix, classes: int, seed: int) -> Array:
    """Class probabilities of the test users, (N, K), by ridge-penalised logistic regression."""
    model = extra("sklearn.linear_model").LogisticRegression(C=0.1, max_iter=500, solver="newton-cg")
    return np.asarray(model.fit(x, label).predict_proba(x_test))


def boosted_trees(x: Matrix, label: npt.NDArray[np.int64], x_test: Matrix, classes: int, seed: int) -> Array:
    """Class probabilities of the test users, (N, K), by gradient boosted trees."""
    binary = classes == 2
    objective = {"objective": "binary"} if binary else {"objective": "multiclass", "num_class": classes}
    probability = _trees(x, label, x_test, objective, seed)
    return np.stack([1 - probability, probability], axis=1) if binary else probability


def ridge_regression(x: Matrix, value_N: Array, x_test: Matrix, seed: int) -> Array:
    """Values of the test users, (N,)."""
    # Sparse raw windows are wide: the penalty of the logistic regression, on the same scale.
    model = extra("sklearn.linear_model").Ridge(alpha=100.0, solver="lsqr", random_state=seed)
    # A column that is rare among the train users may be far out for one test user, who would be all of the error.
    return np.asarray(np.clip(model.fit(x, value_N).predict(x_test), value_N.min(), value_N.max()))


def boosted_regression(x: Matrix, value_N: Array, x_test: Matrix, seed: int) -> Array:
    """Values of the test users, (N,), by gradient boosted trees."""
    return _trees(x, value_N, x_test, {"objective": "regression"}, seed)


def _trees(x: Matrix, y: npt.NDArray[Any], x_test: Matrix, objective: Mapping[str, Any], seed: int) -> Array:
    lightgbm = extra("lightgbm")
    # LightGBM knows scipy's matrices, not yet its arrays.
    x, x_test = (sparse.csr_matrix(part) if sparse.issparse(part) else part for part in (x, x_test))
    trees = lightgbm.train({**TREES, **objective, "seed": seed}, lightgbm.Dataset(x, y), num_boost_round=ROUNDS)
    return np.asarray(trees.predict(x_test))
