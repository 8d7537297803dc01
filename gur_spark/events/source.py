"""Reading of a raw log into one frame of text.

A raw frame has one row per raw row: ``source_file``, ``landed_on`` (null in a bulk load), ``raw`` (the row as it was
delivered), ``problem`` (reason code of a row that cannot be split into columns, otherwise null) and one text column
per mapped raw column, named by ``text``.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import TimestampType

from gur_spark import storage
from gur_spark.config.logs import QUOTE, AnyLog, Source
from gur_spark.engines import is_sail
from gur_spark.errors import SourceError, nearest
from gur_spark.events import sail
from gur_spark.events.files import BrokenFile, File, readable_paths

# One job reads the first lines of all files below this size. A larger file gets a job that stops after its first line.
SMALL_FILE_BYTES = 4_000_000


def text(column: str) -> str:
    """Name of a raw column in a raw frame, which differs from all names of event columns."""
    return f"text {column}"


def text_of(column: str) -> Column:
    """Text of a raw column in a raw frame."""
    return F.col(_quoted(text(column)))


def raw_columns(log: AnyLog) -> list[str]:
    """Raw columns that a field or a filter reads, each once."""
    return list(dict.fromkeys([*log.fields.columns(), *(f.column for f in log.filters)]))


def raw_table(spark: SparkSession, log: AnyLog) -> DataFrame:
    """Raw frame of a Delta folder or a catalog table."""
    source = log.source
    if source.format == "table":
        name, frame = source.table or "", spark.read.table(source.table or "")
    else:
        name = storage.absolute(source.path or "")
        frame = spark.read.format("delta").load(name)
    return _typed(frame.withColumns({"source_file": F.lit(name), "landed_on": F.lit(None).cast("date")}), log, name)


def raw_files(spark: SparkSession, log: AnyLog, files: Sequence[File]) -> tuple[DataFrame | None, list[BrokenFile]]:
    """Raw frame of the files that can be used, and the files that cannot. Only header lines are read.

    Raises:
        SourceError: a mapped column is in none of the files.
    """
    broken = [BrokenFile(file=file, reason="empty_file") for file in files if file.length == 0]
    files = [file for file in files if file.length > 0]
    if not files:
        return None, broken
    if log.source.format == "csv":
        frame, unusable = _raw_csv(spark, log, files)
        return frame, broken + unusable
    if log.source.format == "jsonl":
        return _raw_jsonl(spark, log, files), broken
    if is_sail(spark):
        rows = sail.parquet_files(spark, files)
    else:
        read = spark.read.option("mergeSchema", True).parquet(*readable_paths(files))
        rows = read.withColumn("uri", F.col("_metadata.file_path"))
    return _typed(_with_file(rows, files), log, "the files"), broken


def _raw_csv(spark: SparkSession, log: AnyLog, files: Sequence[File]) -> tuple[DataFrame | None, list[BrokenFile]]:
    source = log.source
    if source.columns is not None:
        _require(raw_columns(log), source.columns, "source.columns")
        return _csv_rows(spark, log, files, source.columns, None), []
    headers = _header_lines(spark, source, files)
    groups: dict[str, list[File]] = defaultdict(list)
    broken = []
    for file in files:
        header = headers.get(file.uri)
        lacking = None if header is None else _lacking(log, _split(header, source))
        if header is None:
            broken.append(BrokenFile(file=file, reason="empty_file"))
        elif lacking is not None:
            broken.append(BrokenFile(file=file, reason="missing_column", field=lacking))
        else:
            groups[header].append(file)
    frames = [_csv_rows(spark, log, same, _split(header, source), header) for header, same in groups.items()]
    return (reduce(DataFrame.unionByName, frames) if frames else None), broken


def check_columns(spark: SparkSession, log: AnyLog, broken: Sequence[BrokenFile]) -> None:
    """Refuse a wrong mapping, when no file of a first run has a mapped column.

    Raises:
        SourceError: the message names the column, the available ones and the nearest name.
    """
    lacking = [b.file for b in broken if b.reason == "missing_column"]
    if lacking:
        header = _header_lines(spark, log.source, lacking[:1])[lacking[0].uri]
        _require(raw_columns(log), _split(header, log.source), lacking[0].path)


def _csv_rows(
    spark: SparkSession, log: AnyLog, files: Sequence[File], names: Sequence[str], header: str | None
) -> DataFrame:
    """Rows of files that have the same header line.

    Blank lines are no rows, and neither are lines equal to the header, which files put together from several have.
    """
    source = log.source
    lines = _lines(spark, source, files)
    if header is not None:
        lines = lines.where(F.col("raw") != header)
    # Columns are named by position, because a header may hold a name twice.
    row_schema = ", ".join([*(f"c{n} STRING" for n in range(len(names))), "ragged STRING"])
    options = {
        "sep": source.delimiter,
        "quote": QUOTE,
        "escape": QUOTE,
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": "ragged",
    }
    quote = F.lit(QUOTE)
    quoted = F.contains("raw", quote)
    quotes = (F.octet_length("raw") - F.octet_length(F.replace("raw", quote, F.lit("")))) / F.octet_length(quote)
    # Splitting is three times as fast as parsing, and right for a line without a quote. The values are a column of
    # their own, because inside a condition a line would be split again for every value.
    values = F.split("raw", re.escape(source.delimiter), -1)
    row = _row_of_values(len(names), row_schema)
    if is_sail(spark):
        values = F.when(quoted, sail.csv_values(F.col("raw"), source.delimiter)).otherwise(values)
    else:
        row = F.when(quoted, F.from_csv("raw", row_schema, options)).otherwise(row)
    split = lines.withColumn("values", values)
    parsed = split.withColumn("row", row)
    problem = F.coalesce(
        _line_problem(),
        F.when(quoted & (quotes % 2 == 1), F.lit("unbalanced_quote")),
        F.when(F.col("row.ragged").isNotNull(), F.lit("ragged_row")),
    )
    columns = {name: F.col(f"row.c{names.index(name)}") for name in raw_columns(log)}
    return _raw(_with_file(parsed, files), problem, columns)


def _row_of_values(columns: int, row_schema: str) -> Column:
    """Struct that ``from_csv`` would make of a line, made from its ``values``."""
    ragged = F.when(F.size("values") != columns, F.col("raw"))
    values = [F.nullif(F.get("values", F.lit(n)), F.lit("")) for n in range(columns)]
    return F.struct(*values, ragged).cast(f"STRUCT<{row_schema}>")


def _raw_jsonl(spark: SparkSession, log: AnyLog, files: Sequence[File]) -> DataFrame:
    names = raw_columns(log)
    if is_sail(spark):
        values = sail.json_values(F.col("raw"), names)
        parsed = _lines(spark, log.source, files).withColumn("values", values)
        problem = F.coalesce(_line_problem(), F.when(F.col("values").isNull(), F.lit("malformed_json")))
        texts = {name: F.get("values", F.lit(n)) for n, name in enumerate(names)}
        return _raw(_with_file(parsed, files), problem, texts)
    row_schema = ", ".join([*(f"{_quoted(name)} STRING" for name in names), "`_malformed` STRING"])
    options = {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": "_malformed"}
    parsed = _lines(spark, log.source, files).withColumn("row", F.from_json("raw", row_schema, options))
    malformed = F.col("row._malformed").isNotNull() | F.col("row").isNull()
    problem = F.coalesce(_line_problem(), F.when(malformed, F.lit("malformed_json")))
    return _raw(_with_file(parsed, files), problem, {name: F.col(f"row.{_quoted(name)}") for name in names})


def _typed(frame: DataFrame, log: AnyLog, where: str) -> DataFrame:
    """Raw frame of a source that has types. Values become text again, so that one set of rules reads all sources."""
    names = [name for name in frame.columns if name not in ("uri", "source_file", "landed_on")]
    _require(raw_columns(log), names, where)
    # The text of an instant has its zone, that of a wall-clock time (TIMESTAMP_NTZ) has none.
    instants = {field.name for field in frame.schema if isinstance(field.dataType, TimestampType)}
    instant = "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"
    columns = {
        name: F.date_format(_quoted(name), instant) if name in instants else F.col(_quoted(name)).cast("string")
        for name in raw_columns(log)
    }
    # The default of Spark, but not of Sail.
    options = {"timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSXXX"}
    with_raw = frame.withColumn("raw", F.to_json(F.struct(*[F.col(_quoted(name)) for name in names]), options))
    return _raw(with_raw, F.lit(None).cast("string"), columns)


def _raw(frame: DataFrame, problem: Column, columns: dict[str, Column]) -> DataFrame:
    return frame.select(
        "source_file",
        "landed_on",
        "raw",
        problem.alias("problem"),
        *[value.alias(text(name)) for name, value in columns.items()],
    )


def _lines(spark: SparkSession, source: Source, files: Sequence[File]) -> DataFrame:
    """One row per line that is not blank: ``uri, raw, valid`` (whether the bytes are text in the encoding)."""
    if is_sail(spark):
        return sail.lines(spark, files, source.encoding).where(F.trim("raw") != "")
    uri = F.col("_metadata.file_path").alias("uri")
    lines = spark.read.text(readable_paths(files)).select(uri, F.col("value").alias("raw"))
    if source.encoding == "latin-1":
        # Every byte is a character in latin-1.
        decoded = F.decode(F.col("raw").cast("binary"), "ISO-8859-1")
        lines = lines.select("uri", decoded.alias("raw"), F.lit(True).alias("valid"))
    else:
        lines = lines.select("uri", F.make_valid_utf8("raw").alias("raw"), F.is_valid_utf8("raw").alias("valid"))
    return lines.where(F.trim("raw") != "")


def _line_problem() -> Column:
    return F.coalesce(
        F.when(~F.col("valid"), F.lit("invalid_utf8")),
        F.when(F.contains("raw", F.lit("\0")), F.lit("nul_byte")),
    )


def _header_lines(spark: SparkSession, source: Source, files: Sequence[File]) -> dict[str, str]:
    """URI -> first line that is not blank; a file without one is left out."""
    if is_sail(spark):
        return sail.first_lines(spark, files, source.encoding)
    small = [file for file in files if file.length < SMALL_FILE_BYTES]
    headers = {}
    if small:
        # Ids ascend with the lines of a file, because these files are too small to be split.
        numbered = _lines(spark, source, small).withColumn("n", F.monotonically_increasing_id())
        first = numbered.groupBy("uri").agg(F.min_by("raw", "n").alias("raw"))
        headers = {row["uri"]: row["raw"] for row in first.collect()}
    for file in files:
        if file.length >= SMALL_FILE_BYTES:
            line = _lines(spark, source, [file]).first()
            headers |= {file.uri: line["raw"]} if line else {}
    return headers


def _split(header: str, source: Source) -> list[str]:
    names = next(csv.reader([header], delimiter=source.delimiter, quotechar=QUOTE))
    return [name.strip().removeprefix("\ufeff") for name in names]


def _lacking(log: AnyLog, names: Sequence[str]) -> str | None:
    """First mapped column that the header does not name exactly once."""
    return next((name for name in raw_columns(log) if names.count(name) != 1), None)


def _require(wanted: Sequence[str], available: Sequence[str], where: str) -> None:
    for name in wanted:
        if list(available).count(name) != 1:
            found = "twice" if name in available else "not"
            hint = "" if name in available else nearest(name, list(available))
            raise SourceError(f"column '{name}' is {found} in {where}; available: {list(available)}{hint}")


def _with_file(frame: DataFrame, files: Sequence[File]) -> DataFrame:
    """Add ``source_file`` and ``landed_on`` of the file that a row was read from."""
    rows = [(file.uri, file.path, file.landing) for file in files]
    known = frame.sparkSession.createDataFrame(rows, "uri STRING, source_file STRING, landed_on DATE")
    return frame.join(F.broadcast(known), "uri", "left")


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
