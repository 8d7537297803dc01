"""Varimax: the orthogonal rotation that gives each dimension few large loadings and many near 0 (Kaiser 1958).

Legend of array shapes: C = columns, K = dimensions.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from gur_spark.arrays import Array

MOST_ROWS = 20_000
"""Rows of a matrix, at most, that choose the rotation: those with the largest sums of squares. The criterion is made of
fourth powers, and the other rows hardly count."""
STEPS = 500
"""Most steps of the search."""
TOLERANCE = 1e-7
"""Relative gain of a step below which the search ends."""


def varimax(loadings_CK: Array) -> Array:
    """Find the orthogonal rotation (K, K) for which ``loadings @ rotation`` has the largest ``criterion``.

    Each step goes to the polar factor of the criterion's gradient. The first step starts beside the identity, so the
    result depends on the loadings alone. The criterion may have several peaks; the result is the one nearest to the
    identity.

    By hand: the rows (1, 1) and (1, -1) become (sqrt 2, 0) and (0, sqrt 2), up to signs and order.
    """
    rows_CK = _largest_rows(loadings_CK)
    rotation_KK: npt.NDArray[Any] = _small_turn(loadings_CK.shape[1])
    reached = 0.0
    for _ in range(STEPS):
        turned_CK = rows_CK @ rotation_KK
        mean_K = (turned_CK**2).sum(axis=0) / max(len(loadings_CK), 1)
        left_KK, values_K, right_KK = np.linalg.svd(rows_CK.T @ (turned_CK**3 - turned_CK * mean_K))
        rotation_KK = left_KK @ right_KK
        gained, reached = values_K.sum() - reached, values_K.sum()
        if gained <= TOLERANCE * reached:
            break
    return rotation_KK


def criterion(loadings_CK: Array) -> float:
    """Sum over the dimensions of the variance of squared loadings (Kaiser 1958, the raw form)."""
    return float((loadings_CK**2).var(axis=0).sum())


def _largest_rows(loadings_CK: Array) -> Array:
    if len(loadings_CK) <= MOST_ROWS:
        return loadings_CK
    squares_C = (loadings_CK**2).sum(axis=1)
    chosen: Array = loadings_CK[np.sort(np.argsort(-squares_C, kind="stable")[:MOST_ROWS])]
    return chosen


def _small_turn(width: int) -> Array:
    """Turn the identity a little, by the Cayley transform of a skew matrix.

    Where all loadings are equal in size, the gradient is 0 at the identity, and the search would not leave it.
    """
    skew_KK = np.triu(np.full((width, width), 0.01 / max(width, 1)), 1)
    skew_KK -= skew_KK.T
    turned_KK: Array = np.linalg.solve(np.eye(width) + skew_KK, np.eye(width) - skew_KK)
    return turned_KK
