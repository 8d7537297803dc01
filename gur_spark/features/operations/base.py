"""What an operation is, and the registry of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

import pyarrow as pa

from gur_spark.errors import nearest
from gur_spark.features.declare.spec import FieldKind, Parameter, Window
from gur_spark.features.states.base import Source, State
from gur_spark.features.states.groups import Groups
from gur_spark.features.states.tiles import Bands, Slice

REGISTRY: dict[tuple[FieldKind, str], type["Operation"]] = {}
"""By the kind of field and the operation's name."""

AnyOperation = TypeVar("AnyOperation", bound=type["Operation"])


@dataclass(frozen=True, kw_only=True)
class Output:
    """One column that an operation gives in each window; ``{field}`` and ``{within}`` are filled in."""

    name: str
    dtype: Literal["long", "double", "array<int>", "array<double>"] = "double"
    unit: str
    meaning: str
    null: str = "no {field}"
    """When it is null; ``never`` for one that has a value even where there is no event."""


@dataclass(frozen=True)
class Derived:
    """A whole number that Spark computes for each event, before categories become ids."""

    sql: str
    """Over the columns of ``events``; never null."""
    bits: int


class Operation(ABC):
    """One declared operation on a field.

    To add one: a class with a name, the kind of field, the state it is computed from, its outputs and ``finalize``,
    below ``@operation``.
    """

    name: ClassVar[str]
    of: ClassVar[tuple[FieldKind, ...]]
    state: ClassVar[type[State]]
    single: ClassVar[bool] = True
    """One number per group: it can be crossed (``by``), and divided by that of another window."""
    once: ClassVar[bool] = False
    """One column, whatever the windows: its name does not end with one."""

    def __init__(self, source: Source, parameter: Parameter | None = None) -> None:
        """Raises ValueError where the parameter does not fit."""
        self.source = source
        if parameter is not None:
            raise ValueError("takes no parameter")

    @abstractmethod
    def outputs(self) -> Sequence[Output]:
        """Its columns."""

    @abstractmethod
    def finalize(self, values: Any, of: Slice) -> list[tuple[pa.Array, ...]]:
        """For each window of the slice, the outputs' values, one per group.

        Args:
            values: what the state's ``at`` gives for the slice.
        """

    def windows(self, windows: Sequence[Window]) -> list[Window]:
        """Those of the windows that it gives columns for."""
        return list(windows)

    def derived(self) -> Mapping[str, Derived]:
        """Columns it needs beside those of the events."""
        return {}

    def options(self) -> tuple[Any, ...]:
        """What its state is made with; operations with the same state and options share one."""
        return ()

    @property
    def column(self) -> str | None:
        """The column of the rows that its state takes."""
        return next(iter(self.derived()), self.source.column)

    def make_state(self, groups: Groups, bands: Bands) -> State:
        return self.state(groups, bands, replace(self.source, column=self.column), *self.options())


def operation(made: AnyOperation) -> AnyOperation:
    """Put an operation into the registry."""
    for kind in made.of:
        assert (kind, made.name) not in REGISTRY
        REGISTRY[kind, made.name] = made
    return made


def find(kind: FieldKind, name: str) -> type[Operation]:
    """Raises ValueError, which names the operations there are, where there is no such one."""
    found = REGISTRY.get((kind, name))
    if found is None:
        known = sorted(n for k, n in REGISTRY if k == kind)
        what = "events" if kind == "events" else f"a {kind} field"
        raise ValueError(f"no operation '{name}' on {what}; available: {known}{nearest(name, known)}")
    return found


def whole(parameter: Parameter | None, least: int, most: int) -> int:
    """A parameter that is a whole number."""
    if not isinstance(parameter, int) or not least <= parameter <= most:
        raise ValueError(f"takes a whole number from {least} to {most}, got {parameter!r}")
    return parameter


def lists(offsets: Any, values: Any) -> pa.Array:
    """One list per group."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
