"""The one version that consumers read: switched by one atomic append, behind gates, read through one function."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from getpass import getuser

from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from gur_spark import schema
from gur_spark.config.pipeline import Config
from gur_spark.errors import GateError, TableError
from gur_spark.registry.names import VersionName
from gur_spark.serving import downstream, gates
from gur_spark.spaces.asked import asked_spaces
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.runs import Run

log = logging.getLogger("gur_spark")

NOW = "embeddings_now"
"""The table of what came after the published rows; see ``gur_spark.serving.live``."""

GATES_OF, GATES = "gates asked of", "gates"
"""Outputs of a publish run: the version and date, and as JSON what each gate found."""

_ROLLBACK = "rollback of"
"""How the reason of a rollback begins."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Published:
    """What consumers read now."""

    model_version: str
    as_of: date


def publish(
    tables: Tables,
    config: Config,
    model_version: str,
    as_of: date,
    reason: str,
    force: bool = False,
    run: Run | None = None,
) -> int:
    """Switch ``published`` to the embeddings of a version and date, and return their row count.

    Where something is published, the new rows must pass the gates against it; ``force`` switches all the same, and
    what was not passed is kept with the reason. What each gate found, passed or not, is kept with the ``run``.

    Raises:
        TableError: there are no such embeddings, or one of them is not finite; nothing was switched.
        GateError: a gate is not passed; nothing was switched.
    """
    rows = _check_rows(tables, model_version, as_of)
    for old in asked_spaces(tables, config.scoring, model_version):
        _check_rows(tables, str(VersionName.parse(model_version).mapped_to(old)), as_of)
    now, new = published(tables, config), Published(model_version=model_version, as_of=as_of)
    if now and now != new:
        reason = _past_the_gates(tables, config, new, now, reason, force, run)
    _switch(tables, config, model_version, as_of, reason)
    return rows


def _check_rows(tables: Tables, model_version: str, as_of: date) -> int:
    """How many rows there are; there must be some, all finite and of one width."""
    frame = select_embeddings(tables, model_version, as_of)
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
    return int(found["rows"])


def _switch(tables: Tables, config: Config, model_version: str, as_of: date, reason: str) -> None:
    tables.create("published", schema.PUBLISHED)
    row = (config.name, model_version, as_of, _after_the_last(tables, config), _who(), reason)
    tables.append(tables.spark.createDataFrame([row], schema.PUBLISHED).coalesce(1), "published")


def _past_the_gates(
    tables: Tables, config: Config, new: Published, now: Published, reason: str, force: bool, run: Run | None
) -> str:
    """The reason to keep: with what was not passed, where the publish is forced."""
    candidate, before = (_embeddings(tables, s) for s in (new, now))
    try:
        further = downstream.outcomes(tables, config, candidate, before)
        found = gates.check(candidate, before, config.gates, further)
        for outcome in found:
            log.info("publish: %s: passed", outcome)
        _keep(run, new, found)
        return reason
    except GateError as error:
        _keep(run, new, error.outcomes)
        if not force:
            raise
        log.warning("publish: forced, although %s", error)
        return f"{reason} (forced, although {error})"


def _keep(run: Run | None, new: Published, outcomes: Sequence[object]) -> None:
    if run is not None:
        run.outputs[GATES_OF] = f"{new.model_version} at {new.as_of}"
        run.outputs[GATES] = json.dumps([asdict(o) for o in outcomes if isinstance(o, gates.Outcome)])


def check_replacement(tables: Tables, config: Config, rows: DataFrame, version: str, as_of: date) -> None:
    """Whether rows may take the place of those of the same version and date, which consumers may read already.

    Raises:
        GateError: they are published, and the new ones do not pass a gate against them.
    """
    now = published(tables, config)
    if now == Published(model_version=version, as_of=as_of):
        before = _embeddings(tables, now)
        if not before.rows.isEmpty():
            gates.check(replace(before, rows=rows), before, config.gates)


def _embeddings(tables: Tables, one: Published) -> gates.Embeddings:
    rows = select_embeddings(tables, one.model_version, one.as_of)
    return gates.Embeddings(one.model_version, one.as_of, rows, space_of(tables, one.model_version))


def space_of(tables: Tables, version: str) -> str:
    """The version whose axes a version's embeddings have: the one it was mapped or aligned to, if it was, and so on.

    Means of a version's embeddings have its axes.
    """
    rows = tables.read("models").select("model_version", "aligned_to").collect() if tables.exists("models") else []
    aligned_to = {row["model_version"]: row["aligned_to"] for row in rows}
    name = VersionName.parse(version)
    version = name.space or name.base
    while aligned_to.get(version):
        version = aligned_to[version]
    return version


