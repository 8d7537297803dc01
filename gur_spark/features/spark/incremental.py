"""A date's aggregates on Spark from what an earlier snapshot keeps and the events that came since."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.features.continued import load
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel import PartitionState
from gur_spark.features.spark.narrowing import (
    last_landing,
    midnight,
    narrow,
    narrow_attributes,
    packing_of,
    snapshot_events,
)
from gur_spark.features.spark.writer import FILES, Written, collect, keep, part_of_user, write_all
from gur_spark.features.states.files import FOLDER, Kept, read_state

_FILE = "_file"
"""The number of a state's file; no field can have the name."""
_TASKS = 8
"""At least so many, among which the files are spread by a hash: of as many tasks as files, some would get several."""


def entering_events(
    events: DataFrame, as_of: date, known_at: datetime, base: tuple[date, datetime], reach: int | None
) -> DataFrame:
    """Of the ``snapshot_events`` of a date, those that are not among those of an earlier one (and its ``known_at``)."""
    base_date, base_known_at = base
    landed_since = F.col("landed_on") > F.lit(last_landing(base_known_at))
    happened_since = F.col("event_time") >= midnight(base_date)
    return snapshot_events(events, {as_of: known_at}, reach).where(landed_since | happened_since)


def write_continued(
    encoded: DataFrame,
    manifest: Manifest,
    sizes: Mapping[str, int],
    base: tuple[str, Kept],
    as_of: date,
    folder: str,
    oldest: date | None = None,
    attributes: DataFrame | None = None,
) -> Written:
    """Write what ``write_aggregates`` would of a date, from an earlier snapshot's state and the rows that enter.

    Args:
        encoded: ``entering_events``, prepared, categorical columns as vocabulary ids.
        sizes: greatest id + 1 of each categorical field.
        base: the earlier snapshot's folder, and what it keeps.
        folder: where the date's files go; the driver and the workers reach it through pyarrow.
        oldest: the day of the first event that enters, where a declared window has no end.
        attributes: the rows of attributes that enter, encoded, where the manifest has attributes.

    Raises:
        BaseSnapshotError: what it keeps is gone, or was altered.
        AggregateOverflow: a sum left its exact range.
    """
    path, kept = base
    bands = kept.bands(manifest)
    later = bands.continued(as_of, oldest)
    packing = packing_of(manifest, later, sizes)
    attempts = {as_of.isoformat(): storage.join(folder, "_attempts")}
    storage.create_folder(attempts[as_of.isoformat()])

    def state_with(number: int, rows: pa.Table) -> PartitionState:
        file = kept.files[number]
        state = load(read_state(storage.join(path, FOLDER, file.name), file), manifest, bands, as_of, oldest)
        state.take(rows.filter((pc.field(_FILE) == number) & pc.field("user_id").is_valid()).to_batches())
        return state

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        some = [packing.unpack(batch) for batch in batches if batch.num_rows]
        rows = pa.Table.from_batches(some) if some else None
        for number in sorted(rows[_FILE].unique().to_pylist()) if rows else ():
            yield from write_all(state_with(number, rows), attempts)

    rows = narrow(encoded, manifest, packing, later, {})
    if attributes is not None:
        rows = rows.unionByName(narrow_attributes(attributes, manifest, later, {}), allowMissingColumns=True)
    rows = rows.withColumn(_FILE, _file_of_user(kept))
    # One more row for each file: those that nobody enters are gone through as well.
    marks = rows.sparkSession.range(0, len(kept.files), 1, 1).select(F.col("id").cast("INT").alias(_FILE))
    both = rows.unionByName(marks, allowMissingColumns=True)
    by_file = both.repartition(max(len(kept.files), _TASKS), _FILE)
    return keep(collect(by_file.mapInArrow(kernel, FILES)), folder)


def _file_of_user(kept: Kept) -> Column:
    """The number of the file that a user is in, or would be."""
    # A text of numbers equally wide: as an array, Spark would go through 4096 expressions.
    width = len(str(len(kept.files)))
    numbers = "".join(f"{number:0{width}}" for number in kept.file_of_part())
    place = (part_of_user() * width + 1).cast("INT")
    return F.substr(F.lit(numbers), place, F.lit(width)).cast("INT")
