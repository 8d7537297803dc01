"""Hand-made statistics as a baseline: pytorch-lifestream's ``AggFeatureSeqEncoder`` on sequence snapshots.

It sees the events of a user in the window of the sequences, before ``as_of``, and nothing else. It needs the extra
``sequences``.
"""

# N = users, H = statistics, T = events of a user

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from gur_spark.arrays import Array
from gur_spark.extras import report_library
from gur_spark.features.declare.manifest import SequenceManifest
from gur_spark.schema import UNKNOWN_ID
from gur_spark.snapshots.files import read_manifest, read_vocabulary_ref, row_groups

Record = dict[str, Any]
"""The events of one user: tensors (T,) by column."""

MOST_IDS = 50
"""Ids of a category with columns of their own. Each id costs several columns; rarer ids share one."""

BATCH_CELLS = 1 << 23
"""Cells (users times events times ids) that are held at a time: 32 MB per statistic."""


def hand_made(folder: str, users: pa.Array) -> Array:
    """Compute counts, sums, means and deviations of each number, alone and by category, (N, H), on a logarithmic scale.

    A user without events in the window has 0 everywhere.

    Args:
        folder: folder of a sequence snapshot.
    """
    ids, numbers = _columns(folder)
    seq_encoder = report_library("ptls.nn").AggFeatureSeqEncoder(
        embeddings={name: {"in": min(size, MOST_IDS)} for name, size in ids.items()},
        numeric_values=dict.fromkeys(numbers or ["#ones"], "identity"),
        was_logified=False,
    )
    made_NH = np.zeros((len(users), seq_encoder.embedding_size))
    cells = max([1, *(min(size, MOST_IDS) for size in ids.values())])
    common = partial(_without_rare_ids, names=list(ids))
    records = _records(folder, [*ids, *numbers], users)
    with _one_thread(), torch.inference_mode():
        for positions, some in _batches(map(common, records), cells):
            made_NH[positions] = seq_encoder(_padded(some)).double().numpy()
    return np.asarray(np.sign(made_NH) * np.log1p(np.abs(made_NH)))


def _columns(folder: str) -> tuple[dict[str, int], list[str]]:
    """List the categories with their sizes, and the numbers. Missing flags of numbers are not categories."""
    manifest, sizes = read_manifest(folder, SequenceManifest), read_vocabulary_ref(folder).sizes
    ids = {
        column.name: column.ids or sizes[column.name]
        for column in manifest.columns
        if column.dtype == "array<int>" and not column.name.endswith("_missing")
    }
    return ids, [column.name for column in manifest.columns if column.dtype == "array<double>"]


def _records(folder: str, names: Sequence[str], users: pa.Array) -> Iterator[tuple[int, Record]]:
    """Yield the events of each user, with the user's position in ``users``."""
    columns = ["user_id", "event_time", *names]
    for group in row_groups(folder):
        for rows in group.read(columns, 4096):
            position = pc.index_in(rows.column("user_id"), users)
            chosen = rows.filter(position.is_valid())
            lists = {name: chosen.column(name) for name in columns[1:]}
            flat = {name: torch.from_numpy(values.flatten().to_numpy().copy()) for name, values in lists.items()}
            first = np.concatenate([[0], np.cumsum(lists["event_time"].value_lengths().to_numpy())])
            for row, place in enumerate(position.drop_null().to_numpy()):
                yield int(place), {name: values[first[row] : first[row + 1]] for name, values in flat.items()}


def _without_rare_ids(placed: tuple[int, Record], names: Sequence[str]) -> tuple[int, Record]:
    place, record = placed
    return place, record | {name: torch.where(record[name] < MOST_IDS, record[name], UNKNOWN_ID) for name in names}


def _batches(placed: Iterable[tuple[int, Record]], cells: int) -> Iterator[tuple[list[int], list[Record]]]:
    """Group users in turn into batches that fit ``BATCH_CELLS`` when each user is padded to the longest."""
    positions: list[int] = []
    records: list[Record] = []
    longest = 0
    for position, record in placed:
        longest = max(longest, len(record["event_time"]))
        if records and longest * (len(records) + 1) * cells > BATCH_CELLS:
            yield positions, records
            positions, records, longest = [], [], len(record["event_time"])
        positions.append(position)
        records.append(record)
    if records:
        yield positions, records


def _padded(records: Sequence[Record]) -> Any:
    return report_library("ptls.data_load.utils").collate_feature_dict(records)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread.

    Batches are small: with more threads they mostly wait for one another when another process has a core.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
