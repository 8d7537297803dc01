"""Packing of an event's age and categories into as few 64-bit words as possible.

A shuffled row takes 8 bytes per column, and each value of each column is copied on its own on its way to Python, so
fewer columns are faster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WORD_BITS = 63
"""Bits of a word that are used; the sign stays free."""


@dataclass(frozen=True)
class Place:
    """Place of a value from 0 to 2^bits - 1 in the words."""

    word: int
    shift: int
    bits: int


@dataclass(frozen=True)
class Packing:
    """Places of named values in the words ``_word_0``, ``_word_1`` and so on."""

    places: Mapping[str, Place]

    @classmethod
    def of(cls, bits: Mapping[str, int]) -> "Packing":
        """Give each value a place, the widest first, in the first word with room.

        Args:
            bits: name of a value -> its bits, at most 63.
        """
        places: dict[str, Place] = {}
        filled: list[int] = []
        for name in sorted(bits, key=lambda n: -bits[n]):
            word = next((w for w, used in enumerate(filled) if used + bits[name] <= WORD_BITS), len(filled))
            if word == len(filled):
                filled.append(0)
            places[name] = Place(word, filled[word], bits[name])
            filled[word] += bits[name]
        return cls(places)

    @property
    def words(self) -> list[str]:
        return [f"_word_{n}" for n in range(1 + max(place.word for place in self.places.values()))]

    def unpack(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows with the values, as int64, instead of the words; a value is null where its word is."""
        others = [name for name in rows.schema.names if name not in self.words]
        words = [_bits(rows.column(name)) for name in self.words]
        columns = [rows.column(name) for name in others]
        columns += [_value(*words[place.word], place) for place in self.places.values()]
        return pa.RecordBatch.from_arrays(columns, names=[*others, *self.places])


def _bits(word: pa.Array) -> tuple[Any, Any]:
    """A word as integers, and a mask of its nulls, or None where there are none."""
    if not word.null_count:
        return word.to_numpy(), None
    return pc.fill_null(word, 0).to_numpy(), word.is_null().to_numpy(zero_copy_only=False)


def _value(word: Any, null: Any, place: Place) -> pa.Array:
    return pa.array((word >> place.shift) & np.int64((1 << place.bits) - 1), mask=null)
