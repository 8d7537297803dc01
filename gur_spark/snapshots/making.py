"""Events -> snapshots of sequences and of interactions: one path, from the window's events to the row in ``snapshots``.

A snapshot lies in ``ROOT/<form>/<as_of>/<run id>``: ``data/part-*.parquet``, ``manifest.json`` and ``vocabulary.json``.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Protocol

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.engines import is_sail
from gur_spark.errors import SnapshotError
from gur_spark.events.vocabulary import encode
from gur_spark.features.declare.manifest import InteractionManifest, SequenceManifest
from gur_spark.features.declare.windows import Window
from gur_spark.features.spark import selection, writer
from gur_spark.models.kind import Form, VocabularyRef
from gur_spark.snapshots.files import write_description
from gur_spark.snapshots.inputs import SnapshotInputs, check_landings, events_range
from gur_spark.snapshots.sequence_rows import in_order
from gur_spark.snapshots.visible import (
    MadeSnapshots,
    Snapshot,
    ask_again,
    is_whole,
    make_visible,
    visible_snapshots,
)
from gur_spark.tables.delta import Tables, check_keys
from gur_spark.tables.paths import read_parquet
from gur_spark.tables.runs import Account, kept_on_failure

log = logging.getLogger("gur_spark")

PARTITION_EVENTS = 1 << 23
"""Events of a partition, at most about: where the engine does not sort them, a worker holds them."""


class Recipe(Protocol):
    """How the events of a window become the rows of one form of snapshot. It travels to the workers."""

    @property
    def form(self) -> Form: ...

    @property
    def manifest(self) -> SequenceManifest | InteractionManifest: ...

    @property
    def key(self) -> Sequence[str]:
        """Columns of which no two rows have the same values."""

    @property
    def row_group_rows(self) -> int: ...

    @property
    def what(self) -> str:
        """The events that count, in words."""

    def counts(self) -> Column:
        """The condition for an event to count, on columns as they are in ``events``."""

    def narrow(self, encoded: DataFrame) -> DataFrame:
        """The columns that ``files`` needs, ``user_id`` first; sorting by all of them is a total order."""

    def files(self, ordered: Iterator[pa.RecordBatch], as_of: date) -> Iterator[pa.Table]:
        """The rows of the snapshot from a partition's narrow rows in order, one table per file."""


def make_snapshots(
    tables: Tables,
    config: Config,
    recipe: Recipe,
    dates: Collection[date],
    run_id: str,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
    again: bool = False,
) -> MadeSnapshots:
    """Write the snapshots of some dates, in folders named by the run, and make each visible when it is whole.

    Only rows that had landed before ``known_at`` count; by default, before a date's midnight UTC plus the configured
    delay. A date that was made of the same commit of the events, with the same vocabulary and manifest, is not made
    again, unless ``again``. A killed run leaves a folder that no row names, and running again continues after the last
    date that was visible.

    Raises:
        TableError: ``events`` or ``vocabulary`` does not exist, or the vocabulary lacks a field.
        SnapshotError: no event counts for a date, or the landings have not come to it.
        WriteConflict: another run made one of the dates at the same time.
    """
    inputs = SnapshotInputs.of(tables, config, vocabulary_version, form=recipe.form)
    moments = known_moments(dates, config.aggregates.delay_days, known_at)
    visible = visible_snapshots(tables, recipe.form) if tables.exists("snapshots") else []
    there = {} if again else made_already(visible, inputs, recipe.manifest.hash, moments)
    gap_days = config.aggregates.landing_gap_days
    said = {"events": inputs.lineage}
    with kept_on_failure(Account(inputs=said)):
        ask_again(tables, list(there.values()), run_id)
        for day in [day for day in moments if day not in there]:
            folder = tables.folder(recipe.form, day.isoformat(), run_id)
            made = write_snapshot(tables, inputs, recipe, (day, moments[day]), folder, gap_days)
            [there[day]] = make_visible(tables, [made], run_id)
    return MadeSnapshots(snapshots=[there[day] for day in moments], inputs=said)


def known_moments(dates: Collection[date], delay_days: int, known_at: datetime | None) -> dict[date, datetime]:
    """As-of dates, ascending, and until when landings count for each."""
    return {day: known_at or selection.known_at(day, delay_days) for day in sorted(set(dates))}


