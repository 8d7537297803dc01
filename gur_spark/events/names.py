"""Raw columns that a log reads, found among the columns that a file has."""

from collections.abc import Collection, Sequence

import pyarrow as pa

from gur_spark.config.logs import AnyLog
from gur_spark.errors import nearest

SHOWN = 30
"""Names of available columns that a message lists."""


class MissingColumn(ValueError):
    """A file lacks a column that is mapped."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


def raw_columns(log: AnyLog) -> list[str]:
    """Raw columns that a field or a filter reads, each once."""
    return list(dict.fromkeys([*log.fields.columns(), *(f.column for f in log.filters)]))


def optional_columns(log: AnyLog) -> set[str]:
    """Raw columns that files may lack: all fields that read them say so."""
    fields = log.fields.values
    needed = {*log.fields.key_columns, *log.fields.event_time.columns, *(f.column for f in log.filters)}
    needed |= {c for f in fields if not f.optional for c in (f.column, getattr(f, "times", None)) if c}
    return set(raw_columns(log)) - needed


def positions(
    wanted: Sequence[str], names: Sequence[str], optional: Collection[str] = (), hint: str = ""
) -> dict[str, int]:
    """Position of each wanted column among the names. A name that differs only in case is taken if it is the only one.

    Args:
        optional: wanted columns that are left out where they are not there.
        hint: more words for the message.

    Raises:
        MissingColumn: naming the column, the available ones and the nearest name.
    """
    there = [name for name in wanted if name not in optional or name in names or _alike(name, names)]
    return {name: _position(name, names, hint) for name in there}


def _position(name: str, names: Sequence[str], hint: str = "") -> int:
    for same in ([n for n, one in enumerate(names) if one == name], _alike(name, names)):
        if len(same) == 1:
            return same[0]
        if len(same) > 1:
            raise MissingColumn(name, f"column '{name}' stands there {len(same)} times: {[names[n] for n in same]}")
    more = "" if len(names) <= SHOWN else f" and {len(names) - SHOWN} more"
    raise MissingColumn(
        name,
        f"column '{name}' is not there; available: {list(names[:SHOWN])}{more}{nearest(name, list(names))}{hint}",
    )


def top_columns(wanted: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns of a table in which the wanted values may be, each once."""
    found = []
    for name in wanted:
        head = name.split(".")[0]
        found += [name] if name in names else [names[n] for n in _alike(name, names)] or [head] * (head in names)
    return list(dict.fromkeys(found)) or list(names[:1])


def quoted(name: str) -> str:
    """A column's name as Spark takes any name."""
    return "`" + name.replace("`", "``") + "`"


def _alike(name: str, names: Sequence[str]) -> list[int]:
    return [n for n, one in enumerate(names) if one.casefold() == name.casefold()]


def paths(
    wanted: Sequence[str], schema: pa.Schema, optional: Collection[str] = ()
) -> dict[str, tuple[int, Sequence[str]]]:
    """Position of the column that holds each wanted value, and the names of the fields that lead to it.

    ``payload.amount`` is a column of this name, or else the field ``amount`` of the struct or map ``payload``.

    Raises:
        MissingColumn: as ``positions`` does.
    """
    found: dict[str, tuple[int, Sequence[str]]] = {}
    for name in wanted:
        try:
            found[name] = _path(name, schema)
        except MissingColumn:
            if name not in optional:
                raise
    return found


def _path(name: str, schema: pa.Schema) -> tuple[int, Sequence[str]]:
    head, *rest = name.split(".")
    if not rest or name in schema.names or not (head in schema.names or _alike(head, schema.names)):
        return _position(name, schema.names), ()
    position = _position(head, schema.names)
    return position, _fields(name, schema.field(position).type, rest)


def _fields(name: str, kind: pa.DataType, rest: Sequence[str]) -> Sequence[str]:
    """Names of the fields as the type has them."""
    found = []
    for number, step in enumerate(rest):
        if pa.types.is_map(kind):
            kind = kind.item_type
            found.append(step)
            continue
        inner = [kind.field(n).name for n in range(kind.num_fields)] if pa.types.is_struct(kind) else []
        alike = [step] if step in inner else [inner[n] for n in _alike(step, inner)]
        if len(alike) != 1:
            where = ".".join([name.split(".")[0], *rest[:number]])
            raise MissingColumn(name, f"'{where}' has no field '{step}'; available: {inner}{nearest(step, inner)}")
        kind = kind.field(alike[0]).type
        found += alike
    return found
