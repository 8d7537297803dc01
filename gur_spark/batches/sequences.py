"""Events of users, decoded from rows of sequences without a Python loop over users."""

# B = users, N = events of all of them, C = categories, D = numbers

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gur_spark.arrays import Array, Floats, Ints
from gur_spark.batches.columns import check_columns, check_ids, flat
from gur_spark.errors import ModelError
from gur_spark.features.declare.manifest import ID_UNIT, SequenceManifest, missing_column
from gur_spark.schema import MISSING_ID, PADDING_ID
from gur_spark.splits import user_hash

DAY, HOUR = 86_400, 3_600

TIMES = ("age", "gap", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos")
"""Numbers of every event that are made of its time, in order.

``age`` is the days to ``as_of`` and ``gap`` the days from the user's event before (0 for the first one), both as log(1
+ days); hour and weekday (UTC) are points on a circle.
"""


@dataclass(frozen=True)
class SequenceLayout:
    """The inputs of a model of sequences, as a manifest and a vocabulary fix them."""

    categories: Mapping[str, int]
    """Height V of the table of each category: its greatest id + 1."""
    logarithms: Mapping[str, bool]
    """Name of a number -> whether it still has to be put on a logarithmic scale."""

    @classmethod
    def of(cls, manifest: SequenceManifest, sizes: Mapping[str, int]) -> "SequenceLayout":
        """Make the layout of a snapshot's columns; ``sizes`` are those of the vocabulary.

        Raises:
            ModelError: a categorical field is not in the vocabulary.
        """
        numbers = {
            c.name: not c.unit.startswith("signed_log1p") for c in manifest.columns if c.dtype == "array<double>"
        }
        flags = {missing_column(name) for name in numbers}
        categories = {}
        for column in manifest.columns:
            if column.unit == ID_UNIT:
                categories[column.name] = int(sizes.get(column.name, 0))
            elif column.ids and column.name not in flags:
                categories[column.name] = column.ids
        for name, size in categories.items():
            if size < 2:
                raise ModelError(f"field '{name}' has no vocabulary; available: {dict(sizes)}")
        return cls(categories, numbers)

    @property
    def lists(self) -> list[str]:
        """Columns that hold a list per user."""
        return ["event_time", *self.categories, *self.logarithms, *map(missing_column, self.logarithms)]

    @property
    def columns(self) -> list[str]:
        """Columns that events are made of."""
        return ["user_id", "as_of", *self.lists]

    @property
    def numbers(self) -> list[str]:
        """Names of the D numbers of an event: those of its time, the fields, and whether each field is missing."""
        return [*TIMES, *self.logarithms, *map(missing_column, self.logarithms)]


@dataclass(frozen=True)
class Events:
    """Events of B users, one user after the other, each user's in the order of time."""

    users_B: npt.NDArray[np.uint64]
    """Hash of each user's id: equal for rows of one user."""
    offsets: Ints
    """Positions, B + 1 of them; user b has the events ``offsets[b]:offsets[b + 1]``."""
    ids_CN: npt.NDArray[np.int32]
    numbers_ND: Floats

    def __len__(self) -> int:
        return len(self.users_B)

    @property
    def lengths_B(self) -> Ints:
        """Number of events of each user."""
        return np.diff(self.offsets)

    def take(self, users: Ints) -> "Events":
        """Select the users at these positions, in this order."""
        return self.parts(users, self.offsets[users], self.lengths_B[users])

    def parts(self, users: Ints, starts: Ints, lengths: Ints) -> "Events":
        """Select runs of ``lengths`` events that begin at ``starts``, each of the user at that position of ``users``.

        All three have one element per run; ``starts`` counts from the first event of all users.
        """
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        index_N = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        # Several times faster than indexing.
        ids_CN, numbers_ND = np.take(self.ids_CN, index_N, axis=1), np.take(self.numbers_ND, index_N, axis=0)
        return Events(self.users_B[users], offsets, ids_CN, numbers_ND)

    @staticmethod
    def together(some: Sequence["Events"]) -> "Events":
        """Join the users of several, one after the other."""
        if len(some) == 1:
            return some[0]
        lengths_B = np.concatenate([events.lengths_B for events in some])
        return Events(
            np.concatenate([events.users_B for events in some]),
            np.concatenate(([0], np.cumsum(lengths_B))),
            np.concatenate([events.ids_CN for events in some], axis=1),
            np.concatenate([events.numbers_ND for events in some]),
        )


def to_events(rows: pa.RecordBatch, layout: SequenceLayout) -> Events:
    """Decode rows of a snapshot.

    Times are computed in whole seconds and float64, and only then rounded to float32.

    Raises:
        ModelError: a column is missing, a user has no events, lists differ in length, events are not in the order
            of time or not before ``as_of``, or an id is not in the model's vocabulary.
    """
    check_columns(rows, layout.columns)
    found_N, offsets = flat(rows, "event_time")
    time_N = found_N.astype(np.int64, copy=False)
    lengths_B = np.diff(offsets)
    if not lengths_B.all():
        raise ModelError(
            f"{int((lengths_B == 0).sum())} users have no events; a snapshot of sequences has no such rows"
        )
    columns = {name: _aligned(rows, name, offsets) for name in layout.lists[1:]}
    ids_CN = np.empty((len(layout.categories), len(time_N)), dtype=np.int32)
    for position, (name, size) in enumerate(layout.categories.items()):
        # An id of 0 marks a field that the event's log does not have.
        check_ids(columns[name], name, size, first=PADDING_ID)
        ids_CN[position] = columns[name]
    numbers_ND = np.empty((len(time_N), len(layout.numbers)), dtype=np.float32)
    as_of_B = rows.column("as_of").to_numpy()
    numbers_ND[:, : len(TIMES)] = _times(time_N, np.repeat(as_of_B, lengths_B), offsets).T
    for position, (name, unscaled) in enumerate(layout.logarithms.items(), start=len(TIMES)):
        numbers_ND[:, position] = _signed_log1p(columns[name]) if unscaled else columns[name]
        numbers_ND[:, position + len(layout.logarithms)] = columns[missing_column(name)] == MISSING_ID
    return Events(user_hash(rows.column("user_id"), "sequences"), offsets, ids_CN, numbers_ND)


def _aligned(rows: pa.RecordBatch, name: str, offsets: Ints) -> npt.NDArray[Any]:
    """Values of a list column; its lists must be as long as those of the times."""
    values_N, own = flat(rows, name)
    if not np.array_equal(own, offsets):
        raise ModelError(f"column '{name}' has lists of other lengths than 'event_time'")
    return values_N


def _times(time_N: Ints, as_of_N: Ints, offsets: Ints) -> Floats:
    """Compute the numbers ``TIMES`` of each event, (6, N)."""
    age_N = as_of_N - time_N
    gap_N = np.diff(time_N, prepend=time_N[:1])
    gap_N[offsets[:-1]] = 0
    if len(time_N) and age_N.min() <= 0:
        raise ModelError(f"{int((age_N <= 0).sum())} events are at or after their row's as_of")
    if len(time_N) and gap_N.min() < 0:
        raise ModelError("events are not in the order of their time")
    made = np.empty((len(TIMES), len(time_N)), dtype=np.float32)
    made[0], made[1] = np.log1p(age_N / DAY), np.log1p(gap_N / DAY)
    # Reading a table of the hours of a week is faster than computing four functions.
    hour_N = time_N // HOUR % (7 * 24)
    hours = np.arange(7 * 24)
    for row, angle in ((2, hours / 24), (4, hours / (7 * 24))):
        made[row] = np.sin(2 * np.pi * angle).astype(np.float32)[hour_N]
        made[row + 1] = np.cos(2 * np.pi * angle).astype(np.float32)[hour_N]
    return made


def _signed_log1p(values: npt.NDArray[Any]) -> Array:
    numbers = values.astype(np.float64)
    logarithms: Array = np.sign(numbers) * np.log1p(np.abs(numbers))
    return logarithms
