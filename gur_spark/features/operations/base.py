"""Base class of operations, and the registry that finds them by name."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

import pyarrow as pa

from gur_spark.errors import nearest
from gur_spark.features.declare.spec import FieldKind, Parameter
from gur_spark.features.declare.windows import Window
from gur_spark.features.states.base import State, ValueColumn
from gur_spark.features.states.groups import Groups
from gur_spark.features.states.tiles import DateWindows, Tiles

REGISTRY: dict[tuple[FieldKind, str], type["Operation"]] = {}
"""Kind of field and name -> operation."""

AnyOperation = TypeVar("AnyOperation", bound=type["Operation"])


@dataclass(frozen=True, kw_only=True)
class OutputColumn:
    """One column that an operation makes for each window.

    ``{field}``, ``{value}``, ``{subject}`` and ``{within}`` in its texts are filled in.
    """

    name: str
    dtype: Literal["long", "double", "array<int>", "array<double>"] = "double"
    unit: str
    meaning: str
    null: str = "no {field}"
    """When the value is null; ``never`` where there is a value even without an event."""


@dataclass(frozen=True)
class Derived:
    """A whole number that Spark computes for each event, before categories become ids."""

    sql: str
    """Expression over the columns of ``events``; never null."""
    bits: int
    """Bits that its values take."""


class Operation(ABC):
    """One declared operation on a field.

    A new operation is a subclass below ``@operation`` with a name, the kinds of field that it takes, the state that it
    is computed from, ``outputs`` and ``finalize``.
    """

    name: ClassVar[str]
    field_kinds: ClassVar[tuple[FieldKind, ...]]
    state: ClassVar[type[State]]
    one_number: ClassVar[bool] = True
    """Whether it makes one number per group, so that it can take ``by``, ratios and trends."""
    one_column: ClassVar[bool] = False
    """Whether it makes one column for all windows, whose name does not end with a window."""

    def __init__(self, value: ValueColumn, parameter: Parameter | None = None) -> None:
        """Raises:
        ValueError: the parameter does not fit.
        """
        self.value = value
        if parameter is not None:
            raise ValueError("takes no parameter")

    @abstractmethod
    def outputs(self) -> Sequence[OutputColumn]:
        """The columns that it makes."""

    @abstractmethod
    def finalize(self, values: Any, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        """Values of the outputs, one per group, for each of a date's windows.

        Args:
            values: result of the state's ``at`` for the same windows.
        """

    def windows(self, windows: Sequence[Window]) -> list[Window]:
        """The windows, among those declared, that it makes columns for."""
        return list(windows)

    def derived(self) -> Mapping[str, Derived]:
        """Columns that it needs beside those of the events, by name."""
        return {}

    def options(self) -> tuple[Any, ...]:
        """Further arguments of its state. Operations with the same state, column and options share one state."""
        return ()

    @property
    def column(self) -> str | None:
        """Name of the column that its state reads."""
        return next(iter(self.derived()), self.value.column)

    def make_state(self, groups: Groups, tiles: Tiles) -> State:
        return self.state(groups, tiles, replace(self.value, column=self.column), *self.options())


def operation(made: AnyOperation) -> AnyOperation:
    """Put an operation into the registry."""
    for kind in made.field_kinds:
        assert (kind, made.name) not in REGISTRY
        REGISTRY[kind, made.name] = made
    return made


def find(kind: FieldKind, name: str) -> type[Operation]:
    """Find an operation by the kind of field and its name.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    found = REGISTRY.get((kind, name))
    if found is None:
        known = sorted(n for k, n in REGISTRY if k == kind)
        what = "events" if kind == "events" else f"a {kind} field"
        raise ValueError(f"no operation '{name}' on {what}; available: {known}{nearest(name, known)}")
    return found


def whole(parameter: Parameter | None, least: int, most: int) -> int:
    """Check that a parameter is a whole number in a range.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(parameter, int) or not least <= parameter <= most:
        raise ValueError(f"takes a whole number from {least} to {most}, got {parameter!r}")
    return parameter


def lists(offsets: Any, values: Any) -> pa.Array:
    """Lists of whole numbers or doubles, one per group."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
