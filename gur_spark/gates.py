"""What embeddings must pass before consumers read them: how they differ from those that are published now.

A version that moves on to another date keeps its space, and so does one that was aligned to it: their numbers can be
compared. Any other version has a space of its own, of which only what does not depend on the axes can: how many users
there are, and who is near whom.

Legend of array shapes: N = users of a sample, C = canary users, L = width of an embedding, P = projections.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config import Gates
from gur_spark.errors import GateError
from gur_spark.splits import held_out

log = logging.getLogger("gur_spark")

Array = npt.NDArray[np.float64]

FEWEST = 200
"""Users below which a share or a density says nothing."""

NEIGHBOURS = 10
PROJECTIONS = 8


@dataclass(frozen=True)
class Embeddings:
    """The rows of a version and date."""

    model_version: str
    as_of: date
    rows: DataFrame
    space: str
    """The version whose axes these are."""


@dataclass(frozen=True)
class Outcome:
    """What a gate found."""

    gate: str
    value: float
    bound: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.gate} {self.value:.3f}, expected {self.bound}"


@dataclass(frozen=True)
class Sample:
    """Some of the users that both have, by a hash of their ids, and their embeddings on both sides."""

    users_N: npt.NDArray[Any]
    before_NL: Array
    after_NL: Array
    same_space: bool


def check(candidate: Embeddings, published: Embeddings, gates: Gates) -> list[Outcome]:
    """Every gate that is not switched off and can be asked.

    Raises:
        GateError: one of them is not passed; the message names each with its value and bound.
    """
    rows = candidate.rows.count(), published.rows.count()
    outcomes = [*_rows(*rows, gates), *_spaces(candidate, published, min(rows), gates)]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        raise GateError(
            f"embeddings of {candidate.model_version} at {candidate.as_of} were not published: "
            + "; ".join(map(str, failed))
            + f" (against {published.model_version} at {published.as_of}); see gates in the configuration, or publish "
            "with --force and a --reason"
        )
    return outcomes


def _rows(after: int, before: int, gates: Gates) -> Iterator[Outcome]:
    if gates.min_rows_share is not None:
        yield _at_least("rows, as a share of those published,", after / before if before else 1.0, gates.min_rows_share)


def _spaces(candidate: Embeddings, published: Embeddings, rows: int, gates: Gates) -> Iterator[Outcome]:
    if rows < FEWEST:
        log.info("publish: %d users are too few to compare embeddings by", rows)
        return
    sample = _sample(candidate, published, gates.sample)
    if len(sample.users_N) < FEWEST:
        yield _at_least("users in common", len(sample.users_N), FEWEST)
        return
    measures: list[tuple[str, Callable[[Sample], float], float | None]] = []
    if sample.same_space:
        measures += [
            ("norm ratio", norm_ratio, gates.max_norm_ratio),
            ("PSI of projections", projections_psi, gates.max_psi),
            ("domain classifier AUC", domain_auc, gates.max_domain_auc),
        ]
    for name, measure, bound in measures:
        if bound is not None:
            yield _at_most(name, measure(sample), bound)
    if gates.min_neighbours is not None:
        yield _at_least("share of neighbours kept", neighbours_kept(sample, gates.canaries), gates.min_neighbours)


def _sample(candidate: Embeddings, published: Embeddings, size: int) -> Sample:
    """Users that both have."""
    after = candidate.rows.select("user_id", F.col("embedding").alias("after"))
    both = published.rows.select("user_id", F.col("embedding").alias("before")).join(after, "user_id")
    rows = both.orderBy(F.xxhash64("user_id"), "user_id").limit(size).toArrow()
    before_NL, after_NL = (_matrix(rows[name]) for name in ("before", "after"))
    return Sample(rows["user_id"].to_numpy(), before_NL, after_NL, candidate.space == published.space)


def _matrix(lists: Any) -> Array:
    flat: Array = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return flat.reshape(len(lists), -1 if len(lists) else 0)


def norm_ratio(sample: Sample) -> float:
    """The greater of the two mean norms over the smaller, at least 1.

    By hand: mean norms 2 and 3 -> 1.5.
    """
    norms = sorted(float(np.linalg.norm(x_NL, axis=1).mean()) for x_NL in (sample.before_NL, sample.after_NL))
    return norms[1] / norms[0] if norms[0] else float("inf" if norms[1] else 1)


def projections_psi(sample: Sample) -> float:
    """The largest population stability index of ``PROJECTIONS`` random directions, the same every time.

    Of deciles of the published side (fewer bins where there are few users), ``sum (q - p) ln(q / p)``.
    """
    width = sample.before_NL.shape[1]
    directions_LP = np.random.default_rng(0).standard_normal((width, PROJECTIONS))
    sides = (sample.before_NL @ directions_LP, sample.after_NL @ directions_LP)
    return max(psi(before_N, after_N) for before_N, after_N in zip(sides[0].T, sides[1].T, strict=True))


def psi(before_N: Array, after_N: Array, bins: int = 10) -> float:
    """Population stability index; below 0.1 little has moved, above 0.25 much (Siddiqi 2006).

    By hand: shares (1/2, 1/2) before and (1/4, 3/4) after: -1/4 ln(1/2) + 1/4 ln(3/2) = 1/4 ln 3 = 0.275.
    """
    edges = np.unique(np.quantile(before_N, np.linspace(0, 1, bins + 1)[1:-1]))
    p, q = (
        np.bincount(np.searchsorted(edges, x_N, side="left"), minlength=len(edges) + 1) / len(x_N)
        for x_N in (before_N, after_N)
    )
    # An empty bin counts as half a user.
    p, q = (np.maximum(share, 0.5 / len(before_N)) for share in (p, q))
    return float(((q - p) * np.log(q / p)).sum())


def domain_auc(sample: Sample) -> float:
    """How well Fisher's discriminant tells the two sides apart, on users it was not fitted on; 0.5 is not at all."""
    fit_N = held_out(sample.users_N, 0.5, "domain classifier")
    before_NL, after_NL = sample.before_NL, sample.after_NL
    difference_L = after_NL[fit_N].mean(0) - before_NL[fit_N].mean(0)
    within_LL = np.atleast_2d(np.cov(before_NL[fit_N].T) + np.cov(after_NL[fit_N].T))
    # A little of the identity, for directions in which nothing varies.
    ridge = 1e-3 * np.trace(within_LL) / len(within_LL) + 1e-12
    direction_L = np.linalg.solve(within_LL + ridge * np.eye(len(within_LL)), difference_L)
    return auc(before_NL[~fit_N] @ direction_L, after_NL[~fit_N] @ direction_L)


