"""Varimax: the orthogonal rotation that gives each dimension few large loadings and many near 0 (Kaiser 1958).

Legend of array shapes: C = columns, K = dimensions, P = pairs of dimensions.
"""

from collections.abc import Iterator

import numpy as np

from gur_spark.arrays import Array, Ints

MOST_ROWS = 5_000
"""Rows of a matrix, at most, that choose the rotation: those with the largest sums of squares. The criterion is made of
fourth powers, and the other rows hardly count."""
SWEEPS = 50
"""Most rounds in which each pair of dimensions is turned once."""
LEAST_ANGLE = 1e-4
"""Angle in radians below which no pair of a sweep turns any more when the search ends."""
FLAT = 1e-14
"""Gain, as a share of the squared sum of squares, below which all angles of a pair are equally good."""


def varimax(loadings_CK: Array) -> Array:
    """Find the orthogonal rotation (K, K) for which ``loadings @ rotation`` has the largest ``criterion``.

    Every pair of dimensions in turn is rotated by its best angle, until no pair gains. The criterion may have several
    peaks; the search goes to one that depends on the loadings alone.

    By hand: the rows (1, 1) and (1, -1) become (sqrt 2, 0) and (0, sqrt 2), up to signs and order.
    """
    turned_CK, rotation_KK = _largest_rows(loadings_CK), np.eye(loadings_CK.shape[1])
    sweep = list(rounds(len(rotation_KK)))
    for _ in range(SWEEPS):
        greatest = 0.0
        for left_P, right_P in sweep:
            angle_P = _best_angles(turned_CK[:, left_P], turned_CK[:, right_P], len(loadings_CK))
            for matrix in (turned_CK, rotation_KK):
                x, y = matrix[:, left_P], matrix[:, right_P]
                matrix[:, left_P] = x * np.cos(angle_P) + y * np.sin(angle_P)
                matrix[:, right_P] = y * np.cos(angle_P) - x * np.sin(angle_P)
            greatest = max(greatest, float(np.abs(angle_P).max(initial=0)))
        if greatest < LEAST_ANGLE:
            break
    return rotation_KK


def criterion(loadings_CK: Array) -> float:
    """Sum over the dimensions of the variance of squared loadings (Kaiser 1958, the raw form)."""
    return float((loadings_CK**2).var(axis=0).sum())


def rounds(width: int) -> Iterator[tuple[Ints, Ints]]:
    """Pair all dimensions, each pair once, in rounds of pairs without a common dimension, as in a tournament."""
    players = list(range(width + width % 2))
    half = len(players) // 2
    for _ in range(len(players) - 1):
        pairs = zip(players[:half], players[: half - 1 : -1], strict=True)
        met = np.array([pair for pair in pairs if max(pair) < width], dtype=np.int64).reshape(-1, 2)
        yield met[:, 0], met[:, 1]
        players[1:] = [players[-1], *players[1:-1]]


def _best_angles(x_CP: Array, y_CP: Array, rows: int) -> Array:
    """Angle of each pair that makes its criterion largest (Kaiser 1958, equation for the plane); (P,), radians."""
    u_CP, v_CP = x_CP**2 - y_CP**2, 2 * x_CP * y_CP
    u_P, v_P = u_CP.sum(axis=0), v_CP.sum(axis=0)
    sine_P = 2 * ((u_CP * v_CP).sum(axis=0) - u_P * v_P / rows)
    cosine_P = (u_CP**2 - v_CP**2).sum(axis=0) - (u_P**2 - v_P**2) / rows
    squares_P = (x_CP**2 + y_CP**2).sum(axis=0)
    gains_P = np.hypot(sine_P, cosine_P) > FLAT * squares_P**2
    return np.where(gains_P, np.arctan2(sine_P, cosine_P) / 4, 0.0)


def _largest_rows(loadings_CK: Array) -> Array:
    if len(loadings_CK) <= MOST_ROWS:
        return loadings_CK.copy()
    squares_C = (loadings_CK**2).sum(axis=1)
    chosen: Array = loadings_CK[np.sort(np.argsort(-squares_C, kind="stable")[:MOST_ROWS])]
    return chosen