def rollback(tables: Tables, config: Config, reason: str) -> Published:
    """Publish again what was published before, and return it; the gates are not asked, its rows must be there.

    A second rollback goes one further back.

    Raises:
        TableError: nothing else was published before, or its embeddings are gone; nothing was switched.
    """
    history: list[Published] = []
    for row in switches(tables, config):
        switch = Published(model_version=row["model_version"], as_of=row["as_of"])
        if row["reason"].startswith(_ROLLBACK) and switch in history[:-1]:
            # What was rolled back is no way back.
            history = history[: history.index(switch) + 1]
        elif not history or history[-1] != switch:
            history = [*(s for s in history if s != switch), switch]
    if len(history) < 2:
        raise TableError(f"nothing was published for pipeline '{config.name}' before what is published now")
    *_, before, now = history
    _check_rows(tables, before.model_version, before.as_of)
    told = f"{_ROLLBACK} {now.model_version} at {now.as_of}: {reason}"
    _switch(tables, config, before.model_version, before.as_of, told)
    return before


def published(tables: Tables, config: Config) -> Published | None:
    """The newest switch of this pipeline, or None before the first."""
    rows = switches(tables, config)
    return Published(model_version=rows[-1]["model_version"], as_of=rows[-1]["as_of"]) if rows else None


def switches(tables: Tables, config: Config) -> list[Row]:
    """Every switch of this pipeline, in the order in which they were made."""
    if not tables.exists("published"):
        return []
    rows = tables.read("published").where(F.col("name") == config.name)
    return rows.orderBy("switched_at", "model_version").collect()


def read_embeddings(
    spark: SparkSession,
    config: Config,
    version: str = "published",
    as_of: date | None = None,
    in_space_of: str | None = None,
) -> DataFrame:
    """Embeddings for a consumer: one row per user_id, ``user_id, as_of, model_version, embedding, events``.

    Args:
        version: a model version, or ``published`` for the one that consumers should use.
        as_of: the date; default is the published date, or the newest scored date of a named version.
        in_space_of: the version that the consumer was trained on; another version's rows are then those that ``score``
            mapped to it (``gur_spark.spaces.maps``), of model_version ``NEW@OLD``.

    Raises:
        TableError: nothing is published, or there are no such embeddings; the message lists what there is.
    """
    tables = open_tables(spark, config.tables)
    if version == "published":
        switch = published(tables, config)
        if switch is None:
            raise TableError(
                f"nothing is published for pipeline '{config.name}'; run the publish job, or name a version"
            )
        version, as_of = switch.model_version, as_of or switch.as_of
    hint = ""
    if in_space_of and in_space_of != version:
        version = str(VersionName.parse(version).mapped_to(in_space_of))
        hint = f"; name {in_space_of} in scoring.in_space_of and run score"
    as_of = as_of or _newest(tables, version)
    frame = select_embeddings(tables, version, as_of)
    if frame.isEmpty():
        raise TableError(f"no embeddings of {version} at {as_of}; available: {_available(tables)}{hint}")
    return frame


def _after_the_last(tables: Tables, config: Config) -> datetime:
    """Now; on a clock that was set back, just after the last switch, so that the newest row is the last one."""
    rows = tables.read("published").where(F.col("name") == config.name)
    found = rows.agg(F.max(F.unix_micros("switched_at"))).first()
    assert found is not None
    last = _EPOCH + timedelta(microseconds=found[0] or 0)
    return max(datetime.now(UTC), last + timedelta(microseconds=1))


def _who() -> str:
    try:
        return getuser()
    except (OSError, KeyError):
        # A container may run under a uid that has no name.
        return "unknown"


def select_embeddings(tables: Tables, version: str, as_of: date | None) -> DataFrame:
    """The rows of a version and date; there may be none."""
    frame = tables.read("embeddings", made_by="score")
    return frame.where((F.col("model_version") == version) & (F.col("as_of") == F.lit(as_of)))


def read_embeddings_now(spark: SparkSession, config: Config) -> DataFrame:
    """The published embeddings, but the newer ones of users of whom events came since: one row per user_id, with the
    columns of ``read_embeddings``. ``as_of`` tells them apart.

    Raises:
        TableError: nothing is published.
    """
    tables = open_tables(spark, config.tables)
    now = published(tables, config)
    if now is None or not tables.exists(NOW):
        return read_embeddings(spark, config)
    rows = select_embeddings(tables, now.model_version, now.as_of)
    of_version = F.col("model_version") == now.model_version
    newer = tables.read(NOW).where(of_version & (F.col("as_of") > F.lit(now.as_of)))
    return rows.join(newer.select("user_id"), "user_id", "left_anti").unionByName(newer).select(*newer.columns)


def _newest(tables: Tables, version: str) -> date | None:
    frame = tables.read("embeddings", made_by="score").where(F.col("model_version") == version)
    row = frame.agg(F.max("as_of")).first()
    return row[0] if row else None


def _available(tables: Tables) -> list[str]:
    keys = tables.read("embeddings").select("model_version", "as_of").distinct().orderBy("as_of", "model_version")
    return [f"{row.model_version} at {row.as_of}" for row in keys.collect()]


def _not_finite(value: Column) -> Column:
    return value.isNull() | F.isnan(value) | (F.abs(value) == float("inf"))