def made_already(
    visible: Sequence[Snapshot], inputs: SnapshotInputs, manifest_hash: str, moments: Mapping[date, datetime]
) -> dict[date, Snapshot]:
    """Visible snapshots that another run would make again, by date."""
    made_of = (manifest_hash, inputs.vocabulary.version, inputs.vocabulary.hash, inputs.lineage)
    found = {
        s.as_of: s
        for s in visible
        if s.known_at == moments.get(s.as_of)
        and (s.manifest_hash, s.vocabulary_version, s.vocabulary_hash, s.lineage) == made_of
        and is_whole(s)
    }
    for snapshot in found.values():
        log.info("%s %s: made already from these events, checksum %s", snapshot.form, snapshot.as_of, snapshot.checksum)
    return found


def write_snapshot(
    tables: Tables, inputs: SnapshotInputs, recipe: Recipe, moment: tuple[date, datetime], folder: str, gap_days: int
) -> Snapshot:
    """Write the snapshot of one date into a folder that ``snapshots`` does not name yet.

    The content is the same whatever the order, files, partitions and engine.

    Args:
        moment: the as-of date, and until when landings count.
        gap_days: ``aggregates.landing_gap_days``.

    Raises:
        TableError: the vocabulary lacks a field.
        SnapshotError: no event counts, or the landings have not come to the date; nothing is left in the folder.
    """
    as_of, known_at = moment
    vocabulary = inputs.vocabulary
    table = selection.event_rows(inputs.events(tables), inputs.manifest)
    inside = _window_events(table, as_of, known_at, recipe.manifest.window)
    events = _check_events(tables, recipe, inside, moment, gap_days)
    encoded = encode(inside.where(recipe.counts()), vocabulary, recipe.manifest.categories)
    written = _write(recipe, writer.by_user(recipe.narrow(encoded), -(-events // PARTITION_EVENTS)), as_of, folder)
    rows = read_parquet(tables.spark, storage.join(folder, "data")).select(*recipe.key)
    check_keys(rows, recipe.key, f"{recipe.form} {folder}")
    ref = VocabularyRef(version=vocabulary.version, hash=vocabulary.hash, sizes=vocabulary.sizes)
    write_description(folder, recipe.manifest, ref)
    return Snapshot(
        form=recipe.form,
        as_of=as_of,
        known_at=known_at,
        path=folder,
        manifest_hash=recipe.manifest.hash,
        vocabulary_version=vocabulary.version,
        vocabulary_hash=vocabulary.hash,
        lineage=inputs.lineage,
        rows=written.rows,
        checksum=written.checksum,
    )


def _window_events(events: DataFrame, as_of: date, known_at: datetime, window: Window) -> DataFrame:
    inside = selection.snapshot_events(events, {as_of: known_at}, window.reach)
    return inside.where(F.col("event_time") < selection.time_before(as_of, timedelta(hours=window.gap)))


def _check_events(
    tables: Tables, recipe: Recipe, inside: DataFrame, moment: tuple[date, datetime], gap_days: int
) -> int:
    """The number of events that count.

    Raises:
        SnapshotError: there are none, or the landings have not come to the date.
    """
    as_of, known_at = moment
    found = inside.agg(F.count_if(recipe.counts()).alias("events"), F.max("landed_on").alias("landed")).first()
    assert found is not None
    if not found["events"]:
        window = recipe.manifest.window.meaning.replace("as_of", str(as_of))
        raise SnapshotError(
            f"no {recipe.what} {window} that had landed before {known_at:%Y-%m-%d %H:%M} "
            f"({recipe.form} of {as_of}); {events_range(tables)}"
        )
    check_landings(as_of, found["landed"], gap_days)
    return int(found["events"])


def _write(recipe: Recipe, rows: DataFrame, as_of: date, folder: str) -> writer.Written:
    """Each task writes files of its own; those of the attempts that count come into the folder."""
    attempts = storage.join(folder, "_attempts")
    storage.create_folder(attempts)
    # Sail drops a sort whose order no operator of its own needs; Spark's sort can spill to disk.
    spills = not is_sail(rows.sparkSession)
    if spills:
        rows = rows.sortWithinPartitions(*rows.columns)

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for table in recipe.files(batches if spills else in_order(batches), as_of):
            yield writer.write_rows(table, attempts, as_of, recipe.row_group_rows)

    return writer.move_files(writer.collect_files(rows.mapInArrow(kernel, writer.FILES), recipe.form), folder)
