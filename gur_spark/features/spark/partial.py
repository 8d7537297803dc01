"""Hot users: events of one user that are a task's work many times over are counted where they are read.

A shuffle by user brings all rows of a user to one task. Those of a hot user stay where they are instead: each task that
reads some of them makes a partial state of each hot user, and these states, a few kilobytes each, are what is shuffled
and merged there with the rest. All other users go as if there were none.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.features.continued import dump, restored
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel import PartitionState, chunks
from gur_spark.features.merging import can_merge, merge
from gur_spark.features.packing import Packing
from gur_spark.features.spark.narrowing import narrow, unknown_to
from gur_spark.features.states.tiles import Bands
from gur_spark.schema import SQL_USER_ID

PARTIAL = "_partial"
"""A partial state, in a row without an event; no field can have the name."""

HOT_EVENTS = 20_000_000
"""Nobody with fewer events in the windows is hot: on two cores, 24M took 19 s in place of 30 s, and with 5M and 10M
there was nothing to gain, as the rest is read apart (``benchmarks.scale``)."""

_BUCKETS = 1024


def hot_users(events: DataFrame, number: int, tasks: int) -> list[Any]:
    """The ids of users with more than ``HOT_EVENTS`` and more than two of so many tasks would have of all; ascending.

    Two tasks are what a core does: as long as one user takes no longer, the cores share the rest.

    Args:
        number: of the events; where there are too few for a hot user, nothing is looked at.
    """
    over = max(HOT_EVENTS, 2 * number // tasks)
    if number <= over:
        return []
    # Users are counted by a hash first, which takes no shuffle to speak of: most buckets hold no hot user for sure.
    by_bucket = _counts(events, _bucket(), over)
    if not by_bucket:
        return []
    return sorted(_counts(events.where(_bucket().isin(by_bucket)), F.col("user_id"), over))


def _counts(events: DataFrame, key: Column, over: int) -> list[Any]:
    """The keys of more events than so many."""
    counted = events.groupBy(key.alias("key")).agg(F.count(F.lit(1)).alias("events"))
    return [row["key"] for row in counted.where(F.col("events") > over).collect()]


def narrow_events(
    encoded: DataFrame,
    manifest: Manifest,
    packing: Packing,
    bands: Bands,
    known: Mapping[date, datetime],
    hot: Collection[Any] = (),
) -> DataFrame:
    """What the kernel needs of each event, or of those of hot users in one task; ``merged`` takes both.

    An operation of one's own whose state cannot be merged leaves all events as they are.
    """
    if not hot or not can_merge(PartitionState(manifest, bands)):
        return narrow(encoded, manifest, packing, bands, known)
    # A state keeps no rows that wait for a date which knows them: those stay rows.
    counted = F.col("user_id").isin(list(hot)) & (unknown_to(bands, known) == 0)

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        states: dict[Any, PartitionState] = {}
        for chunk in chunks(map(packing.unpack, batches)):
            for user in chunk["user_id"].unique():
                of_user = states.setdefault(user.as_py(), PartitionState(manifest, bands))
                of_user.update(chunk.filter(pc.equal(chunk["user_id"], user)))
        for user_id, state in states.items():
            content = pa.array([dump(state).to_pybytes()], pa.binary())
            yield pa.RecordBatch.from_arrays([pa.array([user_id]), content], ["user_id", PARTIAL])

    apart, rest = (narrow(encoded.where(which), manifest, packing, bands, known) for which in (counted, ~counted))
    partial = apart.mapInArrow(count, f"user_id {SQL_USER_ID[manifest.user_id_type]}, {PARTIAL} BINARY")
    return rest.unionByName(partial, allowMissingColumns=True)


def merged(state: PartitionState, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Merge the partial states among rows into a state; gives the other rows.

    Raises:
        AggregateOverflow: a sum left its exact range.
    """
    for batch in batches:
        if PARTIAL not in batch.schema.names:
            yield batch
            continue
        partial = batch.column(PARTIAL)
        for content in partial.drop_null():
            merge(state, restored(content.as_buffer(), state.manifest, state.bands, state.bands))
        yield batch.filter(partial.is_null()).drop_columns([PARTIAL])


def _bucket() -> Column:
    # Engines may hash differently: it only says where to look.
    return F.pmod(F.hash("user_id"), F.lit(_BUCKETS))
