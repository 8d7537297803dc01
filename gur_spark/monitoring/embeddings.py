"""How the embeddings of a date differ from those before: of the same version, or of what was published before it."""

import logging
from collections.abc import Iterator
from datetime import date

from pyspark.sql import functions as F

from gur_spark.config import Config
from gur_spark.errors import TableError
from gur_spark.gates import Embeddings
from gur_spark.monitoring import measures
from gur_spark.monitoring.findings import Measurement
from gur_spark.monitoring.samples import users_in_common
from gur_spark.monitoring.settings import Monitor
from gur_spark.publishing import embeddings_of, switches
from gur_spark.tables import Tables

log = logging.getLogger("gur_spark")


def embedding_drift(tables: Tables, config: Config, model_version: str, as_of: date) -> Iterator[Measurement]:
    """What is measured of a version between a date and the one before; nothing where there is none before.

    Raises:
        TableError: the version has no embeddings at the date.
    """
    dates = scored_dates(tables, model_version)
    if as_of not in dates:
        raise TableError(
            f"no embeddings of {model_version} at {as_of}; available: {[str(day) for day in dates]}; run the score job "
            "first, or monitor with --inputs-only"
        )
    before = _before(tables, config, model_version, as_of, dates)
    if before is None:
        log.info("monitor: %s has no embeddings before %s to compare with", model_version, as_of)
        return
    reference = f"{before.model_version} at {before.as_of}"
    for measure, value in _measured(before, embeddings_of(tables, model_version, as_of), config.monitor):
        yield Measurement(kind="embedding", subject="embedding", measure=measure, value=value, reference=reference)


def scored_dates(tables: Tables, model_version: str) -> list[date]:
    """The dates that a version has embeddings of, ascending."""
    if not tables.exists("embeddings"):
        return []
    rows = tables.read("embeddings").where(F.col("model_version") == model_version)
    return sorted(row[0] for row in rows.select("as_of").distinct().collect())


def _before(tables: Tables, config: Config, model_version: str, as_of: date, dates: list[date]) -> Embeddings | None:
    """The version's newest earlier date, else the newest earlier date that was published."""
    earlier = [(model_version, day) for day in dates if day < as_of]
    earlier = earlier or [(s["model_version"], s["as_of"]) for s in switches(tables, config) if s["as_of"] < as_of]
    if not earlier:
        return None
    found = embeddings_of(tables, *earlier[-1])
    return None if found.rows.isEmpty() else found


def _measured(before: Embeddings, now: Embeddings, settings: Monitor) -> Iterator[tuple[str, float]]:
    users, common = before.rows.count(), before.rows.join(now.rows, "user_id", "left_semi").count()
    yield "rows_ratio", measures.ratio(users, now.rows.count())
    yield "users_lost", 1 - common / users
    if common < measures.FEWEST:
        log.info("monitor: %d users in common are too few to compare embeddings by", common)
        return
    sample = users_in_common(before.rows, now.rows, settings.sample)
    # Axes of another space mean something else.
    if before.space == now.space:
        yield "norm_ratio", measures.norm_ratio(sample)
        yield "projections_psi", measures.projections_psi(sample)
        yield "domain_auc", measures.domain_auc(sample)
    yield "neighbours_lost", 1 - measures.neighbours_kept(sample, settings.canaries)
