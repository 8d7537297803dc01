"""Drift of embeddings: a date against the one before, of the same version or of the version published before it."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.monitoring import Monitor
from gur_spark.errors import TableError
from gur_spark.monitoring.findings import Measurement
from gur_spark.outputs.embeddings import EMBEDDINGS, select_embeddings
from gur_spark.registry.published import switches
from gur_spark.spaces.axes import space_of
from gur_spark.statistics import measures
from gur_spark.statistics.samples import users_in_common
from gur_spark.tables.delta import Tables

log = logging.getLogger("gur_spark")


@dataclass(frozen=True)
class ScoredDates:
    """Dates at which a model version was scored, ascending."""

    model_version: str
    dates: Sequence[date]

    @classmethod
    def read(cls, tables: Tables, model_version: str) -> "ScoredDates":
        """The dates of which ``embeddings`` has rows of a version."""
        if not tables.exists("embeddings"):
            return cls(model_version, [])
        return cls(model_version, EMBEDDINGS.dates(tables, model_version))


def embedding_drift(
    tables: Tables, pipeline: str, settings: Monitor, scored: ScoredDates, as_of: date
) -> Iterator[Measurement]:
    """Measure a version's embeddings of a date against those before; nothing where there are none before.

    Raises:
        TableError: the version has no embeddings at the date.
    """
    if as_of not in scored.dates:
        raise TableError(
            f"no embeddings of {scored.model_version} at {as_of}; available: {[str(day) for day in scored.dates]}; run "
            "the score job first, or monitor with --inputs-only"
        )
    before = _before(tables, pipeline, scored, as_of)
    if before is None:
        log.info("monitor: no embeddings before %s to compare those of %s with", as_of, scored.model_version)
        return
    version, day = before
    # Coordinates of different spaces cannot be compared.
    same_space = version == scored.model_version or space_of(tables, version) == space_of(tables, scored.model_version)
    sides = select_embeddings(tables, version, day), select_embeddings(tables, scored.model_version, as_of)
    for measure, value in _measured(*sides, same_space, settings):
        reference = f"{version} at {day}"
        yield Measurement(kind="embedding", subject="embedding", measure=measure, value=value, reference=reference)


def _before(tables: Tables, pipeline: str, scored: ScoredDates, as_of: date) -> tuple[str, date] | None:
    """The version at its newest earlier date, else the version and earlier date that were published last."""
    earlier = [(scored.model_version, day) for day in scored.dates if day < as_of]
    earlier = earlier or [(s["model_version"], s["as_of"]) for s in switches(tables, pipeline) if s["as_of"] < as_of]
    return earlier[-1] if earlier else None


def _measured(before: DataFrame, now: DataFrame, same_space: bool, settings: Monitor) -> Iterator[tuple[str, float]]:
    users_before, users_now, common = _users(before, now)
    yield "rows_ratio", measures.ratio(users_before, users_now)
    yield "users_lost", 1 - common / max(users_before, 1)
    if common < measures.FEWEST:
        log.info("monitor: %d users in common are too few to compare embeddings", common)
        return
    sample = users_in_common(before, now, settings.sample)
    if same_space:
        yield "norm_ratio", measures.norm_ratio(sample)
        yield "projections_psi", measures.projections_psi(sample)
        yield "domain_auc", measures.domain_auc(sample)
    yield "neighbours_lost", 1 - measures.neighbours_kept(sample)


def _users(before: DataFrame, now: DataFrame) -> tuple[int, int, int]:
    """Number of users before, now, and in both."""
    sides = before.select("user_id", F.lit(True).alias("before")), now.select("user_id", F.lit(True).alias("now"))
    both = F.col("before") & F.col("now")
    found = sides[0].join(sides[1], "user_id", "full").agg(F.count("before"), F.count("now"), F.count_if(both)).first()
    assert found is not None
    return found[0], found[1], found[2]
