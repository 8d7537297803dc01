"""An event's age and categories in as few 64-bit words as they fit: what Spark moves is words, not columns.

A shuffled row takes 8 bytes per column, and each value of each column is copied one by one on its way to Python.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WORD_BITS = 63
"""The sign stays free."""


@dataclass(frozen=True)
class Part:
    """Where one value of 0 to 2^bits - 1 lies."""

    word: int
    shift: int
    bits: int


@dataclass(frozen=True)
class Packing:
    """Places of named values in words ``_word_0``, ``_word_1`` and so on."""

    parts: Mapping[str, Part]

    @classmethod
    def of(cls, bits: Mapping[str, int]) -> "Packing":
        """Give each value of so many bits (at most 63) a place: the widest first, in the first word with room."""
        parts: dict[str, Part] = {}
        filled: list[int] = []
        for name in sorted(bits, key=lambda n: -bits[n]):
            word = next((w for w, used in enumerate(filled) if used + bits[name] <= WORD_BITS), len(filled))
            if word == len(filled):
                filled.append(0)
            parts[name] = Part(word, filled[word], bits[name])
            filled[word] += bits[name]
        return cls(parts)

    @property
    def words(self) -> list[str]:
        return [f"_word_{n}" for n in range(1 + max(part.word for part in self.parts.values()))]

    def unpack(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the values, as int64, in place of the words; null where the word is."""
        kept = [name for name in rows.schema.names if name not in self.words]
        words = [_bits(rows.column(name)) for name in self.words]
        columns = [rows.column(name) for name in kept]
        columns += [_part(*words[part.word], part) for part in self.parts.values()]
        return pa.RecordBatch.from_arrays(columns, names=[*kept, *self.parts])


def _bits(word: pa.Array) -> tuple[Any, Any]:
    """The word as integers, and where it is null (None: nowhere)."""
    if not word.null_count:
        return word.to_numpy(), None
    return pc.fill_null(word, 0).to_numpy(), word.is_null().to_numpy(zero_copy_only=False)


def _part(word: Any, null: Any, part: Part) -> pa.Array:
    return pa.array((word >> part.shift) & np.int64((1 << part.bits) - 1), mask=null)
