"""Pivots: one column per value of a category, such as the mean of each measured parameter.

``Pivot(by="parameter", of="value", operations=["mean", "last"], top=40)`` is one entry of ``aggregates.pivots``. The
vocabulary says which values these are and which ids they have; the manifest holds the outcome, a ``Pivoted``.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from gur_spark.errors import nearest
from gur_spark.features.declare.spec import Aggregation, Chosen, Declared, Several, check_condition, check_windows
from gur_spark.features.declare.windows import Window
from gur_spark.schema import FIRST_VALUE_ID

LONGEST_NAME = 40
"""Most letters of a value that a column's name takes."""


class PivotValue(Declared):
    """A value of the category that has columns of its own."""

    value: str
    id: int
    """Id in the vocabulary, which stays the same from fit to fit."""
    name: str
    """The value in the names of its columns."""

    @classmethod
    def of(cls, value: str, id: int) -> "PivotValue":
        """Make a value with a plain name: letters a to z, digits and underscores, and its id if the name is cut."""
        plain = _plain(value)
        named = cls(value=value, id=id, name=plain)
        return named if 0 < len(plain) <= LONGEST_NAME else named.numbered()

    def numbered(self) -> "PivotValue":
        """The value with its id at the end of its name."""
        name = f"{_plain(self.value)[:LONGEST_NAME]}_{self.id}".lstrip("_")
        return self.model_copy(update={"name": name})


class Pivoted(Aggregation):
    """A pivot with its values: operations on a number, for each of these values of the category ``by``."""

    values: tuple[PivotValue, ...]

    @property
    def subject(self) -> str:
        return "_".join(part for part in (self.name, self.field) if part)


class Pivot(Declared):
    """Operations on a number with one column for each of some values of a category."""

    by: str
    """Name of the categorical field whose values have columns."""
    of: str
    """Name of the numeric field."""
    operations: Several[Chosen] = Field(min_length=1)
    top: int | None = Field(default=None, ge=1, le=1000)
    """Number of values: the first ones of the vocabulary, which were the most frequent ones when it was first made."""
    values: Several[Annotated[str, Field(min_length=1)]] = ()
    """The values, in place of ``top``."""
    windows: Several[Window] = ()
    """Windows; if empty, those of ``aggregates.windows``."""
    where: str | None = Field(default=None, min_length=1)
    """Condition on the events that count, as in ``aggregates.features``."""
    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """Prefix of the columns' names; required with a condition."""

    @model_validator(mode="after")
    def _consistent(self) -> "Pivot":
        if (self.top is None) == (not self.values):
            raise ValueError("expected either 'top' (a number of values) or 'values' (a list of them)")
        twice = [value for value, count in Counter(self.values).items() if count > 1]
        if twice:
            raise ValueError(f"value '{twice[0]}' is given twice")
        check_condition(self.where, self.name)
        check_windows(self.windows)
        return self

    def pivoted(self, ids: Mapping[str, int] | None) -> Pivoted:
        """The pivot with its values and their ids. Their names may be alike until the manifest is made.

        Args:
            ids: values of the category -> ids in the vocabulary; None: the vocabulary is not known, and the pivot has
                no columns yet.

        Raises:
            ValueError: the vocabulary has not so many values, or one of the values is not in it.
        """
        chosen = {} if ids is None else self._chosen(ids)
        return Pivoted(
            field=self.of,
            operations=self.operations,
            windows=self.windows,
            where=self.where,
            by=self.by,
            name=self.name,
            values=tuple(PivotValue.of(value, id) for value, id in chosen.items()),
        )

    def _chosen(self, ids: Mapping[str, int]) -> dict[str, int]:
        if self.top is not None and self.top > len(ids):
            raise ValueError(f"top: expected at most {len(ids)}, the values of '{self.by}' in the vocabulary")
        if self.top is not None:
            return {value: i for value, i in sorted(ids.items(), key=lambda v: v[1]) if i < FIRST_VALUE_ID + self.top}
        for value in self.values:
            if value not in ids:
                raise ValueError(
                    f"values: the vocabulary has no '{value}' of '{self.by}'{nearest(value, list(ids))} (it has no "
                    "values that are rarer than vocabulary.min_count)"
                )
        return {value: ids[value] for value in self.values}


def _plain(value: str) -> str:
    latin = unicodedata.normalize("NFKD", value).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", latin.lower()).strip("_")
