"""Declarations of features: aggregations of a field over windows, in YAML or in Python.

``Aggregation(field="amount", operations=["sum", {"last_k": 3}], windows=[7, 30], where="channel = 'web'", name="web")``
is one entry of ``aggregates.features``. The operations are in ``gur_spark.features.operations``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gur_spark.features.declare.windows import Length, Window

T = TypeVar("T")

_NOW_OR_CHANCE = re.compile(
    r"\b(rand|randn|random|randstr|uniform|uuid|shuffle|now|curdate|current_\w+|localtimestamp|monotonically_increasing_id|"
    r"spark_partition_id|input_file_\w+)\b\s*\(|\b(current_date|current_timestamp|current_time|localtimestamp)\b"
    r"|\b(unix_timestamp)\s*\(\s*\)",
    re.IGNORECASE,
)
_LITERAL = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")

NUMERIC_STATISTICS = ("count", "sum", "mean", "std", "min", "max")
"""Operations on each number that every pipeline has."""

Parameter = int | float | str | tuple[float, ...]
"""Parameter of an operation, as in ``{last_k: 3}``, ``{quantiles: [0.5, 0.9]}``, ``{hours: Europe/Berlin}``."""


class Declared(BaseModel):
    """A declaration, which cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Chosen(Declared):
    """A declared operation and its parameter."""

    name: str
    parameter: Parameter | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """Accept ``sum`` for ``{name: sum}`` and ``{last_k: 3}`` for ``{name: last_k, parameter: 3}``."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and len(value) == 1 and "name" not in value:
            [(name, parameter)] = value.items()
            return {"name": name, "parameter": tuple(parameter) if isinstance(parameter, list) else parameter}
        return value


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def aggregation(field: str | None = None, *operations: Any, **more: Any) -> "Aggregation":
    """Make an ``Aggregation`` from operations as YAML gives them, in code that is type-checked."""
    return Aggregation.model_validate({"field": field, "operations": list(operations), **more})


def check_condition(where: str | None, name: str | None) -> None:
    """Refuse a condition without a name for its columns, or one that is not the same each time, by ``ValueError``."""
    if where and not name:
        raise ValueError("'where' needs a name, which begins the names of its columns")
    called = _NOW_OR_CHANCE.search(_LITERAL.sub("''", where or ""))
    if called:
        raise ValueError(
            f"where: {called[0].rstrip('( )')} is another value each time; a snapshot must come out the same "
            "when it is made again"
        )


def check_windows(windows: Sequence[Window]) -> None:
    """Refuse windows that are given twice, by ``ValueError``."""
    for window in windows:
        if windows.count(window) > 1:
            raise ValueError(f"window '{window.name}' is given twice")


Several = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]
Pair = Annotated[tuple[Length, Length], BeforeValidator(_as_tuple)]


class Aggregation(Declared):
    """Operations on one field, or on the events themselves, over windows."""

    field: str | None = None
    """Name of a categorical or numeric field; None: the events themselves."""
    operations: Several[Chosen] = Field(min_length=1)
    windows: Several[Window] = ()
    """Windows; if empty, those of ``aggregates.windows``."""
    where: str | None = Field(default=None, min_length=1)
    """Condition in SQL on the columns of ``events``, with numbers in their units. Only events that satisfy it count."""
    by: str | None = None
    """Name of a categorical field. Columns then hold a list with one number for each id in ``{by}_ids``."""
    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """Prefix of the columns' names; required with a condition."""
    ratios: Several[Pair] = ()
    """Pairs of windows such as [7, 30]: the first window's value over the second window's."""
    trends: Several[Pair] = ()
    """Pairs of windows such as [7, 30]: the first window's value per day over the second window's."""

    @model_validator(mode="after")
    def _consistent(self) -> "Aggregation":
        check_condition(self.where, self.name)
        ending = [window for window in self.windows if not window.gap]
        for pair in (*self.ratios, *self.trends):
            for length in pair if ending else ():
                if Window.of(length) not in ending:
                    given = [window.name for window in ending]
                    raise ValueError(f"window {length} of {list(pair)} is not among the windows {given}")
        check_windows(self.windows)
        return self

    @property
    def subject(self) -> str:
        """Beginning of the columns' names, before the operation."""
        crossed = f"by_{self.by}" if self.by else None
        return "_".join(part for part in (self.name, self.field, crossed) if part)


FieldKind = Literal["events", "categorical", "numeric"]
