"""Hot users: users with so many events that one task would work on them for a very long time.

A shuffle by user brings all rows of a user to one task. The events of a hot user are counted where they are read
instead: each task that reads some of them makes a partial state per hot user, and only these states, a few kilobytes
each, are shuffled and merged. Other users are not affected.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel.dumps import dump, load_into
from gur_spark.features.kernel.merging import can_merge, merge
from gur_spark.features.kernel.packing import Packing
from gur_spark.features.kernel.partition import PartitionState, chunks
from gur_spark.features.spark.narrowing import narrow, unknown_to
from gur_spark.features.states.tiles import Tiles
from gur_spark.schema import SQL_USER_ID

PARTIAL = "_partial"
"""Column of a partial state, in a row without an event. No field can have this name."""

HOT_EVENTS = 20_000_000
"""A user with fewer events in the windows is never hot.

Measured on two cores with ``benchmarks.scale``: a user with 24M events took 19 s instead of 30 s, and with 5M or 10M
events there was nothing to gain, because the other users' events are then read in a pass of their own.
"""

_BUCKETS = 1024


def hot_users(events: DataFrame, number: int, tasks: int) -> list[Any]:
    """Ids of hot users, ascending: more than ``HOT_EVENTS`` events, and more than two tasks have on average.

    A core works on about two tasks. As long as no user takes longer than that, the cores share the work evenly.

    Args:
        number: number of all events; where it is too small for a hot user, the events are not read.
        tasks: tasks among which the events are divided.
    """
    over = max(HOT_EVENTS, 2 * number // tasks)
    if number <= over:
        return []
    # Events are counted per hash bucket first, which needs almost no shuffle and rules out most buckets.
    by_bucket = _counts(events, _bucket(), over)
    if not by_bucket:
        return []
    return sorted(_counts(events.where(_bucket().isin(by_bucket)), F.col("user_id"), over))


def _counts(events: DataFrame, key: Column, over: int) -> list[Any]:
    """Keys that have more than so many events."""
    counted = events.groupBy(key.alias("key")).agg(F.count(F.lit(1)).alias("events"))
    return [row["key"] for row in counted.where(F.col("events") > over).collect()]


def narrow_events(
    encoded: DataFrame,
    manifest: Manifest,
    packing: Packing,
    tiles: Tiles,
    moments: Mapping[date, datetime],
    hot: Collection[Any] = (),
) -> DataFrame:
    """The columns of each event that the kernel needs, or one partial state for the events of a hot user in a task.

    ``merge_partial_states`` reads both. Where some state cannot be merged, there are no partial states.

    Args:
        moments: as-of date -> moment until which landings count for it.
        hot: ids of hot users.
    """
    if not hot or not can_merge(PartitionState(manifest, tiles)):
        return narrow(encoded, manifest, packing, tiles, moments)
    # A dump holds no rows that wait for a date, so those stay rows.
    counted = F.col("user_id").isin(list(hot)) & (unknown_to(tiles, moments) == 0)

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        states: dict[Any, PartitionState] = {}
        for chunk in chunks(map(packing.unpack, batches)):
            for user in chunk["user_id"].unique():
                of_user = states.setdefault(user.as_py(), PartitionState(manifest, tiles))
                of_user.update(chunk.filter(pc.equal(chunk["user_id"], user)))
        for user_id, state in states.items():
            content = pa.array([dump(state).to_pybytes()], pa.binary())
            yield pa.RecordBatch.from_arrays([pa.array([user_id]), content], ["user_id", PARTIAL])

    hot_events, others = (
        narrow(encoded.where(which), manifest, packing, tiles, moments) for which in (counted, ~counted)
    )
    partial = hot_events.mapInArrow(count, f"user_id {SQL_USER_ID[manifest.user_id_type]}, {PARTIAL} BINARY")
    return others.unionByName(partial, allowMissingColumns=True)


def merge_partial_states(state: PartitionState, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Merge the partial states among the rows into a state, and yield the other rows.

    Raises:
        AggregateOverflow: a sum left its exact range.
    """
    for batch in batches:
        if PARTIAL not in batch.schema.names:
            yield batch
            continue
        partial = batch.column(PARTIAL)
        for content in partial.drop_null():
            merge(state, load_into(content.as_buffer(), state.manifest, state.tiles, state.tiles))
        yield batch.filter(partial.is_null()).drop_columns([PARTIAL])


def _bucket() -> Column:
    # Engines hash differently, but a bucket only narrows the search.
    return F.pmod(F.hash("user_id"), F.lit(_BUCKETS))
