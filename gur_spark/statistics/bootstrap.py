"""Metrics over many resamples of the same users at once.

A resample is a row of weights, which count how often each user was drawn. So sorting by score, the costly part of a
rank metric, is done once for all resamples, and two representations are compared on the same resamples.
"""

# R = resamples, N = users, G = groups of users with equal scores, K = classes

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from gur_spark.arrays import Array, Ints, Mask

Weights = npt.NDArray[np.uint16]

CHUNK = 4_000_000
"""Weights that are processed at a time: 32 MB per float64 array."""


def resamples(users: int, count: int, seed: int) -> Weights:
    """Draw bootstrap resamples: how often each user is drawn in each of them, (R, N)."""
    rng = np.random.default_rng(seed)
    weights = np.empty((count, users), dtype=np.uint16)
    for resample in range(count):
        weights[resample] = np.bincount(rng.integers(0, users, users), minlength=users)
    return weights


def auc(positive_N: Mask, score_N: Array, weights: Weights) -> Array:
    """Area under the ROC curve per resample, (R,): P(a positive's score is higher) + P(it is equal) / 2.

    NaN where a resample has no positive or no negative.
    """

    def of_groups(positive_RG: Array, negative_RG: Array) -> Array:
        # Groups are in the order of falling score, so lower scores follow.
        below_RG = negative_RG.sum(axis=1, keepdims=True) - negative_RG.cumsum(axis=1)
        wins_R = (positive_RG * (below_RG + negative_RG / 2)).sum(axis=1)
        return np.asarray(wins_R / (positive_RG.sum(axis=1) * negative_RG.sum(axis=1)))

    return _by_groups(positive_N, score_N, weights, of_groups)


def average_precision(positive_N: Mask, score_N: Array, weights: Weights) -> Array:
    """Mean precision over the positives, with ties as one step, per resample, (R,); NaN without a positive."""

    def of_groups(positive_RG: Array, negative_RG: Array) -> Array:
        found_RG = positive_RG.cumsum(axis=1)
        taken_RG = found_RG + negative_RG.cumsum(axis=1)
        precision_RG = np.where(taken_RG > 0, found_RG / taken_RG, 0)
        return np.asarray((positive_RG * precision_RG).sum(axis=1) / found_RG[:, -1])

    return _by_groups(positive_N, score_N, weights, of_groups)


def macro_auc(label_N: Ints, score_NK: Array, weights: Weights) -> Array:
    """Mean of the one-vs-rest AUCs of the classes that a resample has, (R,)."""
    each_KR = np.stack([auc(label_N == k, score_NK[:, k], weights) for k in range(score_NK.shape[1])])
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(each_KR, axis=0) / (~np.isnan(each_KR)).sum(axis=0))


def accuracy(label_N: Ints, score_NK: Array, weights: Weights) -> Array:
    """Share of users whose own class has the highest score, per resample, (R,)."""
    right_N = (score_NK.argmax(axis=1) == label_N).astype(np.float64)
    return np.asarray(weights @ right_N / weights.sum(axis=1))


def r2(value_N: Array, predicted_N: Array, weights: Weights) -> Array:
    """Explained share of the variance around the mean of a resample, (R,); NaN where all values are equal."""
    return np.concatenate([_r2(value_N, predicted_N, chunk) for chunk in _chunks(weights)])


def spearman(value_N: Array, predicted_N: Array, weights: Weights) -> Array:
    """Correlation of ranks within each resample, with ties at their mean rank, (R,); NaN where a side is constant."""
    return np.concatenate(
        [_correlation(_ranks(value_N, chunk), _ranks(predicted_N, chunk), chunk) for chunk in _chunks(weights)]
    )


def interval(values_R: Array) -> tuple[float, float]:
    """Interval of the middle 95 %, without resamples in which the metric is NaN; NaN if all are."""
    if np.isnan(values_R).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values_R, [0.025, 0.975])
    return float(low), float(high)


def _chunks(weights: Weights) -> Iterator[Array]:
    rows = max(1, CHUNK // max(1, weights.shape[1]))
    for start in range(0, len(weights), rows):
        yield weights[start : start + rows].astype(np.float64)


def _r2(value_N: Array, predicted_N: Array, drawn_RN: Array) -> Array:
    count_R = drawn_RN.sum(axis=1)
    # Centred on the mean of all, so that no digits are lost where it is far from 0.
    centred_N = value_N - value_N.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        total_R = drawn_RN @ centred_N**2 - (drawn_RN @ centred_N) ** 2 / count_R
        total_R[total_R <= 1e-12 * (drawn_RN @ centred_N**2)] = np.nan
        return np.asarray(1 - drawn_RN @ (value_N - predicted_N) ** 2 / total_R)


def _ranks(value_N: Array, drawn_RN: Array) -> Array:
    """Mean rank of each value among those drawn, (R, N)."""
    _, group_N = np.unique(value_N, return_inverse=True)
    order = np.argsort(group_N, kind="stable")
    starts = np.flatnonzero(np.diff(group_N[order], prepend=-1))
    drawn_RG = np.add.reduceat(drawn_RN[:, order], starts, axis=1)
    return np.asarray((drawn_RG.cumsum(axis=1) - (drawn_RG - 1) / 2)[:, group_N])


def _correlation(x_RN: Array, y_RN: Array, drawn_RN: Array) -> Array:
    count_R = drawn_RN.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        x_RN = x_RN - (drawn_RN * x_RN).sum(axis=1, keepdims=True) / count_R
        y_RN = y_RN - (drawn_RN * y_RN).sum(axis=1, keepdims=True) / count_R
        of_x, of_y = ((drawn_RN * z_RN**2).sum(axis=1) for z_RN in (x_RN, y_RN))
        return np.asarray((drawn_RN * x_RN * y_RN).sum(axis=1) / np.sqrt(of_x * of_y))


def _by_groups(positive_N: Mask, score_N: Array, weights: Weights, metric: Callable[[Array, Array], Array]) -> Array:
    """Sum the weights of positives and negatives per distinct score, falling, and apply the metric in chunks."""
    order = np.argsort(-score_N, kind="stable")
    starts = np.flatnonzero(np.diff(score_N[order], prepend=np.inf))
    positive = positive_N[order].astype(np.float64)
    rows = max(1, CHUNK // len(order))
    chunks = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for start in range(0, len(weights), rows):
            drawn_RN = weights[start : start + rows, order].astype(np.float64)
            positive_RG = np.add.reduceat(drawn_RN * positive, starts, axis=1)
            chunks.append(metric(positive_RG, np.add.reduceat(drawn_RN, starts, axis=1) - positive_RG))
    return np.concatenate(chunks)
