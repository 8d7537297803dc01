"""Drift of sequences: statistics of each user's events, against those of a reference.

They are the number of events, the days since the last one, the mean of each number, and the shares of each category's
ids among the events. All users have the same weight.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from gur_spark.arrays import Array
from gur_spark.features.declare.manifest import SequenceManifest, missing_column
from gur_spark.monitoring.features import Distribution, of_ids, of_numbers, shares_of_lists
from gur_spark.schema import VALUE_ID

DAY_SECONDS = 86_400


def measured_lists(manifest: SequenceManifest) -> list[str]:
    """Columns that ``compare_sequences`` reads."""
    return [column.name for column in manifest.columns if column.name != "user_id"]


def measured_subjects(manifest: SequenceManifest) -> list[str]:
    """Names of the distributions that ``compare_sequences`` gives."""
    means = [f"{column.name}_mean" for column in manifest.columns if column.dtype == "array<double>"]
    return ["events", "recency_days", *means, *manifest.categories]


def compare_sequences(
    before: pa.Table, after: pa.Table, manifest: SequenceManifest, sizes: Mapping[str, int]
) -> Iterator[Distribution]:
    """Distribution of each statistic of users' events.

    Args:
        before, after: rows of the reference and of the snapshot, with the columns of ``measured_lists``.
        sizes: category -> greatest id + 1 in the reference's vocabulary; empty where both sides have the same.
    """
    sides = (before, after)
    yield of_numbers("events", *map(_events, sides))
    yield of_numbers("recency_days", *map(_recency_days, sides))
    for column in manifest.columns:
        if column.dtype == "array<double>":
            yield of_numbers(f"{column.name}_mean", *(_means(side, column.name) for side in sides))
    for name in manifest.categories:
        yield of_ids(name, name, sizes, *(shares_of_lists(side, name) for side in sides))


def _events(rows: pa.Table) -> Array:
    return _lengths(rows).astype(np.float64)


def _lengths(rows: pa.Table) -> np.ndarray:
    lengths: np.ndarray = rows["event_time"].combine_chunks().value_lengths().to_numpy()
    return lengths


def _recency_days(rows: pa.Table) -> Array:
    """Days from the newest event to as_of. Every user of a snapshot has an event."""
    lengths, times = _lengths(rows), rows["event_time"].combine_chunks().flatten().to_numpy()
    days: Array = (rows["as_of"].to_numpy() - times[np.cumsum(lengths) - 1]) / DAY_SECONDS
    return days


def _means(rows: pa.Table, name: str) -> Array:
    """Mean over the events that have the number; NaN where none has it."""
    owners = np.repeat(np.arange(len(rows)), _lengths(rows))
    there = rows[missing_column(name)].combine_chunks().flatten().to_numpy() == VALUE_ID
    values = rows[name].combine_chunks().flatten().to_numpy()
    count = np.bincount(owners[there], minlength=len(rows))
    total = np.bincount(owners[there], values[there], minlength=len(rows))
    means: Array = np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)
    return means
