"""Groups that events are counted for: users, or users and one category of a field.

Legend of array shapes: N = rows, U = users, G = groups seen so far, P = (user, id) pairs, V = ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.arrays import Ints

ID_BITS = 31
_ID_MASK = (1 << ID_BITS) - 1


@dataclass(frozen=True)
class PlacedRows:
    """Rows of a partition with the slot (group and tile) that each is counted in."""

    table: pa.Table
    group_N: Ints
    age_N: Ints
    """Microseconds from each event to the newest date."""
    unit_N: Ints
    """Whole units of the tiles (days or hours) from each event to the newest date; the last one before it is 0."""
    slot_N: Ints
    """``group * tiles + tile``."""

    def where(self, mask_N: Any) -> "PlacedRows":
        """The rows for which the mask is true."""
        if mask_N.all():
            return self
        return PlacedRows(self.table.filter(pa.array(mask_N)), *(v[mask_N] for v in self._places))

    def present(self, name: str) -> "PlacedRows":
        """The rows that have a value in this column."""
        column = self.table[name]
        return self if not column.null_count else self.where(pc.is_valid(column).to_numpy())

    @property
    def _places(self) -> tuple[Ints, Ints, Ints, Ints]:
        return self.group_N, self.age_N, self.unit_N, self.slot_N


class UserGroups:
    """Users, numbered in the order in which they appear."""

    def __init__(self) -> None:
        self._index = _Index()

    def __len__(self) -> int:
        return len(self._index)

    def encode(self, user_ids: pa.ChunkedArray) -> Ints:
        return self._index.encode(user_ids.combine_chunks())

    def values(self) -> pa.Array:
        return self._index.known

    def restore(self, known: pa.Array | None) -> None:
        """Give these users the codes 0, 1, 2, and so on."""
        self._index.known = known

    def name(self, code: int) -> str:
        return repr(self._index.value(code))


class CategoryGroups:
    """Pairs of a user and a category's id, numbered in the order in which they appear."""

    def __init__(self, users: UserGroups) -> None:
        self._users, self._index = users, _Index()

    def __len__(self) -> int:
        return len(self._index)

    def encode(self, user_N: Ints, id_N: Ints) -> Ints:
        return self._index.encode(pa.array((user_N << ID_BITS) | id_N))

    def values(self) -> pa.Array:
        """The pairs as ``user << 31 | id``, in the order of their codes."""
        return self._index.known

    def restore(self, known: pa.Array | None) -> None:
        """Give these pairs the codes 0, 1, 2, and so on."""
        self._index.known = known

    def encode_all(self, other: "CategoryGroups", code_U: Ints) -> Ints:
        """Codes here for all pairs of another object, whose user u is user ``code_U[u]`` here."""
        if not len(other):
            return np.zeros(0, np.int64)
        pair_P = as_numpy(other.values())
        return self.encode(code_U[pair_P >> ID_BITS], pair_P & _ID_MASK)

    def find(self, pair_P: Ints) -> pa.Array:
        """The code of each pair, given as ``user << 31 | id``; null for a pair without events."""
        if not len(self):
            return pa.nulls(len(pair_P), pa.int32())
        return pc.index_in(pa.array(pair_P), value_set=self._index.known)

    def places(self, ids: Sequence[int], users: int) -> Ints:
        """The code of each user's pair with each of some ids, (V, U); -1 for a pair without events."""
        place_VU = np.full((len(ids), users), -1)
        if len(self) and ids:
            pair_P = as_numpy(self.values())
            of_id = np.full(max(*ids, int((pair_P & _ID_MASK).max())) + 1, -1)
            of_id[ids] = np.arange(len(ids))
            place_P = of_id[pair_P & _ID_MASK]
            [wanted_P] = np.nonzero(place_P >= 0)
            place_VU[place_P[wanted_P], pair_P[wanted_P] >> ID_BITS] = wanted_P
        return place_VU

    def name(self, code: int) -> str:
        pair = self._index.value(code)
        return f"{self._users.name(pair >> ID_BITS)} (id {pair & _ID_MASK})"


Groups = UserGroups | CategoryGroups


class _Index:
    """Values, numbered in the order in which they appear."""

    def __init__(self) -> None:
        self.known: pa.Array | None = None

    def __len__(self) -> int:
        return 0 if self.known is None else len(self.known)

    def value(self, code: int) -> Any:
        assert self.known is not None
        return self.known[code].as_py()

    def encode(self, values: pa.Array) -> Ints:
        encoded = values.dictionary_encode()
        if self.known is None:
            self.known = encoded.dictionary
            return as_numpy(encoded.indices)
        found = pc.index_in(encoded.dictionary, value_set=self.known)
        new = pc.is_null(found)
        code_of_entry = as_numpy(pc.fill_null(found, 0)).copy()
        fresh = new.to_numpy(zero_copy_only=False)
        code_of_entry[fresh] = len(self) + np.arange(int(fresh.sum()))
        self.known = pa.concat_arrays([self.known, encoded.dictionary.filter(new)])
        return code_of_entry[as_numpy(encoded.indices)]


def as_numpy(values: Any) -> Ints:
    """Values as int64; they must have no nulls."""
    array: Ints = np.asarray(values, dtype=np.int64)
    return array
