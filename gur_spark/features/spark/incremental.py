"""Aggregates of a date on Spark, from the saved state of an earlier snapshot and the events that came since."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel.dumps import load
from gur_spark.features.kernel.partition import PartitionState
from gur_spark.features.kernel.state_files import FOLDER, SavedState, read_state
from gur_spark.features.spark.narrowing import narrow, narrow_attributes, packing_of
from gur_spark.features.spark.selection import last_landing, midnight, snapshot_events
from gur_spark.features.spark.writer import FILES, Written, collect_files, move_files, part_of_user, write_partition

_FILE = "_file"
"""Column with the number of a state's file. No field can have this name."""
_TASKS = 8
"""Least number of tasks. A hash spreads files over tasks, so with as many tasks as files some would get several."""


def entering_events(
    events: DataFrame, as_of: date, known_at: datetime, base: tuple[date, datetime], reach: timedelta | None
) -> DataFrame:
    """The ``snapshot_events`` of a date that are not among those of an earlier date.

    Args:
        base: the earlier date and its moment until which landings counted.
    """
    base_date, base_known_at = base
    landed_since = F.col("landed_on") > F.lit(last_landing(base_known_at))
    happened_since = F.col("event_time") >= midnight(base_date)
    return snapshot_events(events, {as_of: known_at}, reach).where(landed_since | happened_since)


def write_incremental(
    encoded: DataFrame,
    manifest: Manifest,
    sizes: Mapping[str, int],
    base: tuple[str, SavedState],
    as_of: date,
    folder: str,
    oldest: date | None = None,
    attributes: DataFrame | None = None,
) -> Written:
    """Write the files of one date as ``write_aggregates`` would, from an earlier state and the rows that enter.

    Args:
        encoded: ``entering_events`` with derived columns, and with categories as vocabulary ids.
        sizes: categorical field -> greatest id + 1.
        base: folder of the earlier snapshot, and its saved state.
        folder: folder for the date's files; the driver and the workers reach it through pyarrow.
        oldest: day of the first event that enters, where a window begins with the first event.
        attributes: rows of attributes that enter, encoded, where the manifest has attributes.

    Raises:
        BaseSnapshotError: a file of the saved state is gone or was altered.
        AggregateOverflow: a sum left its exact range.
    """
    path, saved = base
    tiles = saved.tiles(manifest)
    later = tiles.advanced(as_of, oldest)
    packing = packing_of(manifest, later, sizes)
    attempts = {as_of.isoformat(): storage.join(folder, "_attempts")}
    storage.create_folder(attempts[as_of.isoformat()])

    def state_with(number: int, rows: pa.Table) -> PartitionState:
        file = saved.files[number]
        state = load(read_state(storage.join(path, FOLDER, file.name), file), manifest, tiles, as_of, oldest)
        state.take(rows.filter((pc.field(_FILE) == number) & pc.field("user_id").is_valid()).to_batches())
        return state

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        some = [packing.unpack(batch) for batch in batches if batch.num_rows]
        rows = pa.Table.from_batches(some) if some else None
        for number in sorted(rows[_FILE].unique().to_pylist()) if rows else ():
            yield from write_partition(state_with(number, rows), attempts)

    rows = narrow(encoded, manifest, packing, later, {})
    if attributes is not None:
        rows = rows.unionByName(narrow_attributes(attributes, manifest, later, {}), allowMissingColumns=True)
    rows = rows.withColumn(_FILE, _file_of_user(saved))
    # One more row for each file, so that files which no row enters are written, too.
    marks = rows.sparkSession.range(0, len(saved.files), 1, 1).select(F.col("id").cast("INT").alias(_FILE))
    both = rows.unionByName(marks, allowMissingColumns=True)
    by_file = both.repartition(max(len(saved.files), _TASKS), _FILE)
    return move_files(collect_files(by_file.mapInArrow(kernel, FILES)), folder)


def _file_of_user(saved: SavedState) -> Column:
    """Number of the file that a user is in, or would be in."""
    # One text of numbers of equal width, because Spark would go through 4,096 expressions of an array.
    width = len(str(len(saved.files)))
    numbers = "".join(f"{number:0{width}}" for number in saved.file_of_part())
    place = (part_of_user() * width + 1).cast("INT")
    return F.substr(F.lit(numbers), place, F.lit(width)).cast("INT")
