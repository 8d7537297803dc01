"""Aggregate snapshots (Parquet) -> batches for torch: streamed, shuffled, decoded without a Python loop over rows."""

# B = users of a batch, D = dense columns, W = windows, M = W * B bags, N = (bag, id) pairs of one field, V = its ids

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from gur_spark.errors import ModelError, nearest
from gur_spark.schema import FUTURE_EVENTS, PADDING_ID, Column, Manifest, future_columns
from gur_spark.snapshot_files import row_groups

Keep = Callable[[pa.Array], npt.NDArray[np.bool_]]

BUFFER_ROWS = 65_536
"""Rows that are held and shuffled together; what bounds the memory of a stream."""

READ_ROWS = 8_192
"""Rows that are decoded from Parquet at a time."""

LIFETIME = 0
"""The days of a window that has no end."""


@dataclass(frozen=True)
class Layout:
    """Names and order of a model's inputs: what a manifest and a vocabulary fix."""

    manifest: Manifest
    sizes: Mapping[str, int]
    """Height V of the table of each categorical input, a field's histograms or a column of ids: greatest id + 1."""

    @classmethod
    def of(cls, manifest: Manifest, sizes: Mapping[str, int]) -> "Layout":
        """Raises ModelError where a categorical field has no vocabulary size."""
        field_of = {field: field for field in manifest.categorical} | {c.name: c.field or "" for c in manifest.ids}
        for field in field_of.values():
            if sizes.get(field, 0) < 2:
                raise ModelError(f"field '{field}' has no vocabulary; available: {dict(sizes)}")
        return cls(manifest, {name: int(sizes[field]) for name, field in field_of.items()})

    @property
    def windows(self) -> tuple[int, ...]:
        return self.manifest.windows

    @property
    def dense(self) -> tuple[Column, ...]:
        return self.manifest.dense

    @property
    def windows_of(self) -> Mapping[str, tuple[int, ...]]:
        """The days of the windows of each categorical input, ``LIFETIME`` for one without an end."""
        histograms = dict.fromkeys(self.manifest.categorical, self.windows)
        return histograms | {c.name: (c.window_days or LIFETIME,) for c in self.manifest.ids}

    @property
    def columns(self) -> list[str]:
        """The columns a batch is made of: the numbers, the histograms of the standard windows, the single ids."""
        histograms = [
            [f"{field}_ids", *(f"{field}_counts_{w}d" for w in self.windows)] for field in self.manifest.categorical
        ]
        return [*(c.name for c in (*self.dense, *self.manifest.ids)), *chain.from_iterable(histograms)]


