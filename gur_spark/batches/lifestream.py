"""Sequences for GUR in pytorch-lifestream's data loading: records up to a date, which travels with the batch.

A record is pytorch-lifestream's feature dict: tensors of one length T per user, times in 64-bit integers, and scalars.
"""

# B = users, T = events of the longest

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, Literal, get_args

import torch
from ptls.data_load.feature_dict import FeatureDict
from ptls.data_load.padded_batch import PaddedBatch
from ptls.data_load.utils import collate_feature_dict
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from gur_spark.errors import ModelError

AS_OF = "as_of"
"""Name of a record's scalar, and of a batch's column, with the date before which its events are."""

EVENT_TIME = "event_time"

Unit = Literal["s", "ms", "us"]
"""Unit of times: seconds, milliseconds or microseconds since 1970, UTC."""

Record = Mapping[str, Any]


def per_day(unit: Unit) -> int:
    """Number of time units in a day.

    Raises:
        ModelError: there is no such unit.
    """
    units = {"s": 1, "ms": 1_000, "us": 1_000_000}
    if unit not in units:
        raise ModelError(f"unit '{unit}': expected one of {list(get_args(Unit))}")
    return 86_400 * units[unit]


def midnight(as_of: date, unit: Unit) -> int:
    """Midnight UTC of a date, since 1970."""
    start = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)
    return int(start.timestamp()) // 86_400 * per_day(unit)


class _Cut:
    """Drops the events of a record at or after its date."""

    def __init__(self, as_of: date | None, unit: Unit, col_time: str) -> None:
        self._as_of = None if as_of is None else midnight(as_of, unit)
        self._col_time = col_time

    def __call__(self, record: Record) -> dict[str, Any]:
        if self._col_time not in record:
            raise ModelError(f"a record has no '{self._col_time}'; it has {sorted(record)}")
        own = record.get(AS_OF)
        if None not in (own, self._as_of) and int(own) != self._as_of:  # type: ignore[arg-type]
            raise ModelError(f"as_of is {self._as_of} as an argument and {int(own)} in a record; give one")  # type: ignore[arg-type]
        as_of = self._as_of if own is None else int(own)
        if as_of is None:
            # An encoder that counts from the last event needs no date; another one refuses the batch.
            return dict(record)
        before_T = record[self._col_time] < as_of
        kept = record if before_T.all() else FeatureDict.seq_indexing(record, before_T)
        return {**kept, AS_OF: as_of}


def collate(records: Sequence[Record]) -> tuple[PaddedBatch, Tensor]:
    """Pad records to a batch, and number its rows; the numbers stand in place of labels and have no meaning."""
    return collate_feature_dict(records), torch.arange(len(records))


class GURDataset(Dataset[dict[str, Any]]):
    """Records by position, for ``GURModule``; it replaces ``ColesDataset``.

    Args:
        data: a sequence of records, such as ``MemoryMapDataset``.
        as_of: the date before which events count; None where the records have their own (``as_of``), as in the output
            of the job ``sequences``.
        unit: unit of ``as_of`` in the records, and of their times.
    """

    def __init__(
        self, data: Sequence[Record], as_of: date | None = None, *, unit: Unit = "s", col_time: str = EVENT_TIME
    ) -> None:
        self._data, self._cut = data, _Cut(as_of, unit, col_time)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self._cut(self._data[position])

    collate_fn = staticmethod(collate)


class GURIterableDataset(IterableDataset[dict[str, Any]]):
    """Records one after the other, for ``GURModule``; each is read when it is asked for, and none is kept.

    A pytorch-lifestream ``ParquetDataset`` (or another ``IterableDataset``) divides its files between the workers of a
    loader itself, so every record is taken. With another iterable, each worker takes its share.
    """

    def __init__(
        self, data: Iterable[Record], as_of: date | None = None, *, unit: Unit = "s", col_time: str = EVENT_TIME
    ) -> None:
        self._data, self._cut = data, _Cut(as_of, unit, col_time)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self._cut, self._share())

    def _share(self) -> Iterable[Record]:
        worker = get_worker_info()
        if worker is None or isinstance(self._data, IterableDataset):
            return self._data
        return islice(self._data, worker.id, None, worker.num_workers)

    collate_fn = staticmethod(collate)
