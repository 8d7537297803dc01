"""A partition's state as bytes, from which the kernel can go on at the same date or a later one.

The bytes are a compressed Arrow IPC file: one row with one list per array, and the arrays' shapes in the schema's
metadata. The same users, rows and tiles give the same bytes if the users came in the same order.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel.partition import PartitionState
from gur_spark.features.states.advance import Advance
from gur_spark.features.states.base import State
from gur_spark.features.states.groups import Groups
from gur_spark.features.states.tiles import Tiles

FORMAT = 2
"""Number of the file's format. It must be raised when the meaning of an array changes."""


def dump(state: PartitionState) -> pa.Buffer:
    """Write the states of a partition. Users that rows only name are left out.

    Raises:
        TypeError: a state does not name its arrays.
        ValueError: rows wait for dates that know them.
    """
    tiles = state.tiles
    if state.late_events or state.late_attributes:
        raise ValueError("a dump holds no rows, and some rows wait for the dates that know them")
    shapes: dict[str, list[Any]] = {}
    lists: dict[str, pa.Array] = {}
    for name, groups in groups_of(state):
        lists[name] = _one_list(groups.values() if len(groups) else pa.array([], pa.int64()))
    for name, part in states_of(state):
        for array_name, array in part.dump().items():
            shapes[f"{name} {array_name}"] = [array.dtype.str, *array.shape]
            lists[f"{name} {array_name}"] = _one_list(pa.array(_flat(array)))
    about = {"format": FORMAT, "as_of": tiles.newest.isoformat(), "horizon": tiles.horizon, "shapes": shapes}
    table = pa.table(lists).replace_schema_metadata({"gur_spark": json.dumps(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return sink.getvalue()


def load(
    content: pa.Buffer, manifest: Manifest, base: Tiles, as_of: date, oldest: date | None = None
) -> PartitionState:
    """Read a dump for a later date within the horizon; the state then takes more rows and makes that date's rows.

    Args:
        base: tiles with which it was dumped.
        oldest: day of the first event that came since, where a window begins with the first event.

    Raises:
        ValueError: the bytes are not a dump of this format, manifest and date, or the date is beyond the horizon.
    """
    return load_into(content, manifest, base, base.advanced(as_of, oldest))


def load_into(content: pa.Buffer, manifest: Manifest, base: Tiles, tiles: Tiles) -> PartitionState:
    """Read a dump into other tiles: the same ones, or those that were advanced from them.

    Args:
        base: tiles with which it was dumped.

    Raises:
        ValueError: the bytes are not a dump of this format, manifest and date.
    """
    try:
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        about = json.loads(table.schema.metadata[b"gur_spark"])
    except (pa.ArrowException, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"expected a dumped state of the kernel: {error}") from error
    found = (about["format"], about["as_of"], about["horizon"])
    if found != (FORMAT, base.newest.isoformat(), base.horizon):
        raise ValueError(
            f"(format, as_of, horizon) {found}, expected {(FORMAT, base.newest.isoformat(), base.horizon)}"
        )
    state = PartitionState(manifest, tiles)
    advance = Advance(base, state.tiles)
    for name, groups in groups_of(state):
        known = _values(table, name)
        # Without users the column of ids has no type.
        groups.restore(known if len(known) else None)
    state.named_U = np.zeros(len(state.users), np.bool_)
    for name, part in states_of(state):
        part.load(_Arrays(table, about["shapes"], name), advance)
    return state


def groups_of(state: PartitionState) -> Iterator[tuple[str, Groups]]:
    """The users, and the (user, id) pairs of each scope that has them, with their names in the file."""
    yield "users", state.users
    for number, scope in enumerate(state.scopes.values()):
        if scope.groups is not state.users:
            yield f"pairs {number}", scope.groups


def states_of(state: PartitionState) -> Iterator[tuple[str, State]]:
    """All states with their names in the file, in the order of the manifest."""
    for number, part in enumerate(state.states.values()):
        yield f"{number} {type(part).__name__}", part
    yield "attributes", state.attributes


class _Arrays(Mapping[str, Any]):
    """Arrays of a state, each built when it is read."""

    def __init__(self, table: pa.Table, shapes: Mapping[str, Any], state: str) -> None:
        self._table, self._state = table, state
        self._shapes = {k.removeprefix(f"{state} "): v for k, v in shapes.items() if k.startswith(f"{state} ")}

    def __getitem__(self, name: str) -> Any:
        dtype, *shape = self._shapes[name]
        return _values(self._table, f"{self._state} {name}").to_numpy().view(dtype).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _flat(array: Any) -> Any:
    """The array's values in one row, booleans as bytes, because Arrow would pack them into bits."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8) if flat.dtype == np.bool_ else flat


def _one_list(values: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)


def _values(table: pa.Table, name: str) -> pa.Array:
    return table[name].chunk(0).flatten()