def auc(negative_N: Array, positive_N: Array) -> float:
    """The chance that a positive score is greater than a negative one, ties as a half."""
    both = np.concatenate([negative_N, positive_N])
    _, place_N, counts = np.unique(both, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2
    ranks = rank[place_N[len(negative_N) :]].sum()
    n, m = len(negative_N), len(positive_N)
    return float((ranks - m * (m + 1) / 2) / (n * m))


def neighbours_kept(sample: Sample, canaries: int) -> float:
    """The share of each canary user's nearest ``NEIGHBOURS`` in the sample that are so on both sides, on average."""
    near = [_nearest(x_NL, min(canaries, len(x_NL))) for x_NL in (sample.before_NL, sample.after_NL)]
    kept = [len(set(before) & set(after)) for before, after in zip(*(n.tolist() for n in near), strict=True)]
    return float(np.mean(kept)) / NEIGHBOURS


def _nearest(x_NL: Array, canaries: int) -> npt.NDArray[np.int64]:
    """The rows nearest to each of the first ones, by Euclid, itself left out, (C, NEIGHBOURS)."""
    squares_N = (x_NL**2).sum(1)
    distance_CN = squares_N[None, :] - 2 * x_NL[:canaries] @ x_NL.T
    distance_CN[np.arange(canaries), np.arange(canaries)] = np.inf
    return np.argpartition(distance_CN, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def _at_least(gate: str, value: float, bound: float) -> Outcome:
    return Outcome(gate, value, f"at least {bound}", value >= bound)


def _at_most(gate: str, value: float, bound: float) -> Outcome:
    return Outcome(gate, value, f"at most {bound}", value <= bound)
