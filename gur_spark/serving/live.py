"""Embeddings between two mornings, of users with new events since the published embeddings were made.

A row of ``embeddings_now`` has the bits that a full run would give to the next morning's date, by the published version
and from the landings so far. It counts until a date as late is published.

The commit that writes the rows notes, in the history of the table, the last commit of ``events`` in them. So a refresh
does not depend on its caller, or on the moment when an earlier one was killed: it takes up every later commit of
``events``, and replaces rows, never adding to them.
"""

import json
import logging
from dataclasses import dataclass, replace
from datetime import date, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError, TableError
from gur_spark.models.catalogue import find
from gur_spark.models.kind import Capability
from gur_spark.outputs.embeddings import EMBEDDINGS, embeddings_schema
from gur_spark.outputs.embeddings import NOW as TABLE
from gur_spark.registry.artefact import unpack
from gur_spark.registry.files import pack
from gur_spark.registry.fit import check_fit
from gur_spark.registry.known import ModelVersion, find_model
from gur_spark.registry.published import Published, published
from gur_spark.serving.changes import find_rows
from gur_spark.serving.workers import score_rows
from gur_spark.snapshots.aggregation import aggregate_users
from gur_spark.snapshots.base_snapshots import written_landings
from gur_spark.snapshots.inputs import SnapshotInputs
from gur_spark.tables.delta import Tables
from gur_spark.tables.lineage import Lineage
from gur_spark.tables.paths import read_parquet
from gur_spark.tables.runs import Account, kept_on_failure

log = logging.getLogger("gur_spark")


@dataclass(frozen=True, kw_only=True)
class _Known:
    """State of the rows of ``embeddings_now``, in the note of the commit that wrote them."""

    model_version: str
    published: date
    """The published date that the rows are newer than."""
    events_id: str
    events_version: int
    """The last commit of ``events`` in the rows."""
    commit: int | None = None
    """Commit of ``embeddings_now``; None: there are no rows yet."""

    def note(self) -> str:
        return json.dumps(vars(self) | {"published": self.published.isoformat(), "commit": None})


def refresh(tables: Tables, config: Config, run_id: str) -> Account:
    """Bring ``embeddings_now`` up to the newest commit of ``events``: users with added or removed rows are embedded.

    Their rows are as of the day after the newest landing, or after the published date if that is later.

    Returns:
        The model and the commit of ``events``, the numbers of touched users and of rows, and the table.

    Raises:
        TableError: nothing is published, or it is not known what the published rows were made from.
        ModelError: the configured aggregates are not the published model's.
        WriteConflict: another refresh won; nothing of this one was written.
    """
    now = published(tables, config.name)
    if now is None:
        raise TableError(f"nothing is published for pipeline '{config.name}': there is no model to embed by yet")
    model = find_model(tables, config)
    if Capability.LIVE not in find(model.kind).can:
        raise ConfigError(
            f"{now.model_version} is of kind '{model.kind}', whose users cannot be embedded between two mornings; "
            "run ingest, the job of its snapshots, score and publish as often as needed"
        )
    if now.model_version != model.model_version:
        raise TableError(f"{now.model_version} is published: means of several dates are made by the score job alone")
    inputs = SnapshotInputs.of(tables, config, model.vocabulary_version, config.aggregates.users)
    tables.create(TABLE, embeddings_schema(config.fields.user_id.type))
    known = _known(tables, now, inputs)
    done = Account(inputs={"model": model.model_version, "events": inputs.lineage}, counts={"users": 0, "rows": 0})
    if known.events_version == inputs.events_version:
        log.info("stream: nothing came since events version %d", known.events_version)
        return done
    staging = tables.folder("_staging", run_id)
    try:
        with kept_on_failure(done):
            return _refresh(tables, config, (now, model), inputs, known, staging)
    finally:
        storage.remove_folder(staging)


