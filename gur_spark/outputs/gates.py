"""Gates that rows must pass before consumers read them, against the rows that are published now.

A version at another date keeps its space, and so does a version that was aligned to the published one: their numbers
can be compared. Any other version has a space of its own. Its rows are compared by measures that do not depend on the
axes: the number of users, and the nearest neighbours of each.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.gates import Gates
from gur_spark.errors import GateError
from gur_spark.statistics import measures
from gur_spark.statistics.measures import FEWEST, Sample
from gur_spark.statistics.samples import users_in_common

log = logging.getLogger("gur_spark")

GATES_OF, GATES_FOUND = "gates asked of", "gates"
"""Keys in the outputs of a publish run: the version and date, and each gate's outcome as JSON."""


@dataclass(frozen=True, kw_only=True)
class VersionRows:
    """The rows of a version and date in one output."""

    output: str
    model_version: str
    as_of: date
    rows: DataFrame
    space: str
    """The version that defines the axes of the vectors."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one gate."""

    gate: str
    value: float
    bound: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.gate} {self.value:.3f}, expected {self.bound}"


def to_json(outcomes: Iterable[object]) -> str:
    """Write the outcomes as JSON for the row of a publish run."""
    return json.dumps([asdict(outcome) for outcome in outcomes if isinstance(outcome, Outcome)])


def check(
    candidate: VersionRows, published: VersionRows, gates: Gates, further: Iterable[Outcome] = ()
) -> list[Outcome]:
    """Ask every gate of an output that is switched on and can be asked, and ``further`` ones.

    Raises:
        GateError: one of them is not passed; the message names each with its value and bound.
    """
    rows = candidate.rows.count(), published.rows.count()
    outcomes = [*_rows(*rows, published, gates), *GATES[candidate.output](candidate, published, gates), *further]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if failed:
        raise GateError(
            f"{candidate.output} of {candidate.model_version} at {candidate.as_of} do not pass: "
            + "; ".join(map(str, failed))
            + f" (against {published.model_version} at {published.as_of}); consumers read what they read before; see "
            "gates in the configuration, or --force with a reason",
            outcomes,
        )
    return outcomes


def _rows(after: int, before: int, published: VersionRows, gates: Gates) -> Iterator[Outcome]:
    if gates.min_rows_share is None:
        return
    if not before:
        yield _at_least(f"rows of {published.model_version} at {published.as_of} to compare with", before, 1)
    else:
        yield _at_least("rows, as a share of those published,", after / before, gates.min_rows_share)


def _embeddings(candidate: VersionRows, published: VersionRows, gates: Gates) -> Iterator[Outcome]:
    """Compare norms, projections and neighbours of the users that both have."""
    rows = min(candidate.rows.count(), published.rows.count())
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


def _item_embeddings(candidate: VersionRows, published: VersionRows, gates: Gates) -> Iterator[Outcome]:
    """Ask the gates of embeddings about items."""
    sides = [
        VersionRows(**{**vars(side), "rows": side.rows.withColumnRenamed("item", "user_id")})
        for side in (candidate, published)
    ]
    yield from _embeddings(sides[0], sides[1], gates)


def _recommendations(candidate: VersionRows, published: VersionRows, gates: Gates) -> Iterator[Outcome]:
    """Compare how much of the catalogue is shown, and how many of a user's items stay."""
    after, before = (side.rows.select("user_id", F.col("items.item").alias("items")) for side in (candidate, published))
    if gates.min_item_coverage is not None:
        counts = [
            rows.select(F.explode("items").alias("item")).agg(F.count_distinct("item")).collect()[0][0]
            for rows in (after, before)
        ]
        yield _at_least(
            "different items, as a share of those published,", counts[0] / max(counts[1], 1), gates.min_item_coverage
        )
    if gates.min_item_overlap is not None:
        both = before.withColumnRenamed("items", "before").join(after, "user_id")
        stays = F.size(F.array_intersect("before", "items")) / F.size("before")
        found = both.agg(F.avg(stays), F.count(F.lit(1))).collect()[0]
        if min(after.count(), before.count()) < FEWEST:
            log.info("publish: %d users in common are too few to compare recommendations by", found[1])
        elif found[1] < FEWEST:
            yield _at_least("users in common", found[1], FEWEST)
        else:
            yield _at_least("share of a user's items that stay", found[0], gates.min_item_overlap)


GATES: dict[str, Callable[[VersionRows, VersionRows, Gates], Iterator[Outcome]]] = {
    "embeddings": _embeddings,
    "item_embeddings": _item_embeddings,
    "recommendations": _recommendations,
}
"""Output -> its gates, beside the share of rows."""


def _at_least(gate: str, value: float, bound: float) -> Outcome:
    return Outcome(gate, value, f"at least {bound}", value >= bound)


def _at_most(gate: str, value: float, bound: float) -> Outcome:
    return Outcome(gate, value, f"at most {bound}", value <= bound)