@dataclass(frozen=True)
class Histogram:
    """One categorical input of a batch, all its windows, in CSR form; a column of ids is one window of one event.

    Bag ``w * B + b`` is window w of user b; it has the pairs ``offsets[bag]:offsets[bag + 1]``,
    one for each id with an event in it.
    """

    ids_N: Tensor
    """int64."""
    bags_N: Tensor
    """int64; the bag of each pair."""
    shares_N: Tensor
    """float32; count / events of the bag, so that a bag sums to 1 (an empty one has no pair)."""
    offsets_M: Tensor
    """int64, W * B + 1 of them."""
    filled_M: Tensor
    """bool; whether the bag has an event."""

    def window(self, w: int, users: int) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, shares and offsets of one window's bags, as a matrix of ``users`` rows in CSR form."""
        offsets = self.offsets_M[w * users : (w + 1) * users + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return self.ids_N[first:last], self.shares_N[first:last], offsets - first

    def to(self, device: torch.device | str) -> "Histogram":
        return Histogram(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Future:
    """What B users did in the days from the snapshot's date on."""

    events_B: Tensor
    """float32."""
    histograms: Mapping[str, Histogram]
    """By categorical field, one window."""

    def to(self, device: torch.device | str) -> "Future":
        return Future(self.events_B.to(device), {name: h.to(device) for name, h in self.histograms.items()})


@dataclass(frozen=True)
class Batch:
    """The aggregates of B users."""

    dense_BD: Tensor
    """float32, NaN where the column is null."""
    histograms: Mapping[str, Histogram]
    """By categorical input."""
    future: Future | None = None
    """Where the rows have one."""

    def __len__(self) -> int:
        return len(self.dense_BD)

    def to(self, device: torch.device | str) -> "Batch":
        histograms = {name: h.to(device) for name, h in self.histograms.items()}
        return Batch(self.dense_BD.to(device), histograms, self.future.to(device) if self.future else None)

    def double(self) -> "Batch":
        """The same numbers as float64."""
        histograms = {name: replace(h, shares_N=h.shares_N.double()) for name, h in self.histograms.items()}
        return Batch(self.dense_BD.double(), histograms, self.future)


def to_batch(rows: pa.RecordBatch, layout: Layout) -> Batch:
    """Decode rows of a snapshot.

    Raises:
        ModelError: a column is missing, lists differ in length, or an id is not in the model's vocabulary.
    """
    present = rows.schema.names
    for name in sorted(set(layout.columns) - set(present)):
        raise ModelError(f"column '{name}' is not in the aggregates{nearest(name, present)}")
    dense_BD = np.empty((rows.num_rows, len(layout.dense)), dtype=np.float32)
    for position, column in enumerate(layout.dense):
        # Nulls become NaN; a column without nulls is not copied.
        dense_BD[:, position] = rows.column(column.name).to_numpy(zero_copy_only=False)
    histograms = {field: _histogram(rows, field, layout) for field in layout.manifest.categorical}
    histograms |= {column.name: _single_ids(rows, column.name, layout) for column in layout.manifest.ids}
    return Batch(torch.from_numpy(dense_BD), histograms, _future(rows, layout) if FUTURE_EVENTS in present else None)


def _future(rows: pa.RecordBatch, layout: Layout) -> Future:
    events_B = torch.from_numpy(rows.column(FUTURE_EVENTS).to_numpy().astype(np.float32))
    histograms = {}
    for field in layout.manifest.categorical:
        ids, counts = future_columns(field)
        histograms[field] = _counted(rows, field, ids, [counts], layout)
    return Future(events_B, histograms)


def _histogram(rows: pa.RecordBatch, field: str, layout: Layout) -> Histogram:
    return _counted(rows, field, f"{field}_ids", [f"{field}_counts_{w}d" for w in layout.windows], layout)


def _counted(rows: pa.RecordBatch, field: str, ids: str, counts: Sequence[str], layout: Layout) -> Histogram:
    """The histogram of a column of ids and the columns of their counts, one per window."""
    ids_N, offsets_B = _flat(rows, ids)
    _check_ids(ids_N, field, layout)
    counts_WN = np.stack([_counts(rows, name, offsets_B) for name in counts])
    # Windows are cumulative, and most ids are in the longest one only: zeros are dropped.
    window_N, pair_N = np.nonzero(counts_WN)
    rows_N = np.repeat(np.arange(rows.num_rows), np.diff(offsets_B))
    bags_N = window_N * rows.num_rows + rows_N[pair_N]
    counts_N = counts_WN[window_N, pair_N]
    bags = len(counts) * rows.num_rows
    events_M = np.bincount(bags_N, counts_N, minlength=bags)
    offsets_M = np.concatenate(([0], np.cumsum(np.bincount(bags_N, minlength=bags))))
    shares_N = (counts_N / events_M[bags_N]).astype(np.float32)
    arrays = (ids_N[pair_N].astype(np.int64), bags_N, shares_N, offsets_M, events_M > 0)
    return Histogram(*map(torch.from_numpy, arrays))


def _single_ids(rows: pa.RecordBatch, name: str, layout: Layout) -> Histogram:
    there_B = rows.column(name).is_valid().to_numpy(zero_copy_only=False)
    ids_N = rows.column(name).drop_null().to_numpy()
    _check_ids(ids_N, name, layout)
    arrays = (
        ids_N.astype(np.int64),
        np.flatnonzero(there_B),
        np.ones(len(ids_N), dtype=np.float32),
        np.concatenate(([0], np.cumsum(there_B))),
        there_B,
    )
    return Histogram(*map(torch.from_numpy, arrays))


def _check_ids(ids_N: npt.NDArray[Any], name: str, layout: Layout) -> None:
    size = layout.sizes[name]
    if len(ids_N) and not (ids_N.min() > PADDING_ID and ids_N.max() < size):
        raise ModelError(
            f"field '{name}': ids from {ids_N.min()} to {ids_N.max()}, the model's vocabulary has 1 to {size - 1}"
        )


def _counts(rows: pa.RecordBatch, name: str, offsets_B: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    counts_N, count_offsets_B = _flat(rows, name)
    if not np.array_equal(offsets_B, count_offsets_B):
        raise ModelError(f"column '{name}' has lists of other lengths than the field's ids")
    return counts_N


def _flat(rows: pa.RecordBatch, name: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Values of a list column, and where each row's begin; the last offset is the number of values."""
    lists = rows.column(name)
    if lists.null_count:
        raise ModelError(f"column '{name}' has {lists.null_count} nulls; expected lists, empty where there is no event")
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return lists.flatten().to_numpy(zero_copy_only=False), offsets - offsets[0]


def stream(
    snapshots: Sequence[str],
    layout: Layout,
    batch_size: int,
    *,
    shuffle_seed: int | Sequence[int] | None = None,
    keep: Keep | None = None,
    future: bool = False,
) -> Iterator[Batch]:
    """Batches of ``batch_size`` users (the last may be smaller) from the snapshots in these folders.

    With a seed, the order of the row groups of all snapshots and the rows within a buffer of ``BUFFER_ROWS``
    are shuffled by it; without, rows come as they lie. ``keep`` selects users by their ids. With ``future``, the
    folders are of ``pairs``, and batches have what followed.
    """
    generator = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
    rest: list[pa.RecordBatch] = []
    columns = ["user_id", *layout.columns]
    if future:
        columns += [FUTURE_EVENTS, *chain.from_iterable(future_columns(f) for f in layout.manifest.categorical)]
    for buffered in _buffers(_read(snapshots, columns, keep, generator), BUFFER_ROWS):
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
    """The user ids of a snapshot, without the rest."""
    for rows in _read([snapshot], ["user_id"], keep=None, generator=None):
        yield rows.column("user_id")


def _read(
    snapshots: Sequence[str], columns: list[str], keep: Keep | None, generator: np.random.Generator | None
) -> Iterator[pa.RecordBatch]:
    groups = [group for snapshot in snapshots for group in row_groups(snapshot)]
    order = range(len(groups)) if generator is None else generator.permutation(len(groups))
    for position in order:
        for rows in groups[position].read(columns, READ_ROWS):
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


class AggregateDataset(IterableDataset[Batch]):
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
    ) -> None:
        """``rows`` is how many rows ``keep`` leaves: a progress bar needs the number of batches."""
        self._rows, self._batch_size = rows, batch_size
        self._arguments = (snapshots, layout, batch_size)
        self._shuffle_seed, self._keep, self._future = shuffle_seed, keep, future

    def __len__(self) -> int:
        return -(-self._rows // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return stream(*self._arguments, shuffle_seed=self._shuffle_seed, keep=self._keep, future=self._future)
