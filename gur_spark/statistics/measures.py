"""Measures of the difference between two samples, for the gates of a publish and for the monitor.

Legend of array shapes: N = users (or values) of a sample, C = canary users, L = width of an embedding,
P = projections, B = bins.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gur_spark.arrays import Array, Ints
from gur_spark.splits import held_out

FEWEST = 200
"""Least number of users for which shares and densities are compared."""

USERS_PER_BIN = 100
"""Least number of users per bin. It keeps the PSI that chance adds below 0.02: (B - 1) (1 / n + 1 / m) on average."""

BINS = 10
NEIGHBOURS = 10
CANARIES = 200
"""Users whose nearest neighbours are compared."""
PROJECTIONS = 8


@dataclass(frozen=True)
class Sample:
    """Users that both sides have, with their embeddings on both sides."""

    users_N: npt.NDArray[Any]
    before_NL: Array
    after_NL: Array


def psi(before_B: Array, after_B: Array) -> float:
    """Population stability index of users (or weights) in the same bins: ``sum (q - p) ln(q / p)`` of their shares.

    It is 0 where the shares are equal, symmetric in the two sides, and always finite: an empty bin counts as half a
    user, and a bin that is empty on both sides is left out. Below 0.1 little has moved, above 0.25 much (Siddiqi 2006).
    By hand: shares (1/2, 1/2) before and (1/4, 3/4) after: -1/4 ln(1/2) + 1/4 ln(3/2) = 1/4 ln 3 = 0.275.
    """
    there_B = (before_B > 0) | (after_B > 0)
    p_B, q_B = (np.maximum(side[there_B], 0.5) / side.sum() for side in (before_B, after_B))
    return float(((q_B - p_B) * np.log(q_B / p_B)).sum())


def values_psi(before_N: Array, after_N: Array) -> float:
    """``psi`` of numbers, in quantile bins of the side before; see ``bin_edges``."""
    edges = bin_edges(before_N, len(after_N))
    return psi(in_bins(before_N, edges), in_bins(after_N, edges))


def number_of_bins(users: int, most: int) -> int:
    """Number of bins for so many users, at most ``most``."""
    return min(max(users // USERS_PER_BIN, 2), most)


def bin_edges(before_N: Array, after: int, most: int = BINS) -> Array:
    """Edges of quantile bins. A value that is as frequent as a bin, such as 0, has a bin of its own.

    Without that, a constant column could fall and stay in its bin.

    Args:
        after: number of values on the other side.
    """
    bins = number_of_bins(min(len(before_N), after), most)
    edges = np.unique(np.quantile(before_N, np.linspace(0, 1, bins + 1)[1:-1]))
    frequent = [(before_N == edge).mean() >= 1 / bins for edge in edges]
    return np.unique(np.concatenate([edges, np.nextafter(edges[frequent], -np.inf)]))


def in_bins(values_N: Array, edges: Array) -> Array:
    """Number of values in each bin ``(edge, next edge]``. The first and last bin are open."""
    places_N = np.searchsorted(edges, values_N, side="left")
    return np.bincount(places_N, minlength=len(edges) + 1).astype(np.float64)


def ratio(before: float, after: float) -> float:
    """The greater number over the smaller one, at least 1; infinite where one of them is 0.

    By hand: 2 and 3, or 3 and 2 -> 1.5.
    """
    low, high = sorted((before, after))
    return high / low if low else float("inf" if high else 1)


def norm_ratio(sample: Sample) -> float:
    """``ratio`` of the mean norms."""
    before, after = (float(np.linalg.norm(x_NL, axis=1).mean()) for x_NL in (sample.before_NL, sample.after_NL))
    return ratio(before, after)


def projections_psi(sample: Sample) -> float:
    """Greatest ``values_psi`` along ``PROJECTIONS`` random directions, which are the same every time."""
    width = sample.before_NL.shape[1]
    directions_LP = np.random.default_rng(0).standard_normal((width, PROJECTIONS))
    sides = (sample.before_NL @ directions_LP, sample.after_NL @ directions_LP)
    return max(values_psi(before_N, after_N) for before_N, after_N in zip(sides[0].T, sides[1].T, strict=True))


def domain_auc(sample: Sample) -> float:
    """AUC of Fisher's discriminant that tells the two sides apart, on users it was not fitted on; 0.5 is chance."""
    fit_N = held_out(sample.users_N, 0.5, "domain classifier")
    before_NL, after_NL = sample.before_NL, sample.after_NL
    difference_L = after_NL[fit_N].mean(0) - before_NL[fit_N].mean(0)
    within_LL = np.atleast_2d(np.cov(before_NL[fit_N].T) + np.cov(after_NL[fit_N].T))
    # A small multiple of the identity, for directions in which nothing varies.
    ridge = 1e-3 * np.trace(within_LL) / len(within_LL) + 1e-12
    direction_L = np.linalg.solve(within_LL + ridge * np.eye(len(within_LL)), difference_L)
    return auc(before_NL[~fit_N] @ direction_L, after_NL[~fit_N] @ direction_L)


def auc(negative_N: Array, positive_N: Array) -> float:
    """Probability that a positive score is greater than a negative one; ties count as a half."""
    both = np.concatenate([negative_N, positive_N])
    _, place_N, counts = np.unique(both, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    ranks = rank[place_N[len(negative_N) :]].sum()
    n, m = len(negative_N), len(positive_N)
    return float((ranks - m * (m + 1) / 2) / (n * m))


def neighbours_kept(sample: Sample, canaries: int = CANARIES) -> float:
    """Mean share of a canary user's nearest ``NEIGHBOURS`` in the sample that are the same on both sides."""
    near = [_nearest(x_NL, min(canaries, len(x_NL))) for x_NL in (sample.before_NL, sample.after_NL)]
    kept = [len(set(before) & set(after)) for before, after in zip(*(n.tolist() for n in near), strict=True)]
    return float(np.mean(kept)) / NEIGHBOURS


def _nearest(x_NL: Array, canaries: int) -> Ints:
    """Rows nearest to each of the first rows by Euclidean distance, without the row itself, (C, NEIGHBOURS)."""
    squares_N = (x_NL**2).sum(1)
    distance_CN = squares_N[None, :] - 2 * x_NL[:canaries] @ x_NL.T
    distance_CN[np.arange(canaries), np.arange(canaries)] = np.inf
    return np.argpartition(distance_CN, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
