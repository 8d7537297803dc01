"""Arithmetic of nearest users: similarity of embeddings, and the choice of the nearest.

The nearest user comes first, and ties are in the order of the user ids. Nearness is computed pair by pair in float64,
so that it depends neither on the blocks nor on the other users. The fast matrix product only finds candidates.

Legend of array shapes: N = users, Q = users asked about, B = users of a block, P = pairs, L = width of an embedding.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from gur_spark.arrays import Array, Floats, Ints, Mask
from gur_spark.errors import ConsumerError, nearest

Metric = Literal["cosine", "dot", "euclidean"]

PAIRS = 65_536
"""NearPairs that are scored at a time."""
SLACK = 1e-11
"""Bound on the rounding of a matrix product of 4,096 columns, relative to the squared lengths."""


@dataclass(frozen=True)
class NearPairs:
    """Pairs of a user asked about and a user near it, with their similarity: a greater number is nearer."""

    asked_P: Ints
    """Place of each user among those asked about."""
    near_P: Ints
    """Row of each near user."""
    similarity_P: Array


def best(pairs: NearPairs, k: int, place_N: Ints) -> NearPairs:
    """The ``k`` nearest pairs of each user asked about, nearest first, ties in the order of the ids.

    Args:
        place_N: place of each user in the order of the ids.
    """
    order = np.lexsort((place_N[pairs.near_P], -pairs.similarity_P, pairs.asked_P))
    first = order[ranks(pairs.asked_P[order]) < k]
    return NearPairs(pairs.asked_P[first], pairs.near_P[first], pairs.similarity_P[first])


def ranks(sorted_P: Ints) -> Ints:
    """Rank of each entry among equal ones, from 0. By hand: [3, 3, 5, 5, 5] -> [0, 1, 0, 1, 2]."""
    return np.arange(len(sorted_P)) - np.searchsorted(sorted_P, sorted_P)


def candidates(q_QL: Array, x_BL: Array, own_Q: Ints, k: int, metric: Metric, least_Q: Array) -> Mask:
    """Mask of users of a block that may be among the ``k`` nearest, given the rounding of a matrix product, (Q, B).

    Args:
        own_Q: row of each user asked about in the block; outside the block where it is not there.
        least_Q: similarity of the k-th nearest user found so far.
    """
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
    may_be_near_QB: Mask = (near_QB >= least_Q[:, None]) & (near_QB > -np.inf)
    return may_be_near_QB


def kth_similarity(found: NearPairs, k: int, asked: int) -> Array:
    """Nearness of the k-th nearest user found so far, (Q,); minus infinity where there are fewer."""
    least_Q = np.full(asked, -np.inf)
    last_P = ranks(found.asked_P) == k - 1
    least_Q[found.asked_P[last_P]] = found.similarity_P[last_P]
    return least_Q


def similarity(q_QL: Array, x_BL: Array, asked_P: Ints, near_P: Ints, metric: Metric) -> Array:
    """Cosine, dot product or negative squared distance of each pair, computed on its own with sums in one order."""
    similarity_P = np.empty(len(asked_P))
    for start in range(0, len(asked_P), PAIRS):
        part = slice(start, start + PAIRS)
        a_PL, b_PL = q_QL[asked_P[part]], x_BL[near_P[part]]
        similarity_P[part] = -((a_PL - b_PL) ** 2).sum(1) if metric == "euclidean" else (a_PL * b_PL).sum(1)
    return similarity_P


def scaled(x: Floats, metric: Metric) -> Array:
    """Embeddings in float64, for cosines scaled to length 1. An embedding of zeros has the cosine 0 with all others."""
    wide = x.astype(np.float64)
    if metric == "cosine":
        length = np.sqrt((wide**2).sum(1, keepdims=True))
        wide /= np.where(length > 0, length, 1)
    return wide


def no_pairs() -> NearPairs:
    """No pairs, to begin with."""
    return NearPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def joined(one: NearPairs, other: NearPairs) -> NearPairs:
    """All pairs of both."""
    return NearPairs(
        *(np.concatenate([getattr(one, name), getattr(other, name)]) for name in NearPairs.__dataclass_fields__)
    )


def check_metric(metric: str) -> None:
    """Refuse an unknown metric.

    Raises:
        ConsumerError: it is not one of ``Metric``.
    """
    known = list(get_args(Metric))
    if metric not in known:
        raise ConsumerError(f"unknown metric '{metric}'; expected one of {known}{nearest(metric, known)}")
