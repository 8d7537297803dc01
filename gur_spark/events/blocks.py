"""Raw rows of a part of a file, some megabytes at a time, whatever the file's format."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import orc

from gur_spark import storage
from gur_spark.config.logs import AnyLog
from gur_spark.config.source import Source
from gur_spark.events.avro_rows import AvroFile
from gur_spark.events.csv_rows import csv_rows, header_names, header_of, rows_of_lines
from gur_spark.events.json_rows import MetKeys, json_rows
from gur_spark.events.names import optional_columns, paths, positions, raw_columns
from gur_spark.events.ranges import Lines, Range, line_blocks, opened
from gur_spark.events.raw import RawRows
from gur_spark.events.typed_rows import typed_rows

BATCH_ROWS = 100_000
"""Rows of a typed file that are read at a time."""

BATCH_BYTES = 32 << 20
"""Bytes of a typed file that are read at a time, as far as its row groups tell."""

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""Name of a folder of rows without a value."""

DELIMITERS = (",", ";", "\t", "|")


class EmptyFile(ValueError):
    """A CSV file has no header line."""


def raw_blocks(path: str, part: Range, log: AnyLog, met: MetKeys) -> Iterator[RawRows]:
    """Read a part of a file. A column that the file lacks may stand in its path, as in ``country=fr/``.

    Args:
        met: gets the keys of JSON objects.

    Raises:
        MissingColumn: a mapped column is not in the file.
        EmptyFile: a CSV file has no header line.
        UnreadableType: a mapped column has a type that stands for no text.
        OSError, pyarrow.ArrowException: the file cannot be read.
    """
    in_path = columns_in_path(path, log.source)
    optional = optional_columns(log) | in_path.keys()
    read = {
        "csv": _csv_blocks, "jsonl": _json_blocks, "parquet": _parquet_blocks, "orc": _orc_blocks, "avro": _avro_blocks
    }  # fmt: skip
    for rows in read[log.source.format](path, part, log, met, optional):
        yield with_all_columns(rows, log, in_path)


def columns_in_path(path: str, source: Source) -> dict[str, str | None]:
    """Columns in the names of the folders below the source, as in ``country=fr/``."""
    below = path.removeprefix(storage.absolute(source.path or "")).split("/")[:-1]
    found = {key: unquote(value) for key, equal, value in (step.partition("=") for step in below) if equal}
    return {key: None if value == NO_VALUE else value for key, value in found.items()}


def with_all_columns(rows: RawRows, log: AnyLog, in_path: Mapping[str, str | None]) -> RawRows:
    """Rows with a text, or null, for each mapped column that their file lacks."""
    lacking = [name for name in raw_columns(log) if name not in rows.texts]
    if not lacking:
        return rows
    more = {name: pa.repeat(pa.scalar(in_path.get(name), pa.string()), len(rows)) for name in lacking}
    return replace(rows, texts={**rows.texts, **more})


def _csv_blocks(path: str, part: Range, log: AnyLog, _met: MetKeys, optional: Collection[str]) -> Iterator[RawRows]:
    source, wanted = log.source, raw_columns(log)
    header = None if source.columns is not None else _header(path, source)
    names = source.columns if header is None else header_of(header, source)
    assert names is not None  # the configuration or the header line has them
    found = positions(wanted, names, optional, _other_delimiter(header, source, wanted) if header else "")
    blocks = line_blocks(path, part, source.encoding)
    for lines, valid in rows_of_lines(blocks) if source.multiline else blocks:
        lines, valid = _without_blank(lines, valid)
        if header is not None:
            # Files that were put together from several have their headers, too.
            lines, valid = _chosen(lines, valid, pc.not_equal(lines, header))
        if len(lines):
            yield csv_rows(lines, valid, names, found, source)


def _header(path: str, source: Source) -> str:
    """The first line that is not blank."""
    blocks = line_blocks(path, Range(file=0, start=0, end=None), source.encoding, 1 << 16)
    for lines, _ in rows_of_lines(blocks) if source.multiline else blocks:
        lines, _ = _without_blank(lines, None)
        if len(lines):
            header: str = lines[0].as_py()
            return header
    raise EmptyFile("it has no header line")


def _other_delimiter(header: str, source: Source, wanted: Sequence[str]) -> str:
    """A hint where the header looks separated by another character than the declared one."""
    for other in DELIMITERS:
        if other != source.delimiter and set(wanted) <= set(header_names(header, other)):
            return f"; the header is separated by {other!r}, and source.delimiter is {source.delimiter!r}"
    return ""


