"""Raw rows of one file as columns of text."""

# N = rows

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, kw_only=True)
class RawRows:
    """N raw rows as text, before their fields are parsed."""

    texts: Mapping[str, pa.StringArray]
    """Raw column -> its N texts; null where the row has no value."""
    problem: pa.StringArray
    """Reason code of a row that cannot be split into columns, else null."""
    numbers: frozenset[str] = frozenset()
    """Raw columns that hold numbers and no text, which have a decimal point whatever separators texts have."""
    lines: pa.StringArray | None = None
    """The rows as they were delivered; None for rows that have types."""

    def __len__(self) -> int:
        return len(self.problem)

    def delivered(self, rows: pa.BooleanArray) -> pa.StringArray:
        """The chosen rows as they were delivered; rows that have types as JSON of the mapped columns."""
        if self.lines is not None:
            return self.lines.filter(rows)
        texts = {name: values.filter(rows).to_pylist() for name, values in self.texts.items()}
        made = [
            json.dumps(
                {name: text for name, text in zip(texts, row, strict=True) if text is not None}, ensure_ascii=False
            )
            for row in zip(*texts.values(), strict=True)
        ]
        return pa.array(made, pa.string())


def nulls(rows: int) -> pa.StringArray:
    """So many null texts."""
    return pa.nulls(rows, pa.string())


def first_of(reasons: Sequence[tuple[str, pa.BooleanArray]], rows: int) -> pa.StringArray:
    """Reason code of the first condition that is true for each row, else null."""
    found = nulls(rows)
    for code, condition in reversed(reasons):
        if pc.any(condition).as_py():
            found = pc.if_else(pc.fill_null(condition, False), code, found)
    return found
