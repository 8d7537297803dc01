"""A checksum over rows that does not depend on their order, their files, the engine or the machine."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.splits import mixed, user_hash

Hashes = np.ndarray[Any, np.dtype[np.uint64]]

_VALUE, _PLACE = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
_NULL = np.float64(np.nan)
"""Aggregates hold no NaN, so NaN can stand for null."""


def checksum(table: pa.Table) -> int:
    """Sum of the rows' hashes modulo 2^64, so that checksums of parts add up to the checksum of the whole."""
    return int(row_hashes(table).sum(dtype=np.uint64))


def row_hashes(table: pa.Table) -> Hashes:
    """A 64-bit hash of each row.

    It depends on every value of the row, on the value's column and, in a list, on its place. Columns may hold whole
    numbers, doubles other than NaN and -0.0, dates, times, lists of numbers, and text. Only numbers may be null.
    """
    row_N = np.zeros(table.num_rows, np.uint64)
    places = _Places(np.zeros(1, np.int64))
    for column in table.columns:
        values = column.combine_chunks()
        if pa.types.is_list(values.type):
            offsets = values.offsets.to_numpy().astype(np.int64)
            # The lists of one field are equally long, so most of the work is done once for all of them.
            places = places if np.array_equal(offsets, places.offsets) else _Places(offsets)
            row_N = mixed(row_N + places.hashes(values))
        else:
            row_N = mixed(row_N + _hashes(values))
    return row_N


def _hashes(column: pa.Array) -> Hashes:
    if pa.types.is_string(column.type):
        return user_hash(column, "content")
    if pa.types.is_date32(column.type):
        column = column.cast(pa.int32())
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return mixed(_bits(column))


def _bits(column: pa.Array) -> Hashes:
    """The 64 bits of each number; null has the bits of NaN."""
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        return np.ascontiguousarray(np.where(np.isnan(values), _NULL, values)).view(np.uint64)
    if column.null_count:
        whole = pc.fill_null(column, 0).to_numpy().astype(np.int64).view(np.uint64)
        hashes: Hashes = np.where(column.is_null().to_numpy(zero_copy_only=False), _NULL.view(np.uint64), whole)
        return hashes
    numbers: Hashes = column.to_numpy().astype(np.int64).view(np.uint64)
    return numbers


class _Places:
    """Place of each value of a list column in its list."""

    def __init__(self, offsets: Any) -> None:
        self.offsets = offsets
        self._first, self._lengths = offsets[:-1] - offsets[0], np.diff(offsets)
        place_N = np.arange(offsets[-1] - offsets[0]) - np.repeat(self._first, self._lengths)
        self._place_N = place_N.view(np.uint64) * _PLACE

    def hashes(self, column: pa.Array) -> Hashes:
        """Hash of each list: the sum over its values of a hash of value and place."""
        value_N = _bits(column.values.slice(self.offsets[0], self.offsets[-1] - self.offsets[0]))
        # Two odd factors far apart, so that changes of a value and of a place do not cancel out.
        element_N = mixed(value_N * _VALUE + self._place_N)
        sums = np.append(np.uint64(0), np.cumsum(element_N, dtype=np.uint64))
        return mixed(sums[self._first + self._lengths] - sums[self._first] + self._lengths.view(np.uint64))
