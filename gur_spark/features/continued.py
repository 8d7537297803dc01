"""What the kernel knows of a partition's users, as bytes that it can go on from on one of the days after.

A file is Arrow IPC, compressed: one row with one list per array, and in the schema's metadata the arrays' shapes. The
same users, rows and bands give the same file only up to the order in which users came.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel import PartitionState
from gur_spark.features.states.advance import Shift
from gur_spark.features.states.base import State
from gur_spark.features.states.groups import Groups
from gur_spark.features.states.tiles import Bands

FORMAT = 2
"""Of the file; to be raised with every change of what an array means."""


def dump(state: PartitionState) -> pa.Buffer:
    """All that a partition's events and attributes have left behind, but not who is only named.

    Raises:
        TypeError: a state does not say what it keeps.
        ValueError: rows wait for later dates.
    """
    bands = state.bands
    if state.waiting or state.held_later:
        raise ValueError("a state keeps no rows, and some wait for the dates that know them")
    shapes: dict[str, list[Any]] = {}
    lists: dict[str, pa.Array] = {}
    for name, groups in groups_of(state):
        lists[name] = _one_list(groups.values() if len(groups) else pa.array([], pa.int64()))
    for name, part in states_of(state):
        for array_name, array in part.dump().items():
            shapes[f"{name} {array_name}"] = [array.dtype.str, *array.shape]
            lists[f"{name} {array_name}"] = _one_list(pa.array(_flat(array)))
    about = {"format": FORMAT, "as_of": bands.newest.isoformat(), "horizon": bands.horizon, "shapes": shapes}
    table = pa.table(lists).replace_schema_metadata({"gur_spark": json.dumps(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return sink.getvalue()


def load(
    content: pa.Buffer, manifest: Manifest, base: Bands, as_of: date, oldest: date | None = None
) -> PartitionState:
    """What was dumped, as it looks from a date within the horizon; it takes more rows, and is finalized for that date.

    Args:
        base: the bands it was dumped with.
        oldest: the day of the first event that came since, where a window has no end.

    Raises:
        ValueError: it is not a file of this format, manifest and date, or the date is beyond the horizon.
    """
    return restored(content, manifest, base, base.continued(as_of, oldest))


def restored(content: pa.Buffer, manifest: Manifest, base: Bands, bands: Bands) -> PartitionState:
    """What was dumped with the bands ``base``, as it looks from those that go on from them, or from the same.

    Raises:
        ValueError: it is not a file of this format, manifest and date.
    """
    try:
        table = pa.ipc.open_file(pa.BufferReader(content)).read_all()
        about = json.loads(table.schema.metadata[b"gur_spark"])
    except (pa.ArrowException, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"not a state of the kernel: {error}") from error
    found = (about["format"], about["as_of"], about["horizon"])
    if found != (FORMAT, base.newest.isoformat(), base.horizon):
        raise ValueError(
            f"(format, as_of, horizon) {found}, expected {(FORMAT, base.newest.isoformat(), base.horizon)}"
        )
    state = PartitionState(manifest, bands)
    shift = Shift(base, state.bands)
    for name, groups in groups_of(state):
        known = _values(table, name)
        # Nobody's ids have no type.
        groups.restore(known if len(known) else None)
    state.named_U = np.zeros(len(state.users), np.bool_)
    for name, part in states_of(state):
        part.load(_Arrays(table, about["shapes"], name), shift)
    return state


def groups_of(state: PartitionState) -> Iterator[tuple[str, Groups]]:
    """The users, and the pairs of each scope that has its own."""
    yield "users", state.users
    for number, scope in enumerate(state.scopes.values()):
        if scope.groups is not state.users:
            yield f"pairs {number}", scope.groups


def states_of(state: PartitionState) -> Iterator[tuple[str, State]]:
    """In the order of the manifest, which is the same wherever the manifest is."""
    for number, part in enumerate(state.states.values()):
        yield f"{number} {type(part).__name__}", part
    yield "attributes", state.attributes


class _Arrays(Mapping[str, Any]):
    """A state's arrays, each made when it is asked for."""

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
    """Truth values as bytes, which Arrow would pack into bits."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8) if flat.dtype == np.bool_ else flat


def _one_list(values: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)


def _values(table: pa.Table, name: str) -> pa.Array:
    return table[name].chunk(0).flatten()
