"""Snapshots of sequences (Parquet) as batches of users, shuffled within a buffer.

An epoch is a function of the snapshots, the seed, the epoch and the number of parts: parts are processes that train in
step. Each row is in one batch of one part, all parts have equally many batches, and a part's batches have equally many
users, give or take one. A part reads its own row groups and holds about ``BUFFER_EVENTS`` events.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from torch.utils.data import IterableDataset, get_worker_info

from gur_spark.arrays import Mask
from gur_spark.batches.sequences import Events, SequenceLayout, to_events
from gur_spark.batches.shares import assign, split_evenly, split_like
from gur_spark.batches.streams import Keep, read_groups
from gur_spark.errors import SnapshotError, TrainingError
from gur_spark.snapshots.files import RowGroup, row_groups
from gur_spark.splits import validation_side

BUFFER_EVENTS = 1 << 21
"""Events that are held, and whose users are shuffled together. It bounds the memory of a stream."""

READ_ROWS = 1_024
"""Rows that are decoded from Parquet at a time."""

Part = tuple[int, int]
"""Share k of n, as (k, n)."""

T = TypeVar("T", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Side:
    """Rows of snapshots on one side of the split of users."""

    groups: Sequence[RowGroup]
    rows: Sequence[int]
    """Number of rows of each row group that are on this side."""
    keep: Keep
    """Function that selects the side's users by their ids."""

    @property
    def total(self) -> int:
        """Number of rows; a user of two snapshots has two."""
        return sum(self.rows)

    def events(self, layout: SequenceLayout) -> Iterator[Events]:
        """Decode all rows as they lie, a piece at a time."""
        filled = [group for group, rows in zip(self.groups, self.rows, strict=True) if rows]
        for rows in read_groups(filled, layout.columns, READ_ROWS, self.keep):
            yield to_events(rows, layout)


def split_sides(snapshots: Sequence[str], validation_share: float, seed: int) -> tuple[Side, Side]:
    """Split the snapshots in these folders into the training side and the validation side; it reads the user ids.

    Raises:
        SnapshotError: a snapshot has no rows.
        TrainingError: a side has no rows.
    """
    groups, counts = [], []
    for snapshot in snapshots:
        own = row_groups(snapshot)
        if not sum(group.rows for group in own):
            raise SnapshotError(f"snapshot {snapshot} is empty: there is nobody to train on")
        for group in own:
            held_out = [
                int(validation_side(rows.column("user_id"), validation_share, seed).sum())
                for rows in group.read(["user_id"], 1 << 16)
            ]
            groups.append(group)
            counts.append((group.rows - sum(held_out), sum(held_out)))
    for side, rows in zip(("training", "validation"), zip(*counts, strict=True), strict=True):
        if not sum(rows):
            raise TrainingError(
                f"no user is on the {side} side: {sum(map(sum, counts))} rows, training.validation_share="
                f"{validation_share}"
            )
    keeps: tuple[Keep, Keep] = (
        partial(_is_on_side, False, validation_share, seed),
        partial(_is_on_side, True, validation_share, seed),
    )
    training, validation = (
        Side(groups=groups, rows=[count[side] for count in counts], keep=keeps[side]) for side in (0, 1)
    )
    return training, validation


def _is_on_side(validation: bool, share: float, seed: int, users: pa.Array) -> Mask:
    held_out = validation_side(users, share, seed)
    return held_out if validation else ~held_out


class SequenceDataset(IterableDataset[T], Generic[T]):
    """Batches of one part of an epoch, each made ready by ``prepare``, for ``DataLoader(batch_size=None)``.

    Workers of a loader share the part's row groups as parts share the epoch's. Each worker has a generator of its own.
    """

    def __init__(
        self,
        side: Side,
        layout: SequenceLayout,
        batch_size: int,
        prepare: Callable[[Events, np.random.Generator], T],
        *,
        seed: Sequence[int],
        shuffle: bool,
        part: Part = (0, 1),
        least: int = 1,
    ) -> None:
        """Plan the epoch.

        Args:
            batch_size: users of a batch of all parts together, at most about: a part with more rows than others has
                larger batches.
            prepare: function that makes the batch of its users' events, with a generator of this epoch and part.
            seed: seed of the order of row groups and users, and of ``prepare``.
            shuffle: False: rows come in the order of the files.
            least: users that a batch must have.

        Raises:
            TrainingError: a part would have batches of fewer users.
        """
        self._side, self._layout, self._prepare, self._seed, self._part = side, layout, prepare, seed, part
        self._shuffle, self._batches = shuffle, -(-side.total // batch_size)
        self._least = least
        order = [int(position) for position in np.flatnonzero(side.rows)]
        if shuffle:
            order = np.random.default_rng(seed).permutation(order).tolist()
        shares = assign([side.rows[position] for position in order], part[1])
        self._groups = [order[place] for place in shares[part[0]]]
        fewest = min(sum(side.rows[order[place]] for place in share) for share in shares)
        if fewest < least * self._batches:
            raise TrainingError(
                f"a batch needs {least} users, and a process would have {fewest} for {self._batches} batches "
                f"({side.total} users in {len(order)} row groups, training.processes={part[1]}, "
                f"training.batch_size={batch_size}); train on more users, or lower training.processes"
            )

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[T]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        rows = [self._side.rows[position] for position in self._groups]
        shares = assign(rows, min(workers, len(rows), self._batches))
        held = [sum(rows[place] for place in share) for share in shares]
        if number >= len(shares):
            return
        groups = [self._side.groups[self._groups[place]] for place in shares[number]]
        generator = np.random.default_rng([*self._seed, *self._part, number])
        sizes = split_evenly(held[number], split_like(self._batches, held)[number])
        if sizes[-1] < self._least:
            raise TrainingError(f"a loader worker would have batches of {sizes[-1]} users; use fewer than {workers}")
        for events in self._users(groups, sizes, generator):
            yield self._prepare(events, generator)

    def _users(
        self, groups: Sequence[RowGroup], sizes: Sequence[int], generator: np.random.Generator
    ) -> Iterator[Events]:
        """Yield the users of each batch: the next ``sizes`` of a buffer, which is shuffled whenever it is filled."""
        ahead = iter(sizes)
        size = next(ahead, 0)
        rest: list[Events] = []
        for buffered in self._buffers(groups):
            events = Events.together([*rest, *buffered])
            order = generator.permutation(len(events)) if self._shuffle else np.arange(len(events))
            start = 0
            while size and start + size <= len(order):
                yield events.take(order[start : start + size])
                start, size = start + size, next(ahead, 0)
            rest = [events.take(order[start:])] if start < len(order) else []

    def _buffers(self, groups: Sequence[RowGroup]) -> Iterator[list[Events]]:
        buffered: list[Events] = []
        for rows in read_groups(groups, self._layout.columns, READ_ROWS, self._side.keep):
            buffered.append(to_events(rows, self._layout))
            if sum(int(events.offsets[-1]) for events in buffered) >= BUFFER_EVENTS:
                yield buffered
                buffered = []
        if buffered:
            yield buffered
