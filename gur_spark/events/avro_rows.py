"""Records of Avro files as Arrow columns. The library fastavro reads them, because pyarrow has no reader of Avro."""

import json
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from typing import Any

import pyarrow as pa

BATCH_BYTES = 8 << 20
"""Bytes of records, unpacked, that are read at a time, at least."""

_PLAIN = {
    "null": pa.null(), "boolean": pa.bool_(), "int": pa.int32(), "long": pa.int64(), "float": pa.float32(),
    "double": pa.float64(), "bytes": pa.binary(), "fixed": pa.binary(), "string": pa.string(), "enum": pa.string(),
}  # fmt: skip
_TIMES = {
    "date": pa.date32(), "time-millis": pa.time32("ms"), "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"), "timestamp-micros": pa.timestamp("us", "UTC"),
    "timestamp-nanos": pa.timestamp("ns", "UTC"), "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"), "local-timestamp-nanos": pa.timestamp("ns"),
}  # fmt: skip


class AvroFile:
    """An open Avro file.

    Raises:
        OSError: it is no Avro file, or its schema is no record.
    """

    def __init__(self, stream: Any) -> None:
        import fastavro

        try:
            self._blocks: Any = fastavro.block_reader(BufferedReader(stream, 1 << 20))
            schema = self._blocks.writer_schema
            record = _arrow(schema, {})
            # A library's objects of times end at year 9999, and one such value would make the file unreadable.
            self._plain_schema = fastavro.parse_schema(_without_times(schema))
        except Exception as error:
            # A header that is cut raises whatever the bytes lead to.
            raise OSError(f"no Avro file: {error}") from error
        if not pa.types.is_struct(record):
            raise OSError(f"the schema is of type {record}; expected a record")
        self.schema = pa.schema(list(record))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all records.

        Raises:
            OSError: the file is broken.
        """
        fields = [self.schema.field(name) for name in columns]
        while records := self._next():
            arrays = [
                pa.array([_plain(record[field.name], field.type) for record in records], field.type) for field in fields
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)

    def _next(self) -> list[dict[str, Any]]:
        """Records of the next blocks."""
        import fastavro

        records: list[Any] = []
        size = 0
        try:
            for block in self._blocks:
                size += len(block.bytes_.getbuffer())
                records += [
                    fastavro.schemaless_reader(block.bytes_, self._plain_schema, None) for _ in range(block.num_records)
                ]
                if size >= BATCH_BYTES:
                    break
        except Exception as error:
            raise OSError(f"a block cannot be read: {error}") from error
        return records


def _without_times(kind: Any) -> Any:
    """The Avro type with plain numbers in the place of dates and times."""
    if isinstance(kind, list):
        return [_without_times(one) for one in kind]
    if not isinstance(kind, dict):
        return kind
    made = {key: value for key, value in kind.items() if not key.startswith("__")}
    if made.get("logicalType") in _TIMES:
        del made["logicalType"]
    if "fields" in made:
        made["fields"] = [{**field, "type": _without_times(field["type"])} for field in made["fields"]]
    return {key: _without_times(value) if key in ("type", "items", "values") else value for key, value in made.items()}


def _arrow(kind: Any, known: dict[str, pa.DataType]) -> pa.DataType:
    """The Arrow type of an Avro type. A union of several types, and a record inside itself, are text.

    Args:
        known: name -> named type that was met before.
    """
    if isinstance(kind, list):
        options = [option for option in kind if option != "null"]
        return _arrow(options[0], known) if len(options) == 1 else pa.string()
    if isinstance(kind, str):
        return known.get(kind) or _PLAIN.get(kind) or pa.string()
    logical = kind.get("logicalType")
    if logical == "decimal":
        made: pa.DataType = pa.decimal256(kind["precision"], kind.get("scale", 0))
    elif logical in _TIMES:
        made = _TIMES[logical]
    elif logical == "uuid":
        made = pa.string()
    elif kind["type"] in ("record", "error"):
        made = pa.struct([pa.field(field["name"], _arrow(field["type"], known)) for field in kind["fields"]])
    elif kind["type"] == "array":
        made = pa.list_(_arrow(kind["items"], known))
    elif kind["type"] == "map":
        made = pa.map_(pa.string(), _arrow(kind["values"], known))
    else:
        made = _arrow(kind["type"], known)
    if "name" in kind:
        known[kind["name"]] = known[f"{kind.get('namespace', '')}.{kind['name']}"] = made
    return made


def _plain(value: Any, kind: pa.DataType) -> Any:
    """The value with the text of each UUID, and of each value of a union."""
    if value is None or isinstance(value, str):
        return value
    if pa.types.is_string(kind):
        return _text(value)
    if pa.types.is_map(kind):
        return {key: _plain(item, kind.item_type) for key, item in value.items()}
    if pa.types.is_struct(kind):
        return {field.name: _plain(value[field.name], field.type) for field in kind}
    if pa.types.is_list(kind):
        return [_plain(item, kind.value_type) for item in value]
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool | Mapping | list):
        return json.dumps(value, default=str)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
