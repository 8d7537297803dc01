"""Columns of ids as numpy arrays, for batches in torch and for counts on Spark's workers."""

# B = rows, N = ids of all rows

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gur_spark.arrays import Ints, Mask
from gur_spark.errors import ModelError, nearest
from gur_spark.schema import UNKNOWN_ID


def check_columns(rows: pa.RecordBatch, names: Sequence[str]) -> None:
    """Check that the rows have these columns.

    Raises:
        ModelError: a column is missing; the message names the nearest one.
    """
    present = rows.schema.names
    for name in sorted(set(names) - set(present)):
        raise ModelError(f"column '{name}' is not in the snapshot{nearest(name, present)}")


def check_ids(ids_N: npt.NDArray[Any], name: str, size: int, first: int = UNKNOWN_ID) -> None:
    """Check that all ids are in a vocabulary that has the ids ``first`` to ``size`` - 1.

    Raises:
        ModelError: an id is not.
    """
    if len(ids_N) and not (ids_N.min() >= first and ids_N.max() < size):
        raise ModelError(
            f"field '{name}': ids from {ids_N.min()} to {ids_N.max()}, the model's vocabulary has {first} to {size - 1}"
        )


def flat(rows: pa.RecordBatch, name: str) -> tuple[npt.NDArray[np.int32], Ints]:
    """Values of a list column, and the position of each row's first one; the last offset is the number of values.

    Raises:
        ModelError: a list is null.
    """
    lists = rows.column(name)
    if lists.null_count:
        raise ModelError(f"column '{name}' has {lists.null_count} nulls; expected lists, empty where there is no event")
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return lists.flatten().to_numpy(zero_copy_only=False), offsets - offsets[0]


def flat_counts(rows: pa.RecordBatch, name: str, offsets_B: Ints) -> npt.NDArray[np.int32]:
    """Values of a list column with lists as long as those of the ids, which begin at ``offsets_B``.

    Raises:
        ModelError: a list is null, or not as long.
    """
    counts_N, count_offsets_B = flat(rows, name)
    if not np.array_equal(offsets_B, count_offsets_B):
        raise ModelError(f"column '{name}' has lists of other lengths than the field's ids")
    return counts_N


def single(rows: pa.RecordBatch, name: str) -> tuple[Ints, Mask]:
    """Ids of a column with one id per row, (N,), and the rows that have one, (B,)."""
    there_B = rows.column(name).is_valid().to_numpy(zero_copy_only=False)
    return rows.column(name).drop_null().to_numpy().astype(np.int64), there_B
