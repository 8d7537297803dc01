"""Aggregate snapshots (Parquet) as a stream of batches, shuffled within a buffer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
from torch.utils.data import IterableDataset

from gur_spark.arrays import Mask
from gur_spark.batches.aggregates import AggregateBatch, to_batch
from gur_spark.batches.layout import Layout
from gur_spark.batches.pair_columns import FUTURE_EVENTS, VIEWS, future_columns, view_column
from gur_spark.errors import TrainingError
from gur_spark.snapshots.files import RowGroup, row_groups

Keep = Callable[[pa.Array], Mask]

BUFFER_ROWS = 65_536
"""Rows that are held and shuffled together. It bounds the memory of a stream."""

READ_ROWS = 8_192
"""Rows that are decoded from Parquet at a time."""


def stream(
    snapshots: Sequence[str],
    layout: Layout,
    batch_size: int,
    *,
    shuffle_seed: int | Sequence[int] | None = None,
    keep: Keep | None = None,
    future: bool = False,
    views: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Iterator[AggregateBatch]:
    """Yield batches of ``batch_size`` users (the last may be smaller) from the snapshots in these folders.

    With a seed, the order of the row groups of all snapshots and the rows within a buffer of ``BUFFER_ROWS`` are
    shuffled. Without one, rows come in the order of the files. ``keep`` selects users by their ids. With ``future`` or
    ``views``, the folders hold training pairs, and batches have the future and so many views. ``part`` (k, n) takes
    every n-th row group of that order, from the k-th on: n streams of the same seed have each row once.
    """
    generator = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
    rest: list[pa.RecordBatch] = []
    columns = ["user_id", *layout.columns]
    if future:
        columns += [FUTURE_EVENTS, *chain.from_iterable(future_columns(f) for f in layout.manifest.categorical)]
    columns += [view_column(number, name) for number in VIEWS[:views] for name in layout.columns]
    for buffered in _buffers(_read(snapshots, columns, keep, generator, part), BUFFER_ROWS):
        rows = _concat([*rest, *buffered])
        if generator is not None:
            rows = rows.take(pa.array(generator.permutation(rows.num_rows)))
        whole = rows.num_rows - rows.num_rows % batch_size
        for start in range(0, whole, batch_size):
            yield to_batch(rows.slice(start, batch_size), layout)
        rest = [rows.slice(whole)] if whole < rows.num_rows else []
    for rows in rest:
        yield to_batch(rows, layout)


def user_ids(snapshot: str) -> Iterator[pa.Array]:
    """Yield the user ids of a snapshot."""
    for rows in _read([snapshot], ["user_id"], keep=None, generator=None):
        yield rows.column("user_id")


def _read(
    snapshots: Sequence[str],
    columns: list[str],
    keep: Keep | None,
    generator: np.random.Generator | None,
    part: tuple[int, int] = (0, 1),
) -> Iterator[pa.RecordBatch]:
    groups = [group for snapshot in snapshots for group in row_groups(snapshot)]
    order = range(len(groups)) if generator is None else generator.permutation(len(groups))
    yield from read_groups([groups[position] for position in order[part[0] :: part[1]]], columns, READ_ROWS, keep)


def read_groups(
    groups: Iterable[RowGroup], columns: Sequence[str], batch_rows: int, keep: Keep | None
) -> Iterator[pa.RecordBatch]:
    """Yield rows of these row groups, at most ``batch_rows`` at a time, of the users that ``keep`` selects."""
    for group in groups:
        for rows in group.read(columns, batch_rows):
            kept = rows if keep is None else rows.filter(pa.array(keep(rows.column("user_id"))))
            if kept.num_rows:
                yield kept


def _buffers(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[list[pa.RecordBatch]]:
    buffered: list[pa.RecordBatch] = []
    for rows in batches:
        buffered.append(rows)
        if sum(b.num_rows for b in buffered) >= size:
            yield buffered
            buffered = []
    if buffered:
        yield buffered


def _concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


class AggregateDataset(IterableDataset[AggregateBatch]):
    """The stream as a data set of ready batches, for ``DataLoader(batch_size=None)``."""

    def __init__(
        self,
        snapshots: Sequence[str],
        layout: Layout,
        batch_size: int,
        *,
        rows: int,
        shuffle_seed: Sequence[int] | None,
        keep: Keep,
        future: bool = False,
        views: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """Plan the stream. ``rows`` is the number of rows that ``keep`` leaves, for the number of batches.

        Several parts have equally many batches, each of its share of ``batch_size``, because processes train in step. A
        part with fewer rows begins again; a part with more leaves some out, others in each epoch.
        """
        self._rows, self._batch_size, self._parts = rows, batch_size, part[1]
        self._arguments = (snapshots, layout, batch_size // part[1])
        self._options: dict[str, Any] = {
            "shuffle_seed": shuffle_seed, "keep": keep, "future": future, "views": views, "part": part,
        }  # fmt: skip

    def __len__(self) -> int:
        return -(-self._rows // self._batch_size)

    def __iter__(self) -> Iterator[AggregateBatch]:
        return stream(*self._arguments, **self._options) if self._parts == 1 else islice(self._again(), len(self))

    def _again(self) -> Iterator[AggregateBatch]:
        while True:
            batch = None
            for batch in stream(*self._arguments, **self._options):
                yield batch
            if batch is None:
                raise TrainingError("no training user is in a process's row groups; lower training.processes")
