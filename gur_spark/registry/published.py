"""The table ``published``: the version and date that consumers read, one row per switch."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from getpass import getuser

from pyspark.sql import Row
from pyspark.sql import functions as F

from gur_spark import schema
from gur_spark.errors import ConfigError
from gur_spark.tables.delta import Tables

_ROLLBACK = "rollback of"
"""Beginning of the reason of a rollback."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Published:
    """The version and date that consumers read."""

    model_version: str
    as_of: date

    def __str__(self) -> str:
        return f"{self.model_version} at {self.as_of}"


def published(tables: Tables, name: str) -> Published | None:
    """Read the newest switch of a pipeline, or None before the first.

    Args:
        name: name of the pipeline.
    """
    rows = switches(tables, name)
    return Published(model_version=rows[-1]["model_version"], as_of=rows[-1]["as_of"]) if rows else None


def switches(tables: Tables, name: str) -> list[Row]:
    """Read every switch of a pipeline, in the order in which they were made."""
    if not tables.exists("published"):
        return []
    rows = tables.read("published").where(F.col("name") == name)
    return rows.orderBy("switched_at", "model_version").collect()


def pipelines(tables: Tables) -> list[str]:
    """List the pipelines that published something in these tables."""
    if not tables.exists("published"):
        return []
    return sorted(row["name"] for row in tables.read("published").select("name").distinct().collect())


def switch(tables: Tables, name: str, to: Published, outputs: tuple[str, ...], reason: str) -> None:
    """Append a row: from then on consumers read another version or date."""
    tables.create("published", schema.PUBLISHED)
    row = (name, to.model_version, to.as_of, list(outputs), _after_the_last(tables, name), _who(), reason)
    tables.append(tables.spark.createDataFrame([row], schema.PUBLISHED).coalesce(1), "published")


def check_reason(reason: str) -> None:
    """Check the reason of a switch that is no rollback, since ``way_back`` tells them apart by it.

    Raises:
        ConfigError: it begins like the reason of a rollback.
    """
    if reason.startswith(_ROLLBACK):
        raise ConfigError(f"reason: '{_ROLLBACK} ...' is written by --rollback alone; use other words")


def rollback_reason(now: Published, reason: str) -> str:
    """Write the reason of a rollback's row."""
    return f"{_ROLLBACK} {now.model_version} at {now.as_of}: {reason}"


def way_back(tables: Tables, name: str) -> list[Published]:
    """List the switches that a rollback can return to, oldest first; the last is published now.

    A second rollback goes one step further back: a version that was rolled back is never returned to.
    """
    history: list[Published] = []
    for row in switches(tables, name):
        to = Published(model_version=row["model_version"], as_of=row["as_of"])
        if row["reason"].startswith(_ROLLBACK) and to in history[:-1]:
            history = history[: history.index(to) + 1]
        elif not history or history[-1] != to:
            history = [*(s for s in history if s != to), to]
    return history


def _after_the_last(tables: Tables, name: str) -> datetime:
    """Return the current time, or a time just after the last switch if the clock was set back.

    So the newest row is always the last one.
    """
    rows = tables.read("published").where(F.col("name") == name)
    found = rows.agg(F.max(F.unix_micros("switched_at"))).first()
    assert found is not None
    last = _EPOCH + timedelta(microseconds=found[0] or 0)
    return max(datetime.now(UTC), last + timedelta(microseconds=1))


def _who() -> str:
    try:
        return getuser()
    except (OSError, KeyError):
        # A container may run under a uid without a name.
        return "unknown"
