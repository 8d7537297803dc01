"""Events -> snapshots of sequences: one row per user, arrays in the order of time.

``PATH/data`` is a flat Parquet folder that pytorch-lifestream reads. The events are the same that the aggregates of the
date are made of, in the window of ``sequences.window``.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.config.pipeline import Config
from gur_spark.config.snapshots import Sequences
from gur_spark.features.declare.manifest import Manifest, SequenceManifest
from gur_spark.features.declare.sequences import sequence_manifest
from gur_spark.features.spark import selection
from gur_spark.models.kind import Form
from gur_spark.schema import PADDING_ID
from gur_spark.snapshots.inputs import SnapshotInputs
from gur_spark.snapshots.making import make_snapshots, write_snapshot
from gur_spark.snapshots.sequence_rows import SequenceRows, file_by_file, whole_users
from gur_spark.snapshots.visible import MadeSnapshots, Snapshot
from gur_spark.tables.delta import Tables


def sequence_snapshots(
    tables: Tables,
    config: Config,
    dates: Collection[date],
    run_id: str,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
    again: bool = False,
) -> MadeSnapshots:
    """Write the sequences of some dates as ``sequences`` says, and make them visible; see ``make_snapshots``.

    One row per user with an event in the window. A user's events are in the order of their time and, at one time, of
    their values.

    Raises:
        ConfigError: a field's name means something else to pytorch-lifestream.
    """
    recipe = recipe_of(config.sequences, config.manifest())
    return make_snapshots(tables, config, recipe, dates, run_id, vocabulary_version, known_at, again)


def write_sequences(
    tables: Tables,
    config: Config,
    as_of: date,
    folder: str,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
) -> Snapshot:
    """Write the sequences of one date into a folder that ``snapshots`` does not name, for use by one run alone.

    Raises:
        TableError, SnapshotError, ConfigError: as ``sequence_snapshots``.
    """
    inputs = SnapshotInputs.of(tables, config, vocabulary_version, form=Form.SEQUENCES)
    moment = as_of, known_at or selection.known_at(as_of, config.aggregates.delay_days)
    recipe = recipe_of(config.sequences, inputs.manifest)
    return write_snapshot(tables, inputs, recipe, moment, folder, config.aggregates.landing_gap_days)


def recipe_of(wanted: Sequences, events: Manifest) -> "SequenceRecipe":
    """How the configuration wants sequences of the events that its aggregates have.

    Raises:
        ConfigError: a field's name means something else to pytorch-lifestream.
    """
    return SequenceRecipe(sequence_manifest(events, wanted.window, wanted.max_events, wanted.fields), events)


@dataclass(frozen=True)
class SequenceRecipe:
    """How events become sequences."""

    manifest: SequenceManifest
    events: Manifest
    """The manifest of the aggregates of the same events: their fields and logs."""
    form = Form.SEQUENCES
    key = ("user_id",)
    row_group_rows = 4096
    what = "event"

    def counts(self) -> Column:
        """Every event counts."""
        return F.lit(True)

    def narrow(self, encoded: DataFrame) -> DataFrame:
        """Times in microseconds, numbers in steps."""
        logs = [entry.name for entry in self.events.logs]
        values = {name: F.col(name) for name in self.manifest.categories}
        for name in values if logs else ():
            having = [entry.name for entry in self.events.logs if name in entry.fields]
            values[name] = F.when(F.col("source").isin(having), F.col(name)).otherwise(F.lit(PADDING_ID))
        if logs:
            values["source"] = F.array_position(F.array(*map(F.lit, logs)), F.col("source")).cast("INT")
        values |= {field.name: F.col(field.name) for field in self.rows(date.min).numeric}
        return encoded.select(
            "user_id",
            F.unix_micros("event_time").alias("event_time"),
            *[column.alias(name) for name, column in values.items()],
        )

    def files(self, ordered: Iterator[pa.RecordBatch], as_of: date) -> Iterator[pa.Table]:
        """A file has about a million events."""
        users = whole_users(ordered, self.manifest.max_events)
        return map(self.rows(as_of).of, file_by_file(users))

    def rows(self, as_of: date) -> SequenceRows:
        """How the rows of a date are made."""
        names = {column.name for column in self.manifest.columns}
        numeric = tuple(field for field in self.events.numeric if field.name in names)
        return SequenceRows(manifest=self.manifest, numeric=numeric, as_of=as_of)