def _refresh(
    tables: Tables,
    config: Config,
    serving: tuple[Published, ModelVersion],
    inputs: SnapshotInputs,
    known: _Known,
    staging: str,
) -> Account:
    """Replace the rows of the users that commits of ``events`` touched."""
    now, model = serving
    touched_users(tables, known.events_version, inputs.events_version).write.parquet(storage.join(staging, "users"))
    users = read_parquet(tables.spark, storage.join(staging, "users"))
    as_of = _coming_date(tables, now)
    snapshot = aggregate_users(tables, config.aggregates, inputs, users, as_of, storage.join(staging, "aggregates"))
    rows = _kept(tables, now, known).join(users, "user_id", "left_anti")
    if snapshot.rows:
        files = pack(model.path)
        loaded = unpack(files)
        check_fit(loaded, snapshot)
        made = score_rows(tables.spark, snapshot, files, loaded, EMBEDDINGS, config.scoring.batch_rows)
        keys = {"as_of": F.lit(as_of), "model_version": F.lit(now.model_version)}
        rows = rows.unionByName(made.withColumns(keys))
    updated = replace(known, published=now.as_of, events_version=inputs.events_version)
    tables.replace(rows, TABLE, f"model_version = '{now.model_version}'", updated.note())
    return Account(
        inputs={"model": model.model_version, "events": inputs.lineage},
        counts={"users": users.count(), "rows": snapshot.rows},
        outputs={TABLE: f"model_version={now.model_version} as of {as_of}"},
    )


def touched_users(tables: Tables, since: int, until: int) -> DataFrame:
    """List the users, one row per user_id, with rows in one of two commits of ``events`` that the other lacks."""
    written: list[date] | None = []
    for commit in tables.commits("events", since, until):
        landings = [] if commit.harmless else written_landings(commit)
        written = None if written is None or landings is None else written + landings

    def rows(version: int, times: int) -> DataFrame:
        table = tables.read("events", version=version)
        some = table if written is None else table.where(F.col("landed_on").isin(written))
        return some.withColumn("times", F.lit(times))

    # A landing is replaced as a whole, and most of its rows by themselves.
    both = rows(until, 1).unionByName(rows(since, -1))
    different = both.groupBy(*[name for name in both.columns if name != "times"]).agg(F.sum("times").alias("times"))
    return different.where(F.col("times") != 0).select("user_id").distinct()


def _known(tables: Tables, now: Published, inputs: SnapshotInputs) -> _Known:
    """Find how far ``events`` are in the newer rows, or, where none of these count, in the published rows.

    Newer rows stop counting once a date as late is published. Its snapshot may have been made before them, so events
    that only they held are taken up again.
    """
    rows = _written(tables, now.model_version)
    if rows and rows.events_id == inputs.events_id:
        if rows.events_version <= inputs.events_version and rows.published == now.as_of:
            return rows
        if rows.events_version <= inputs.events_version and rows.published < now.as_of:
            return replace(rows, events_version=min(rows.events_version, _made_from(tables, now, inputs)))
    return _Known(
        model_version=now.model_version,
        published=now.as_of,
        events_id=inputs.events_id,
        events_version=_made_from(tables, now, inputs),
    )


def _written(tables: Tables, model_version: str) -> _Known | None:
    """Read the state in the note of the last commit that wrote rows of a version.

    None where there is no such commit, or another writer's commit came after it.
    """
    for commit in tables.newest_commits(TABLE, 100):
        if commit.harmless:
            continue
        try:
            said = json.loads(commit.note or "")
            known = _Known(**{**said, "published": date.fromisoformat(said["published"]), "commit": commit.version})
        except (ValueError, KeyError, TypeError):
            if commit.note:
                log.warning("stream: commit %d of %s says %r: rows are made anew", commit.version, TABLE, commit.note)
            return None
        if known.model_version == model_version:
            return known
    return None


def _made_from(tables: Tables, now: Published, inputs: SnapshotInputs) -> int:
    """Find the commit of ``events`` that the snapshot of the published rows was made from."""
    found = Lineage.parse(find_rows(tables, now.model_version, now.as_of).lineage)
    if found.events_id != inputs.events_id:
        raise TableError(f"{now.model_version} at {now.as_of} was made from another events table; publish a new date")
    return found.events_version


def _kept(tables: Tables, now: Published, known: _Known) -> DataFrame:
    """Read the rows that still count."""
    rows = tables.read(TABLE, version=known.commit)
    if known.commit is None:
        return rows.limit(0)
    return rows.where((F.col("model_version") == now.model_version) & (F.col("as_of") > F.lit(now.as_of)))


def _coming_date(tables: Tables, now: Published) -> date:
    """Return the as-of date that the next full run publishes, as far as landings tell."""
    found = tables.read("events").agg(F.max("landed_on")).collect()[0][0]
    return max(found or now.as_of, now.as_of) + timedelta(days=1)
