"""Co-occurrence of ids, counted on Spark's workers when a job trains.

Each task is one row group, which the worker reads with pyarrow, as scoring does (``serving.workers``). Pairs of ids
with their counts pass through Spark, which adds them up.
"""

# N = pairs of ids of all inputs, V = ids of one input

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import sparse

from gur_spark.arrays import ArrowMapper
from gur_spark.batches.layout import Layout
from gur_spark.config.training import Training
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.category_tables import counted_inputs
from gur_spark.models.gur.cooccurrence import Together, count, training_rows, upper, whole
from gur_spark.models.gur.settings import GurModel
from gur_spark.snapshots.files import RowGroup, common_manifest, row_groups

COUNTS = "input INT, a INT, b INT, count BIGINT"
"""Columns of the counts: the users of a row group, or of all, with the ids a <= b of an input, named by its position.
"""
_PAIRS_ARROW = pa.schema([("input", pa.int32()), ("a", pa.int32()), ("b", pa.int32()), ("count", pa.int64())])

BATCH_PAIRS = 1 << 20
"""Pairs that a worker hands over at a time."""


def count_inputs(
    spark: SparkSession, snapshots: Sequence[str], sizes: Mapping[str, int], model: GurModel, training: Training
) -> Together:
    """Count the co-occurrence that the frozen tables of a model are made from.

    Args:
        snapshots: folders that the driver and the workers reach through pyarrow.
        sizes: greatest id + 1 of each categorical field.
    """
    manifest = cast(Manifest, common_manifest(snapshots))
    wanted = counted_inputs(Layout.of(manifest, sizes), model)
    return count_on_spark(spark, snapshots, manifest, wanted, training)


def count_on_spark(
    spark: SparkSession, snapshots: Sequence[str], manifest: Manifest, sizes: Mapping[str, int], training: Training
) -> Together:
    """Count the same matrices as ``cooccurrence.count_snapshots``, on Spark's workers.

    Args:
        snapshots: folders that the driver and the workers reach through pyarrow.
        sizes: the inputs to count, and greatest id + 1 of each.
    """
    if not sizes:
        return {}
    groups = [group for snapshot in snapshots for group in row_groups(snapshot)]
    # Each task has one id, and so one row group; a file may have none.
    tasks = spark.range(0, len(groups), 1, max(len(groups), 1))
    found = added(tasks.mapInArrow(pairs_of(groups, manifest, sizes, training), COUNTS)).toArrow()
    return _matrices(found, sizes)


def added(pairs: DataFrame) -> DataFrame:
    """Add up the counts: one row per input, a and b."""
    return pairs.groupBy("input", "a", "b").agg(F.sum("count").alias("count"))


def pairs_of(
    groups: Sequence[RowGroup], manifest: Manifest, sizes: Mapping[str, int], training: Training
) -> ArrowMapper:
    """Make the function that runs on a worker, over the ids of the row groups of one task."""

    def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (number for batch in batches for number in batch["id"].to_pylist()):
            together = count(training_rows(groups[number], manifest, sizes, training), manifest, sizes)
            for position, name in enumerate(sizes):
                yield from _pairs(position, together[name])

    return counted


def _pairs(position: int, together_VV: sparse.csr_array) -> Iterator[pa.RecordBatch]:
    half = upper(together_VV)
    columns = [np.full(half.nnz, position), half.row, half.col, half.data]
    arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, _PAIRS_ARROW, strict=True)]
    yield from pa.Table.from_arrays(arrays, schema=_PAIRS_ARROW).to_batches(max_chunksize=BATCH_PAIRS)


def _matrices(found: pa.Table, sizes: Mapping[str, int]) -> Together:
    input_N, a_N, b_N, count_N = (found[name].to_numpy() for name in _PAIRS_ARROW.names)
    made = {}
    for position, (name, size) in enumerate(sizes.items()):
        of = input_N == position
        made[name] = whole(sparse.coo_array((count_N[of], (a_N[of], b_N[of])), shape=(size, size)))
    return made
