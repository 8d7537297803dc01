"""Training pairs: the aggregates of a date beside what its users did in the days from that date on.

What the loss ``future`` learns from. A pair is a row of a snapshot and, in columns that begin with ``future_``, the
events and the histograms of ``[as_of, as_of + horizon)``: the window of a date ``horizon`` days later, made by the same
kernel. Pairs are of one training and go with it; the snapshots stay as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.config import Config
from gur_spark.errors import TrainingError
from gur_spark.events.vocabulary import Vocabulary, encode
from gur_spark.features.narrowing import event_rows, known_at, prepare, snapshot_events
from gur_spark.features.plan import make_manifest
from gur_spark.features.windows import FILES, collect, keep, write_aggregates, write_rows
from gur_spark.schema import Manifest
from gur_spark.snapshots import Snapshot
from gur_spark.tables import Tables

ROWS_PER_FILE = 50_000
"""Which a worker sorts at a time."""


def write_pairs(
    tables: Tables, config: Config, snapshots: Sequence[Snapshot], vocabulary: Vocabulary, folder: str
) -> list[str]:
    """Write the pairs of each snapshot below ``folder``, and return their folders, which read like snapshots.

    Pairs that are there from a run that was killed are not made again.

    Raises:
        TrainingError: a snapshot's future reaches past the cutoff of training, or is not all there yet.
    """
    horizon, manifest = config.training.horizon_days, config.manifest()
    events = event_rows(tables.read("events", made_by="ingest"), manifest)
    check_horizon(events, config, [s.as_of for s in snapshots])
    made = []
    for snapshot in snapshots:
        until = (config.training_cutoff or snapshot.as_of + timedelta(horizon)).isoformat()
        path = storage.join(folder, f"{snapshot.as_of}-{horizon}d-{until}-{snapshot.checksum}")
        if not storage.exists(storage.join(path, "manifest.json")):
            storage.remove_folder(path)
            _write(tables, config, snapshot, vocabulary, events, path)
        made.append(path)
    return made


def check_horizon(events: DataFrame, config: Config, dates: Sequence[date]) -> None:
    """Whether each date's future ends before the cutoff, and is all there: the last landing bounds what is known.

    Raises:
        TrainingError: naming the last date that could be trained on, or the first landing that is missing.
    """
    horizon, cutoff = timedelta(config.training.horizon_days), config.training_cutoff
    log = F.col("source") if "source" in events.columns else F.lit(0)
    ends = events.groupBy(log.alias("log")).agg(F.max("landed_on").alias("last")).agg(F.min("last")).first()
    landed = ends[0] if ends else None
    for day in dates:
        if cutoff and day + horizon > cutoff:
            raise TrainingError(
                f"the {horizon.days} days from {day} on reach past the cutoff of training, {cutoff} (the first date of "
                f"scoring and evaluation, or training.cutoff); expected dates up to {cutoff - horizon}, or a shorter "
                "training.horizon_days"
            )
        if landed is None or day + horizon > landed + timedelta(1):
            raise TrainingError(
                f"the {horizon.days} days from {day} on are not all there: the log ends on {landed}; they are from the "
                f"landing of {day + horizon - timedelta(1)} on"
            )


def _write(
    tables: Tables, config: Config, snapshot: Snapshot, vocabulary: Vocabulary, events: DataFrame, path: str
) -> None:
    future = future_manifest(config)
    ends = snapshot.as_of + timedelta(config.training.horizon_days)
    # What lands late counts, but nothing that lands after the cutoff: it was not known when training could begin.
    known = {ends: known_at(config.training_cutoff or ends, config.aggregates.delay_days)}
    inside = snapshot_events(events, known, future.reach)
    storage.create_folder(path)
    written = write_aggregates(
        encode(prepare(inside, future), vocabulary, future.categorical),
        future,
        vocabulary.sizes,
        known,
        {ends: storage.join(path, "future")},
    )
    rows = tables.spark.read.parquet(snapshot.data)
    came = _future(tables, storage.join(path, "future", "data"), future, anybody=written[ends].rows > 0)
    joined = rows.join(came, "user_id", "left")
    empty = F.array().cast("ARRAY<INT>")
    filled = {name: F.coalesce(name, F.lit(0) if name == schema.FUTURE_EVENTS else empty) for name in came.columns[1:]}
    by_user = joined.withColumns(filled).repartition(-(-snapshot.rows // ROWS_PER_FILE), "user_id")
    attempts = storage.join(path, "_attempts")
    storage.create_folder(attempts)
    keep(collect(by_user.mapInArrow(_kernel(attempts, snapshot.as_of), FILES)), path)
    storage.remove_folder(storage.join(path, "future"))
    storage.write_text(storage.join(path, "manifest.json"), snapshot.manifest().to_json())


def _kernel(folder: str, as_of: date) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What writes a partition's rows in the order of the users, so that training again gives the same weights."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        some = list(batches)
        if sum(batch.num_rows for batch in some):
            yield write_rows(pa.Table.from_batches(some).sort_by("user_id").combine_chunks(), folder, as_of)

    return write


def future_manifest(config: Config) -> Manifest:
    """The aggregates that the future is taken from: one window, the categories of the events."""
    own = config.manifest()
    return make_manifest(own.user_id_type, [config.training.horizon_days], [], own.categorical, [], own.logs)


def _future(tables: Tables, data: str, future: Manifest, anybody: bool) -> DataFrame:
    """user_id and the columns of the future, of those who have one."""
    days = future.windows[0]
    columns = {schema.FUTURE_EVENTS: (f"events_{days}d", "BIGINT")}
    for field in future.categorical:
        ids, counts = schema.future_columns(field)
        columns |= {ids: (f"{field}_ids", "ARRAY<INT>"), counts: (f"{field}_counts_{days}d", "ARRAY<INT>")}
    if not anybody:
        types = ", ".join(f"{name} {kind}" for name, (_, kind) in columns.items())
        return tables.spark.createDataFrame([], f"user_id {schema.SQL_USER_ID[future.user_id_type]}, {types}")
    rows = tables.spark.read.parquet(data)
    return rows.select("user_id", *[F.col(there).alias(name) for name, (there, _) in columns.items()])
