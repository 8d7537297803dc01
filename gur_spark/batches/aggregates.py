"""Batches of aggregates for torch, decoded from rows without a Python loop; ``streams`` reads the rows."""

# B = users of a batch, D = dense columns, W = windows, M = W * B bags, N = (bag, id) pairs of one field, V = its ids

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from gur_spark.batches.columns import check_columns, check_ids, flat, flat_counts, single
from gur_spark.batches.layout import Layout
from gur_spark.batches.pair_columns import FUTURE_EVENTS, VIEWS, future_columns, view_column


@dataclass(frozen=True)
class Histogram:
    """One categorical input of a batch, all its windows, in CSR form.

    A column of ids is one window of one event, a set of ids one window with an event of each.

    Bag ``w * B + b`` is window w of user b; it has the pairs ``offsets[bag]:offsets[bag + 1]``,
    one for each id with an event in it.
    """

    ids_N: Tensor
    """``int64``."""
    bags_N: Tensor
    """``int64``; the bag of each pair."""
    shares_N: Tensor
    """``float32``; count / events of the bag, so that a bag sums to 1 (an empty one has no pair)."""
    offsets_M: Tensor
    """``int64``, W * B + 1 of them."""
    filled_M: Tensor
    """``bool``; whether the bag has an event."""

    def window(self, w: int, users: int) -> tuple[Tensor, Tensor, Tensor]:
        """Slice one window: ids, shares and offsets of its bags, as a matrix of ``users`` rows in CSR form."""
        offsets = self.offsets_M[w * users : (w + 1) * users + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return self.ids_N[first:last], self.shares_N[first:last], offsets - first

    def to(self, device: torch.device | str) -> "Histogram":
        return Histogram(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Future:
    """Events of B users in the days from the snapshot's date on."""

    events_B: Tensor
    """``float32``."""
    histograms: Mapping[str, Histogram]
    """Categorical field -> histogram with one window."""

    def to(self, device: torch.device | str) -> "Future":
        return Future(self.events_B.to(device), {name: h.to(device) for name, h in self.histograms.items()})


@dataclass(frozen=True)
class Views:
    """Other views of the same B users. The last two among a row and its views are a positive pair."""

    batches: tuple["AggregateBatch", ...]
    """One batch, or two."""
    users_B: Tensor
    """``int64``; rows with the same number are of one user."""
    there_B: Tensor
    """``bool``; whether the user had an event in all of them."""

    def to(self, device: torch.device | str) -> "Views":
        return Views(tuple(b.to(device) for b in self.batches), self.users_B.to(device), self.there_B.to(device))


@dataclass(frozen=True)
class AggregateBatch:
    """The aggregates of B users."""

    dense_BD: Tensor
    """``float32``, NaN where the column is null."""
    histograms: Mapping[str, Histogram]
    """Categorical input -> histogram."""
    future: Future | None = None
    """The users' future, if the rows have one."""
    views: Views | None = None
    """The users' other views, if the rows have some."""

    def __len__(self) -> int:
        return len(self.dense_BD)

    def to(self, device: torch.device | str) -> "AggregateBatch":
        histograms = {name: h.to(device) for name, h in self.histograms.items()}
        return AggregateBatch(
            self.dense_BD.to(device),
            histograms,
            self.future.to(device) if self.future else None,
            self.views.to(device) if self.views else None,
        )

    def double(self) -> "AggregateBatch":
        """Convert the numbers to float64."""
        histograms = {name: replace(h, shares_N=h.shares_N.double()) for name, h in self.histograms.items()}
        return AggregateBatch(self.dense_BD.double(), histograms, self.future, self.views)


def to_batch(rows: pa.RecordBatch, layout: Layout) -> AggregateBatch:
    """Decode rows of a snapshot.

    Raises:
        ModelError: a column is missing, lists differ in length, or an id is not in the model's vocabulary.
    """
    check_columns(rows, layout.columns)
    dense_BD = np.empty((rows.num_rows, len(layout.dense)), dtype=np.float32)
    for position, column in enumerate(layout.dense):
        # Nulls become NaN. A column without nulls is not copied.
        dense_BD[:, position] = rows.column(column.name).to_numpy(zero_copy_only=False)
    histograms = {field: _histogram(rows, field, layout) for field in layout.manifest.categorical}
    histograms |= {column.name: _single_ids(rows, column.name, layout) for column in layout.manifest.ids}
    histograms |= {column.name: _sets(rows, column.name, layout) for column in layout.manifest.sets}
    return AggregateBatch(
        torch.from_numpy(dense_BD),
        histograms,
        _future(rows, layout) if FUTURE_EVENTS in rows.schema.names else None,
        _views(rows, layout),
    )


def _views(rows: pa.RecordBatch, layout: Layout) -> Views | None:
    """Decode the other views of the rows' users, if they have any."""
    active = f"events_{layout.windows[-1].name}"
    numbers = [number for number in VIEWS if view_column(number, active) in rows.schema.names]
    if not numbers:
        return None
    there_B = np.ones(rows.num_rows, dtype=np.bool_)
    for name in [active, *(view_column(number, active) for number in numbers)]:
        there_B &= pc.greater(rows.column(name).fill_null(0), 0).to_numpy(zero_copy_only=False)
    batches = []
    for number in numbers:
        columns = {name: rows.column(view_column(number, name)) for name in layout.columns}
        batches.append(to_batch(pa.RecordBatch.from_pydict(columns), layout))
    users_B = rows.column("user_id").dictionary_encode().indices.to_numpy().astype(np.int64)
    return Views(tuple(batches), torch.from_numpy(users_B), torch.from_numpy(there_B))


def _future(rows: pa.RecordBatch, layout: Layout) -> Future:
    events_B = torch.from_numpy(rows.column(FUTURE_EVENTS).to_numpy().astype(np.float32))
    histograms = {}
    for field in layout.manifest.categorical:
        ids, counts = future_columns(field)
        histograms[field] = _counted(rows, field, ids, [counts], layout)
    return Future(events_B, histograms)


def _histogram(rows: pa.RecordBatch, field: str, layout: Layout) -> Histogram:
    return _counted(rows, field, f"{field}_ids", [f"{field}_counts_{w.name}" for w in layout.windows], layout)


def _counted(rows: pa.RecordBatch, field: str, ids: str, counts: Sequence[str], layout: Layout) -> Histogram:
    """Decode the histogram of a column of ids and the columns of their counts, one per window."""
    ids_N, offsets_B = flat(rows, ids)
    check_ids(ids_N, field, layout.sizes[field])
    counts_WN = np.stack([flat_counts(rows, name, offsets_B) for name in counts])
    # Windows are cumulative, and most ids are in the longest one only, so zeros are dropped.
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
    ids_N, there_B = single(rows, name)
    check_ids(ids_N, name, layout.sizes[name])
    arrays = (
        ids_N,
        np.flatnonzero(there_B),
        np.ones(len(ids_N), dtype=np.float32),
        np.concatenate(([0], np.cumsum(there_B))),
        there_B,
    )
    return Histogram(*map(torch.from_numpy, arrays))


def _sets(rows: pa.RecordBatch, name: str, layout: Layout) -> Histogram:
    ids_N, offsets_B = flat(rows, name)
    check_ids(ids_N, name, layout.sizes[name])
    size_B = np.diff(offsets_B)
    bags_N = np.repeat(np.arange(rows.num_rows), size_B)
    shares_N = (1 / size_B[bags_N]).astype(np.float32)
    return Histogram(*map(torch.from_numpy, (ids_N.astype(np.int64), bags_N, shares_N, offsets_B, size_B > 0)))
