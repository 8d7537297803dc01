"""Whose counts an event goes into: a user's, or those of a user and one of a field's categories.

Legend: N = rows, G = groups seen so far.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Ints = np.ndarray[Any, np.dtype[np.int64]]

ID_BITS = 31
_ID_MASK = (1 << ID_BITS) - 1


@dataclass(frozen=True)
class Rows:
    """Some events of a partition, and the slot (group and band of days) that each of them is counted in."""

    table: pa.Table
    group_N: Ints
    age_N: Ints
    """Microseconds to the newest date."""
    day_N: Ints
    """Whole days to the newest date; the eve is day 0."""
    slot_N: Ints
    """group * bands + band."""

    def where(self, mask_N: Any) -> "Rows":
        """Those rows of them."""
        if mask_N.all():
            return self
        return Rows(self.table.filter(pa.array(mask_N)), *(v[mask_N] for v in self._places))

    def present(self, name: str) -> "Rows":
        """The rows with a value in this column."""
        column = self.table[name]
        return self if not column.null_count else self.where(pc.is_valid(column).to_numpy())

    @property
    def _places(self) -> tuple[Ints, Ints, Ints, Ints]:
        return self.group_N, self.age_N, self.day_N, self.slot_N


class Users:
    """User ids -> codes 0..U-1 in order of appearance."""

    def __init__(self) -> None:
        self._index = _Index()

    def __len__(self) -> int:
        return len(self._index)

    def encode(self, user_ids: pa.ChunkedArray) -> Ints:
        return self._index.encode(user_ids.combine_chunks())

    def values(self) -> pa.Array:
        return self._index.known

    def restore(self, known: pa.Array | None) -> None:
        """Give these users the codes 0, 1, 2 ..."""
        self._index.known = known

    def name(self, code: int) -> str:
        return repr(self._index.value(code))


class Pairs:
    """(user, id of a category) -> codes 0..G-1 in order of appearance."""

    def __init__(self, users: Users) -> None:
        self._users, self._index = users, _Index()

    def __len__(self) -> int:
        return len(self._index)

    def encode(self, user_N: Ints, id_N: Ints) -> Ints:
        return self._index.encode(pa.array((user_N << ID_BITS) | id_N))

    def values(self) -> pa.Array:
        """The pairs as `user << 31 | id`, in the order of their codes."""
        return self._index.known

    def restore(self, known: pa.Array | None) -> None:
        """Give these pairs the codes 0, 1, 2 ..."""
        self._index.known = known

    def encode_all(self, other: "Pairs", code_U: Ints) -> Ints:
        """The codes of another's pairs, whose user u is user ``code_U[u]`` here."""
        if not len(other):
            return np.zeros(0, np.int64)
        pair_P = as_numpy(other.values())
        return self.encode(code_U[pair_P >> ID_BITS], pair_P & _ID_MASK)

    def find(self, pair_P: Ints) -> pa.Array:
        """The code of each pair, as `user << 31 | id`; null for one without events."""
        if not len(self):
            return pa.nulls(len(pair_P), pa.int32())
        return pc.index_in(pa.array(pair_P), value_set=self._index.known)

    def name(self, code: int) -> str:
        pair = self._index.value(code)
        return f"{self._users.name(pair >> ID_BITS)} (id {pair & _ID_MASK})"


Groups = Users | Pairs


class _Index:
    """Values -> codes in order of appearance."""

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
    """As int64; the columns that come here have no nulls."""
    array: Ints = np.asarray(values, dtype=np.int64)
    return array
