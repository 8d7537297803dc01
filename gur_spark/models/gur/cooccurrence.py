"""Co-occurrence: the number of training users with both of two ids, for each categorical input. Frozen tables need it.

Counts are whole numbers over single users, so parts can be added in any order. The training process reads all row
groups in turn, and Spark one per task (``counting``): both give the same matrices.
"""

# U = users of a batch, V = ids of one input, N = (user, id) pairs of a batch

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from gur_spark.batches.columns import check_columns, check_ids, flat, flat_counts, single
from gur_spark.config.training import Training
from gur_spark.features.declare.manifest import Manifest
from gur_spark.snapshots.files import RowGroup, row_groups
from gur_spark.splits import validation_side

READ_ROWS = 65_536
"""Rows that are counted at a time."""

Together = Mapping[str, sparse.csr_array]
"""Input -> number of users with both of two ids, (V, V) int64; the diagonal holds the users of each id."""

Ids = tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]
"""Ids of all users, (N,), and the position of each user's first one, (U + 1,)."""


def count_snapshots(
    snapshots: Sequence[str], manifest: Manifest, sizes: Mapping[str, int], training: Training
) -> Together:
    """Count the training users of the snapshots in these folders; a user of two snapshots counts in each.

    Args:
        sizes: the inputs to count, and greatest id + 1 of each.

    Raises:
        ModelError: a column is missing, lists differ in length, or an id is not in the vocabulary.
    """
    groups = [group for snapshot in snapshots for group in row_groups(snapshot)] if sizes else []
    rows = chain.from_iterable(training_rows(group, manifest, sizes, training) for group in groups)
    return count(rows, manifest, sizes)


def training_rows(
    group: RowGroup, manifest: Manifest, sizes: Mapping[str, int], training: Training
) -> Iterator[pa.RecordBatch]:
    """Yield the counted columns of a row group's training users."""
    for rows in group.read(["user_id", *_columns(manifest, sizes)], READ_ROWS):
        held_out = validation_side(rows.column("user_id"), training.validation_share, training.seed)
        yield rows.filter(pa.array(~held_out))


def count(batches: Iterable[pa.RecordBatch], manifest: Manifest, sizes: Mapping[str, int]) -> Together:
    """Count all users of the batches. Indices are sorted, so that results have the same bits."""
    together = {name: sparse.csr_array((size, size), dtype=np.int64) for name, size in sizes.items()}
    for rows in batches:
        for name, has_UV in presence(rows, manifest, sizes).items():
            together[name] = together[name] + (has_UV.T @ has_UV).tocsr()
    for of_input in together.values():
        of_input.sum_duplicates()
    return together


def presence(rows: pa.RecordBatch, manifest: Manifest, sizes: Mapping[str, int]) -> dict[str, sparse.csr_array]:
    """Mark the ids of each user, (U, V) int64 of ones, per input."""
    check_columns(rows, _columns(manifest, sizes))
    made = {}
    for name, size in sizes.items():
        ids_N, offsets_U = _ids(rows, name, manifest)
        check_ids(ids_N, name, size)
        made[name] = sparse.csr_array((np.ones(len(ids_N), np.int64), ids_N, offsets_U), shape=(rows.num_rows, size))
    return made


def upper(together_VV: sparse.csr_array) -> sparse.coo_array:
    """Keep each pair of ids once, (a, b) with a <= b."""
    return sparse.triu(together_VV, format="coo")


def whole(upper_VV: sparse.coo_array) -> sparse.csr_array:
    """Restore the matrix that ``upper`` was applied to, in the form that ``count`` gives."""
    together_VV = (upper_VV + sparse.triu(upper_VV, k=1).T).tocsr()
    together_VV.sum_duplicates()
    return together_VV


def _columns(manifest: Manifest, sizes: Mapping[str, int]) -> list[str]:
    histograms = {name: [f"{name}_ids", _longest(name, manifest)] for name in manifest.categorical if name in sizes}
    return [column for name in sizes for column in histograms.get(name, [name])]


def _longest(field: str, manifest: Manifest) -> str:
    # Windows are cumulative: the longest has all the ids.
    return f"{field}_counts_{manifest.standard_windows[-1].name}"


def _ids(rows: pa.RecordBatch, name: str, manifest: Manifest) -> Ids:
    if name in manifest.categorical:
        return _with_events(rows, name, manifest)
    if name in {column.name for column in manifest.ids}:
        ids_N, there_U = single(rows, name)
        return ids_N, np.concatenate(([0], np.cumsum(there_U)))
    return flat(rows, name)


def _with_events(rows: pa.RecordBatch, field: str, manifest: Manifest) -> Ids:
    """Ids of a field with at least one event of the user; a count of 0 is no event, as in a batch's histograms."""
    ids_N, offsets_U = flat(rows, f"{field}_ids")
    there_N = flat_counts(rows, _longest(field, manifest), offsets_U) > 0
    before_N = np.concatenate(([0], np.cumsum(there_N)))
    return ids_N[there_N], before_N[offsets_U]
