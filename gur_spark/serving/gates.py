"""What embeddings must pass before consumers read them: how they differ from those that are published now.

A version that moves on to another date keeps its space, and so does one that was aligned to it: their numbers can be
compared. Any other version has a space of its own, of which only what does not depend on the axes can: how many users
there are, and who is near whom.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame

from gur_spark.config.gates import Gates
from gur_spark.errors import GateError
from gur_spark.statistics import measures
from gur_spark.statistics.measures import FEWEST, Sample
from gur_spark.statistics.samples import users_in_common

log = logging.getLogger("gur_spark")


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


def check(candidate: Embeddings, published: Embeddings, gates: Gates, further: Iterable[Outcome] = ()) -> list[Outcome]:
    """Every gate that is not switched off and can be asked, and ``further`` ones.

    Raises:
        GateError: one of them is not passed; the message names each with its value and bound.
    """
    rows = candidate.rows.count(), published.rows.count()
    outcomes = [*_rows(*rows, published, gates), *_spaces(candidate, published, min(rows), gates), *further]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        raise GateError(
            f"embeddings of {candidate.model_version} at {candidate.as_of} do not pass: "
            + "; ".join(map(str, failed))
            + f" (against {published.model_version} at {published.as_of}); consumers read what they read before; see "
            "gates in the configuration, or --force with a reason",
            outcomes,
        )
    return outcomes


def _rows(after: int, before: int, published: Embeddings, gates: Gates) -> Iterator[Outcome]:
    if gates.min_rows_share is None:
        return
    if not before:
        yield _at_least(f"rows of {published.model_version} at {published.as_of} to compare with", before, 1)
    else:
        yield _at_least("rows, as a share of those published,", after / before, gates.min_rows_share)


def _spaces(candidate: Embeddings, published: Embeddings, rows: int, gates: Gates) -> Iterator[Outcome]:
    if rows < FEWEST:
        log.info("publish: %d users are too few to compare embeddings by", rows)
        return
    sample = users_in_common(published.rows, candidate.rows, gates.sample)
    if len(sample.users_N) < FEWEST:
        yield _at_least("users in common", len(sample.users_N), FEWEST)
        return
    asked: list[tuple[str, Callable[[Sample], float], float | None]] = []
    if candidate.space == published.space:
        asked += [
            ("norm ratio", measures.norm_ratio, gates.max_norm_ratio),
            ("PSI of projections", measures.projections_psi, gates.max_psi),
            ("domain classifier AUC", measures.domain_auc, gates.max_domain_auc),
        ]
    for name, measure, bound in asked:
        if bound is not None:
            yield _at_most(name, measure(sample), bound)
    if gates.min_neighbours is not None:
        kept = measures.neighbours_kept(sample)
        yield _at_least("share of neighbours kept", kept, gates.min_neighbours)


def _at_least(gate: str, value: float, bound: float) -> Outcome:
    return Outcome(gate, value, f"at least {bound}", value >= bound)


def _at_most(gate: str, value: float, bound: float) -> Outcome:
    return Outcome(gate, value, f"at most {bound}", value <= bound)
