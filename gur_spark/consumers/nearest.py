"""How near embeddings are to each other, and which are the nearest, as arrays: the arithmetic of ``neighbours``.

Nearest first, ties in the order of the user ids. Scores are computed pair by pair in float64, so that they, and with
them the ties, depend neither on the blocks nor on the other users; the fast matrix product only finds the candidates.

Legend of array shapes: N = users, Q = users asked about, B = users of a block, P = pairs, L = width of an embedding.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gur_spark.arrays import Array
from gur_spark.errors import ConsumerError, nearest

Rows = npt.NDArray[np.int64]
Metric = Literal["cosine", "dot", "euclidean"]

PAIRS = 65_536
"""Pairs that are scored at a time."""
SLACK = 1e-11
"""Beyond the rounding of a matrix product of 4096 columns, relative to the squared lengths."""


@dataclass(frozen=True)
class Pairs:
    """Some users and users near them, with how near: more is nearer."""

    asked_P: Rows
    """Position among the users asked about."""
    near_P: Rows
    """Row of the near user."""
    nearness_P: Array


def best(pairs: Pairs, k: int, place_N: Rows) -> Pairs:
    """The first ``k`` of each user asked about: nearest first, of those that are as near in the order of their ids."""
    order = np.lexsort((place_N[pairs.near_P], -pairs.nearness_P, pairs.asked_P))
    kept = order[ranks(pairs.asked_P[order]) < k]
    return Pairs(pairs.asked_P[kept], pairs.near_P[kept], pairs.nearness_P[kept])


def ranks(sorted_P: Rows) -> Rows:
    """Of each entry among those that equal it, from 0. By hand: [3, 3, 5, 5, 5] -> [0, 1, 0, 1, 2]."""
    return np.arange(len(sorted_P)) - np.searchsorted(sorted_P, sorted_P)


def likely(q_QL: Array, x_BL: Array, own_Q: Rows, k: int, metric: Metric, least_Q: Array) -> npt.NDArray[np.bool_]:
    """Which users of a block may be among the ``k`` nearest, within the rounding of a matrix product, (Q, B)."""
    squares_Q, squares_B = (q_QL**2).sum(1), (x_BL**2).sum(1)
    near_QB = q_QL @ x_BL.T
    if metric == "euclidean":
        near_QB *= 2
        near_QB -= squares_Q[:, None] + squares_B
    here = (own_Q >= 0) & (own_Q < len(x_BL))
    near_QB[np.flatnonzero(here), own_Q[here]] = -np.inf
    if len(x_BL) > k:
        least_Q = np.maximum(least_Q, np.partition(near_QB, len(x_BL) - k, axis=1)[:, len(x_BL) - k])
    least_Q = least_Q - SLACK * (squares_Q + squares_B.max())
    likely: npt.NDArray[np.bool_] = (near_QB >= least_Q[:, None]) & (near_QB > -np.inf)
    return likely


def least(found: Pairs, k: int, asked: int) -> Array:
    """How near the k-th is so far, (Q,)."""
    least_Q = np.full(asked, -np.inf)
    last_P = ranks(found.asked_P) == k - 1
    least_Q[found.asked_P[last_P]] = found.nearness_P[last_P]
    return least_Q


def nearness(q_QL: Array, x_BL: Array, asked_P: Rows, near_P: Rows, metric: Metric) -> Array:
    """Cosine, dot product, or the negative square of the distance: each pair by itself, in one order of adding up."""
    nearness_P = np.empty(len(asked_P))
    for start in range(0, len(asked_P), PAIRS):
        part = slice(start, start + PAIRS)
        a_PL, b_PL = q_QL[asked_P[part]], x_BL[near_P[part]]
        nearness_P[part] = -((a_PL - b_PL) ** 2).sum(1) if metric == "euclidean" else (a_PL * b_PL).sum(1)
    return nearness_P


def prepared(x: npt.NDArray[np.float32], metric: Metric) -> Array:
    """In float64, for cosines of length 1; an embedding of zeros has the cosine 0 with all."""
    wide = x.astype(np.float64)
    if metric == "cosine":
        length = np.sqrt((wide**2).sum(1, keepdims=True))
        wide /= np.where(length > 0, length, 1)
    return wide


def no_pairs() -> Pairs:
    return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def both(one: Pairs, other: Pairs) -> Pairs:
    return Pairs(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in Pairs.__dataclass_fields__))


def check_metric(metric: str) -> None:
    known = list(get_args(Metric))
    if metric not in known:
        raise ConsumerError(f"unknown metric '{metric}'; expected one of {known}{nearest(metric, known)}")
