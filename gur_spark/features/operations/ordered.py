"""First and last values of a field in the order of time. Within one microsecond the greater value comes first."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gur_spark.features.declare.manifest import ID_UNIT
from gur_spark.features.declare.spec import Parameter
from gur_spark.features.operations.base import Operation, OutputColumn, lists, operation, whole
from gur_spark.features.states.base import ValueColumn
from gur_spark.features.states.sequence import LastValues, Ordered
from gur_spark.features.states.tiles import DateWindows


class _InOrder(Operation):
    field_kinds, state = ("numeric", "categorical"), LastValues

    def _output(self, name: str, meaning: str, *, several: bool) -> OutputColumn:
        numeric = self.value.numeric is not None
        one: Literal["double", "long"] = "double" if numeric else "long"
        many: Literal["array<double>", "array<int>"] = "array<double>" if numeric else "array<int>"
        return OutputColumn(
            name=name,
            dtype=many if several else one,
            unit="{value}" if numeric else ID_UNIT,
            meaning=meaning,
            null="never" if several else "no {field}",
        )

    def _values(self, steps: Any, dtype: Any) -> Any:
        return self.value.units(steps) if self.value.numeric is not None else steps.astype(dtype)


class _One(_InOrder):
    newest: bool

    def outputs(self) -> Sequence[OutputColumn]:
        return [self._output(self.name, f"{self.name} {{value}} {{within}}", several=False)]

    def options(self) -> tuple[Any, ...]:
        return 1, self.newest

    def finalize(self, values: Ordered, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        columns = []
        for window in range(len(windows.lengths)):
            kept, offsets = values.window(window)
            empty_G = np.diff(offsets) == 0
            found_G = np.append(kept, 0)[np.where(empty_G, len(kept), offsets[:-1])]
            columns.append((pa.array(self._values(found_G, np.int64), mask=empty_G),))
        return columns


@operation
class Last(_One):
    name, newest = "last", True


@operation
class First(_One):
    name, newest = "first", False


@operation
class LastK(_InOrder):
    """``{last_k: 3}``: the last three values, newest first."""

    name, one_number = "last_k", False

    def __init__(self, value: ValueColumn, parameter: Parameter | None = None) -> None:
        super().__init__(value)
        self._k = whole(parameter, 1, 1000)

    def outputs(self) -> Sequence[OutputColumn]:
        return [self._output(f"last_{self._k}", f"last {self._k} {{value}} {{within}}, newest first", several=True)]

    def options(self) -> tuple[Any, ...]:
        return self._k, True

    def finalize(self, values: Ordered, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        columns = []
        for window in range(len(windows.lengths)):
            kept, offsets = values.window(window)
            columns.append((lists(offsets, self._values(kept, np.int32)),))
        return columns
