"""Training pairs: the aggregates of a date beside the future and other views of its users.

The losses ``future`` and ``contrastive`` learn from them. A pair is a row of a snapshot with further columns. Columns
that begin with ``future_`` hold the events and the histograms of ``[as_of, as_of + horizon)``: the window of a date
``horizon`` days later, made by the same kernel. Columns that begin with ``view`` hold other views of the user
(``model.contrastive.views``). Pairs are named after everything that they are made of, so that trainings share them.
``clean`` removes them. The snapshots stay as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from hashlib import sha256
from uuid import uuid4

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.batches.pair_columns import FUTURE_EVENTS, future_columns
from gur_spark.config.pipeline import Config
from gur_spark.errors import TrainingError
from gur_spark.events.vocabulary import Vocabulary, encode
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.spark.derived import add_derived
from gur_spark.features.spark.selection import event_rows, known_at, snapshot_events
from gur_spark.features.spark.writer import FILES, collect_files, move_files, write_aggregates, write_rows
from gur_spark.models.gur.augmentations import check_views, of_another_date, of_halves, partner
from gur_spark.models.gur.settings import GurModel
from gur_spark.snapshots.horizon import check_complete, check_cutoff
from gur_spark.snapshots.inputs import SnapshotInputs
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.paths import read_parquet

ROWS_PER_FILE = 50_000
"""Rows that a worker sorts at a time."""


def write_pairs(
    tables: Tables, config: Config, snapshots: Sequence[Snapshot], vocabulary: Vocabulary, folder: str
) -> list[str]:
    """Write the pairs of each snapshot below ``folder``, and return their folders, which read like snapshots.

    Pairs that a killed run left complete are not made again.

    Raises:
        TrainingError: a snapshot's future or another view reaches past the cutoff of training, or has not landed yet.
    """
    # The snapshots of one training have one manifest; the training checks it.
    inputs = SnapshotInputs(
        manifest=snapshots[0].manifest(Manifest),
        vocabulary=vocabulary,
        events_id=tables.identity("events"),
        events_version=tables.version("events"),
        users=None,
    )
    model = GurModel.of(config.model)
    if "future" in model.loss:
        check_horizon(event_rows(inputs.events(tables), inputs.manifest), config, [s.as_of for s in snapshots])
    if "contrastive" in model.loss:
        check_views(model, config.training_cutoff, [snapshot.as_of for snapshot in snapshots])
    made = []
    for snapshot in snapshots:
        other = partner(snapshot, snapshots) if model.views == 1 else None
        of = [inputs.lineage, config.training_cutoff, config.aggregates.delay_days, vocabulary.hash, snapshot.checksum]
        views = [model.views, other.checksum if other else None]
        name = f"{snapshot.as_of}-{model.future.horizon_days}d-{_digest(*of, *views, 'future' in model.loss)}"
        path = storage.join(folder, name)
        if not storage.exists(storage.join(path, "manifest.json")):
            _write(tables, config, inputs, snapshot, other, path, storage.join(folder, f"{name}-{uuid4().hex}"))
        made.append(path)
    return made


def _digest(*of: object) -> str:
    return sha256(repr([str(part) for part in of]).encode()).hexdigest()[:16]


def check_horizon(events: DataFrame, config: Config, dates: Sequence[date]) -> None:
    """Check that each date's future ends before the cutoff and has landed; the last landing bounds the known events.

    Raises:
        TrainingError: the message names the last date that could be trained on, or the first landing that is missing.
    """
    ahead = config.model.looks_ahead_days()
    check_cutoff(dates, ahead, config.training_cutoff, TrainingError)
    check_complete(events, config, list(dates), ahead, TrainingError)


def _write(
    tables: Tables,
    config: Config,
    inputs: SnapshotInputs,
    snapshot: Snapshot,
    other: Snapshot | None,
    path: str,
    work: str,
) -> None:
    """Write a snapshot's pairs to ``work``, and move them to ``path`` unless another training has done so meanwhile."""
    rows = read_parquet(tables.spark, snapshot.data)
    storage.create_folder(work)
    for beside in _beside(tables, config, inputs, snapshot, other, work):
        rows = rows.join(beside, "user_id", "left")
        # A user without a row has no event: an empty histogram, and no number but that of the events to come.
        empty = {name: F.array().cast(kind) for name, kind in beside.dtypes if kind.startswith("array")}
        empty |= {name: F.lit(0) for name in beside.columns if name == FUTURE_EVENTS}
        rows = rows.withColumns({name: F.coalesce(name, nothing) for name, nothing in empty.items()}) if empty else rows
    by_user = rows.repartition(-(-snapshot.rows // ROWS_PER_FILE), "user_id")
    attempts = storage.join(work, "_attempts")
    storage.create_folder(attempts)
    move_files(collect_files(by_user.mapInArrow(_kernel(attempts, snapshot.as_of), FILES)), work)
    for folder in ("future", "half1", "half2"):
        storage.remove_folder(storage.join(work, folder))
    storage.write_text(storage.join(work, "manifest.json"), snapshot.manifest().to_json())
    if storage.exists(storage.join(path, "manifest.json")):
        storage.remove_folder(work)
    else:
        storage.move(work, path)


def _beside(
    tables: Tables, config: Config, inputs: SnapshotInputs, snapshot: Snapshot, other: Snapshot | None, work: str
) -> Iterator[DataFrame]:
    """Join everything that the losses need beside a snapshot's rows, by user_id."""
    model = GurModel.of(config.model)
    if "future" in model.loss:
        yield _future(tables, config, inputs, snapshot, work)
    if other:
        yield from of_another_date(tables, other)
    elif "contrastive" in model.loss:
        yield from of_halves(tables, inputs, snapshot, work)


def _kernel(folder: str, as_of: date) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Make the function that writes a partition's rows in the order of the users, so that training again gives the same
    weights."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        some = list(batches)
        if sum(batch.num_rows for batch in some):
            yield write_rows(pa.Table.from_batches(some).sort_by("user_id").combine_chunks(), folder, as_of)

    return write


def future_manifest(own: Manifest, horizon_days: int) -> Manifest:
    """Make the manifest of the future's aggregates: one window, and the categories of the events."""
    return make_manifest(own.user_id_type, [horizon_days], [], own.categorical, [], own.logs)


def _future(tables: Tables, config: Config, inputs: SnapshotInputs, snapshot: Snapshot, work: str) -> DataFrame:
    """Compute user_id and the columns of the future, for users with events in it."""
    horizon_days = config.model.looks_ahead_days()
    future = future_manifest(inputs.manifest, horizon_days)
    ends = snapshot.as_of + timedelta(horizon_days)
    # Late landings count, except those that a snapshot of the cutoff would not know: training could begin with that
    # snapshot.
    known = {ends: known_at(config.training_cutoff or ends, config.aggregates.delay_days)}
    inside = snapshot_events(event_rows(inputs.events(tables), inputs.manifest), known, future.reach)
    written = write_aggregates(
        encode(add_derived(inside, future), inputs.vocabulary, future.categorical),
        future,
        inputs.vocabulary.sizes,
        known,
        {ends: storage.join(work, "future")},
    )
    [window] = future.standard_windows
    columns = {FUTURE_EVENTS: (f"events_{window.name}", "BIGINT")}
    for field in future.categorical:
        ids, counts = future_columns(field)
        columns |= {ids: (f"{field}_ids", "ARRAY<INT>"), counts: (f"{field}_counts_{window.name}", "ARRAY<INT>")}
    if not written[ends].rows:
        types = ", ".join(f"{name} {kind}" for name, (_, kind) in columns.items())
        return tables.spark.createDataFrame([], f"user_id {schema.SQL_USER_ID[future.user_id_type]}, {types}")
    rows = read_parquet(tables.spark, storage.join(work, "future", "data"))
    return rows.select("user_id", *[F.col(there).alias(name) for name, (there, _) in columns.items()])
