"""Rows that have types (Parquet, ORC, tables) as columns of text, so that one set of rules reads all sources."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.events.raw import RawRows, nulls

_WHOLE = 2.0**63


class UnreadableType(ValueError):
    """A mapped column has a type that stands for no text."""


def typed_rows(batch: pa.RecordBatch, places: Mapping[str, tuple[int, Sequence[str]]]) -> RawRows:
    """The wanted columns of a batch as text.

    Args:
        places: raw column -> position of the column of the batch, and the names of the fields below it.

    Raises:
        UnreadableType: naming the column, its type, and what to do.
    """
    found = {name: _reached(batch, *place) for name, place in places.items()}
    texts = {name: as_text(values, name) for name, values in found.items()}
    numbers = frozenset(name for name, values in found.items() if _is_number(values.type))
    return RawRows(texts=texts, problem=nulls(batch.num_rows), numbers=numbers)


def _is_number(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_a(kind) for is_a in (pa.types.is_floating, pa.types.is_decimal, pa.types.is_integer))


def _reached(batch: pa.RecordBatch, position: int, fields: Sequence[str]) -> pa.Array:
    column = batch.column(position)
    for name in fields:
        column = _looked_up(column, name) if pa.types.is_map(column.type) else pc.struct_field(column, name)
    return column


def _looked_up(maps: pa.MapArray, name: str) -> pa.Array:
    """The value of a key of each map."""
    try:
        key = pa.scalar(name).cast(maps.type.key_type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UnreadableType(f"'{name}' is no key of a map with keys of type {maps.type.key_type}") from error
    return pc.map_lookup(maps, key, "last")


def as_text(values: pa.Array, name: str) -> pa.StringArray:
    """Texts of a column: an instant in UTC with ``Z``, a wall-clock time without, a whole float as a whole number.

    Raises:
        UnreadableType: a list, struct or map, or bytes that are not text.
    """
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return _of_extension(values, name)
    if pa.types.is_dictionary(kind):
        return as_text(values.dictionary_decode(), name)
    if pa.types.is_nested(kind):
        raise UnreadableType(
            f"column '{name}' has the type {kind}, which is no single value; map a field in it ('{name}.FIELD')"
        )
    if pa.types.is_timestamp(kind):
        return _of_timestamps(values)
    if pa.types.is_floating(kind):
        return _of_floats(values)
    if pa.types.is_decimal(kind):
        return _of_decimals(values)
    if pa.types.is_duration(kind):
        raise UnreadableType(f"column '{name}' has the type {kind}; store it as a number")
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UnreadableType(f"column '{name}' has the type {kind}, and its values are no text: {error}") from error


def _of_extension(values: pa.Array, name: str) -> pa.StringArray:
    if values.type.extension_name == "arrow.uuid":
        return pa.array(
            [None if raw is None else str(UUID(bytes=raw)) for raw in values.storage.to_pylist()], pa.string()
        )
    return as_text(values.storage, name)


def _of_timestamps(values: pa.Array) -> pa.StringArray:
    """ISO texts to the microsecond; nanoseconds are cut."""
    unit = pa.timestamp("us", values.type.tz)
    if values.type.unit == "ns":
        nanos = values.cast(pa.int64())
        micros = pa.array(nanos.fill_null(0).to_numpy() // 1000, mask=nanos.is_null().to_numpy(False)).cast(unit)
    else:
        micros = _micros(values).cast(unit)
    if values.type.tz is None:
        return pc.strftime(micros, "%Y-%m-%dT%H:%M:%S")
    utc = micros.cast(pa.timestamp("us", "UTC"))
    return pc.binary_join_element_wise(pc.strftime(utc, "%Y-%m-%dT%H:%M:%S"), "Z", "")


def _micros(values: pa.TimestampArray) -> pa.Int64Array:
    """Microseconds since 1970; null beyond 64 bits."""
    factor = {"s": 1_000_000, "ms": 1_000, "us": 1}[values.type.unit]
    counts = values.cast(pa.int64())
    inside = pc.less(pc.abs(pc.if_else(pc.equal(counts, -(2**63)), 0, counts)), 2**62 // factor)
    return pc.multiply(pc.if_else(inside, counts, None), factor)


def _of_decimals(values: pa.Array) -> pa.StringArray:
    texts = values.cast(pa.string())
    # Arrow writes 1.00E-8 for a small number.
    small = pc.fill_null(pc.match_substring(texts, "E"), False)
    if not pc.any(small).as_py():
        return texts
    plain = pa.array([f"{number:f}" for number in values.filter(small).to_pylist()], pa.string())
    return pc.replace_with_mask(texts, small, plain)


def _of_floats(values: pa.Array) -> pa.StringArray:
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    doubles = values.cast(pa.float64())
    whole = pc.fill_null(pc.and_(pc.equal(pc.floor(doubles), doubles), pc.less(pc.abs(doubles), _WHOLE)), False)
    texts = values.cast(pa.string())
    if not pc.any(whole).as_py():
        return texts
    # Arrow writes 1.2345678e+7 for a whole number.
    return pc.if_else(whole, pc.if_else(whole, doubles, 0.0).cast(pa.int64()).cast(pa.string()), texts)