def _json_blocks(path: str, part: Range, log: AnyLog, met: MetKeys, _optional: Collection[str]) -> Iterator[RawRows]:
    in_path = columns_in_path(path, log.source)
    met.wanted |= in_path.keys()
    wanted = [name for name in raw_columns(log) if name not in in_path]
    for lines, valid in line_blocks(path, part, log.source.encoding):
        lines, valid = _without_blank(lines, valid)
        if len(lines):
            yield json_rows(lines, valid, wanted, met)


def _parquet_blocks(path: str, part: Range, log: AnyLog, _met: MetKeys, optional: Collection[str]) -> Iterator[RawRows]:
    with opened(path) as stream, pq.ParquetFile(stream, coerce_int96_timestamp_unit="us") as file:
        schema = _with_instants(file)
        names, places = _columns(schema, log, optional)
        kinds = [schema.field(name).type for name in names]
        size, groups = _batch_rows(file.metadata, names), _row_groups(file.metadata, part)
        for batch in file.iter_batches(size, groups, columns=names, use_threads=False):
            arrays = [c if c.type == kind else c.cast(kind) for c, kind in zip(batch.columns, kinds, strict=True)]
            yield typed_rows(pa.RecordBatch.from_arrays(arrays, names=names), places)


def _row_groups(metadata: pq.FileMetaData, part: Range) -> list[int]:
    """The row groups that begin in a part of a file."""
    starts = []
    for number in range(metadata.num_row_groups):
        first = metadata.row_group(number).column(0)
        starts.append(first.dictionary_page_offset or first.data_page_offset)
    return [
        number for number, start in enumerate(starts) if part.start <= start and (part.end is None or start < part.end)
    ]


def _batch_rows(metadata: pq.FileMetaData, names: Collection[str]) -> int:
    """Rows that hold about ``BATCH_BYTES`` in some columns, by the row group with the largest rows."""
    rows = BATCH_ROWS
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = map(group.column, range(group.num_columns))
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] in names)
        rows = min(rows, max(1, BATCH_BYTES * group.num_rows // max(1, size)))
    return rows


def _with_instants(file: pq.ParquetFile) -> pa.Schema:
    """The file's schema with values of the old type INT96 as instants in UTC: Spark writes only instants in it."""
    columns = map(file.schema.column, range(len(file.schema)))
    int96 = {column.path for column in columns if column.physical_type == "INT96"}
    return pa.schema([_field_with_instants(field, field.name, int96) for field in file.schema_arrow])


def _field_with_instants(field: pa.Field, path: str, int96: Collection[str]) -> pa.Field:
    if path in int96:
        return field.with_type(pa.timestamp("us", "UTC"))
    if not pa.types.is_struct(field.type) or not any(one.startswith(f"{path}.") for one in int96):
        return field
    return field.with_type(pa.struct([_field_with_instants(one, f"{path}.{one.name}", int96) for one in field.type]))


def _orc_blocks(path: str, _part: Range, log: AnyLog, _met: MetKeys, optional: Collection[str]) -> Iterator[RawRows]:
    with opened(path) as stream:
        file = orc.ORCFile(stream)
        names, places = _columns(file.schema, log, optional)
        for stripe in range(file.nstripes):
            yield typed_rows(file.read_stripe(stripe, columns=names), places)


def _avro_blocks(path: str, _part: Range, log: AnyLog, _met: MetKeys, optional: Collection[str]) -> Iterator[RawRows]:
    with opened(path) as stream:
        file = AvroFile(stream)
        names, places = _columns(file.schema, log, optional)
        for batch in file.batches(names):
            yield typed_rows(batch, places)


def _columns(
    schema: pa.Schema, log: AnyLog, optional: Collection[str]
) -> tuple[list[str], dict[str, tuple[int, Sequence[str]]]]:
    """Columns that a typed file is asked for, and the places of the wanted values among them."""
    places = paths(raw_columns(log), schema, optional)
    columns = sorted({position for position, _ in places.values()})
    return (
        [schema.names[position] for position in columns],
        {name: (columns.index(position), fields) for name, (position, fields) in places.items()},
    )


def _without_blank(lines: pa.StringArray, valid: pa.BooleanArray | None) -> Lines:
    return _chosen(lines, valid, pc.not_equal(pc.utf8_trim(lines, " "), ""))


def _chosen(lines: pa.StringArray, valid: pa.BooleanArray | None, rows: pa.BooleanArray) -> Lines:
    if pc.all(rows).as_py():
        return lines, valid
    return lines.filter(rows), None if valid is None else valid.filter(rows)
