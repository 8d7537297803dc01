"""The one version that consumers read: switched by one atomic append, read through one function."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from getpass import getuser

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark import schema
from gur_spark.config import Config
from gur_spark.errors import TableError
from gur_spark.tables import Tables

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What consumers read now."""

    model_version: str
    as_of: date


def publish(tables: Tables, config: Config, model_version: str, as_of: date, reason: str) -> int:
    """Switch ``published`` to the embeddings of a version and date, and return their row count.

    Raises:
        TableError: there are no such embeddings, or one of them is not finite; nothing was switched.
    """
    frame = _select(tables, model_version, as_of)
    found = frame.agg(
        F.count(F.lit(1)).alias("rows"),
        F.count_if(F.exists("embedding", _not_finite)).alias("broken"),
        F.count_distinct(F.size("embedding")).alias("widths"),
    ).first()
    assert found is not None
    if not found["rows"]:
        raise TableError(f"no embeddings of {model_version} at {as_of} to publish; available: {_available(tables)}")
    if found["broken"] or found["widths"] != 1:
        raise TableError(
            f"embeddings of {model_version} at {as_of} were not published: {found['broken']} rows are not finite, "
            f"{found['widths']} different widths"
        )
    tables.create("published", schema.PUBLISHED)
    row = (config.name, model_version, as_of, _after_the_last(tables, config), _who(), reason)
    tables.append(tables.spark.createDataFrame([row], schema.PUBLISHED).coalesce(1), "published")
    return int(found["rows"])


def published(tables: Tables, config: Config) -> Published | None:
    """The newest switch of this pipeline, or None before the first."""
    if not tables.exists("published"):
        return None
    switches = tables.read("published").where(F.col("name") == config.name)
    row = switches.orderBy(F.desc("switched_at"), F.desc("model_version")).first()
    return Published(model_version=row["model_version"], as_of=row["as_of"]) if row else None


def read_embeddings(
    spark: SparkSession, config: Config, version: str = "published", as_of: date | None = None
) -> DataFrame:
    """Embeddings for a consumer: one row per user_id, ``user_id, as_of, model_version, embedding, events``.

    Args:
        version: a model version, or ``published`` for the one that consumers should use.
        as_of: the date; default is the published date, or the newest scored date of a named version.

    Raises:
        TableError: nothing is published, or there are no such embeddings; the message lists what there is.
    """
    tables = Tables.of(spark, config)
    if version == "published":
        switch = published(tables, config)
        if switch is None:
            raise TableError(
                f"nothing is published for pipeline '{config.name}'; run the publish job, or name a version"
            )
        version, as_of = switch.model_version, as_of or switch.as_of
    as_of = as_of or _newest(tables, version)
    frame = _select(tables, version, as_of)
    if frame.isEmpty():
        raise TableError(f"no embeddings of {version} at {as_of}; available: {_available(tables)}")
    return frame


def _after_the_last(tables: Tables, config: Config) -> datetime:
    """Now; on a clock that was set back, just after the last switch, so that the newest row is the last one."""
    switches = tables.read("published").where(F.col("name") == config.name)
    found = switches.agg(F.max(F.unix_micros("switched_at"))).first()
    assert found is not None
    last = _EPOCH + timedelta(microseconds=found[0] or 0)
    return max(datetime.now(UTC), last + timedelta(microseconds=1))


def _who() -> str:
    try:
        return getuser()
    except (OSError, KeyError):
        # A container may run under a uid that has no name.
        return "unknown"


def _select(tables: Tables, version: str, as_of: date | None) -> DataFrame:
    frame = tables.read("embeddings", made_by="score")
    return frame.where((F.col("model_version") == version) & (F.col("as_of") == F.lit(as_of)))


def _newest(tables: Tables, version: str) -> date | None:
    frame = tables.read("embeddings", made_by="score").where(F.col("model_version") == version)
    row = frame.agg(F.max("as_of")).first()
    return row[0] if row else None


def _available(tables: Tables) -> list[str]:
    keys = tables.read("embeddings").select("model_version", "as_of").distinct().orderBy("as_of", "model_version")
    return [f"{row.model_version} at {row.as_of}" for row in keys.collect()]


def _not_finite(value: Column) -> Column:
    return value.isNull() | F.isnan(value) | (F.abs(value) == float("inf"))
