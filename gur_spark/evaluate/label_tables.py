"""Label tables from elsewhere: read by Spark for a report, and checked by pyarrow before Spark starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import csv, fs
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, TimestampType

from gur_spark import storage
from gur_spark.config.evaluation import Label
from gur_spark.engines import is_sail
from gur_spark.errors import EvaluationError, nearest
from gur_spark.evaluate.questions import check_positive
from gur_spark.tables.paths import literal, plain_path
from gur_spark.tables.user_ids import user_ids

UserIds = Literal["long", "string"]

CHECKED_BYTES = 256 << 20
"""Bytes of the files of a label table whose rows are checked before Spark starts."""

# No label has a name with a blank.
TEXT, DAY = "user text", "row date"
DATE_TEXT = r"\d{4}-\d{2}-\d{2}"


def check_label_files(labels: list[Label], kind: UserIds) -> None:
    """Check label tables that are CSV or Parquet, before minutes are spent on anything else.

    The rows of tables of more than ``CHECKED_BYTES`` are left to the engine.

    Raises:
        EvaluationError: a file or a column is missing, ids are floats, a user (or a user and date) has two rows, or no
            row has a class, or the positive class is none of two.
    """
    for label in labels:
        if label.format in ("csv", "parquet"):
            _check_file(label, kind)


def read_label(
    spark: SparkSession, label: Label, kind: UserIds, as_of: date | None = None, until: date | None = None
) -> DataFrame:
    """Read a label table: one row per user_id, with the class as text in a column of the label's name.

    Rows without a class are left out. With a ``date_column``, the rows dated in ``[as_of, until)`` count, and of each
    user the earliest of them: an embedding of ``as_of`` saw no event on or after such a row's date.

    Raises:
        EvaluationError: the table or a column is missing, a user id is not of the declared type, a date cannot be read,
            or a user (with a ``date_column``: a user and date) has two rows.
    """
    with _readable(label):
        rows = _rows(spark, label, kind)
        _check_rows(rows, label, kind)
    if not label.date_column:
        return rows.select("user_id", label.name)
    inside = F.col(DAY) >= F.lit(as_of) if as_of else F.lit(True)
    inside = inside & (F.col(DAY) < F.lit(until)) if until else inside
    first = rows.where(inside).groupBy("user_id").agg(F.min(F.struct(DAY, label.name)).alias("first"))
    return first.select("user_id", F.col(f"first.{label.name}").alias(label.name))


def newest_date(spark: SparkSession, label: Label, kind: UserIds) -> date | None:
    """The newest date of a row with a class, of a label with a ``date_column``; None where there is none.

    Raises:
        EvaluationError: the table or a column is missing.
    """
    with _readable(label):
        found = _rows(spark, label, kind).agg(F.max(DAY).alias("newest")).first()
    assert found is not None
    newest: date | None = found["newest"]
    return newest


@contextmanager
def _readable(label: Label) -> Iterator[None]:
    """Refuse a table that the engine cannot read, by its name and the engine's first line."""
    try:
        yield
    except PySparkException as error:
        where, said = label.table if label.format == "table" else label.path, str(error).splitlines()[0]
        raise EvaluationError(f"label '{label.name}': {where} cannot be read as {label.format}: {said}") from error


def _rows(spark: SparkSession, label: Label, kind: UserIds) -> DataFrame:
    """The rows with a class: ``user_id``, the class, the user's text and, with a ``date_column``, the date."""
    table = _read(spark, label)
    _check_columns(label, table.columns)
    user = user_ids(table, label.user_column, kind, f"label '{label.name}'", EvaluationError)
    answer = F.nullif(F.trim(F.col(f"`{label.label_column}`").cast("string")), F.lit(""))
    texts = [F.col(f"`{label.user_column}`").cast("string").alias(TEXT)]
    dates = [_date(table, label.date_column).alias(DAY)] if label.date_column else []
    rows = table.select(user.alias("user_id"), answer.alias(label.name), *texts, *dates)
    return rows.where(F.col(label.name).isNotNull())


def _read(spark: SparkSession, label: Label) -> DataFrame:
    if label.format == "table":
        return spark.read.table(label.table or "")
    path = storage.absolute(label.path or "")
    if not storage.exists(path):
        raise EvaluationError(f"label '{label.name}': {path} does not exist")
    if label.format == "delta":
        return spark.read.format("delta").load(plain_path(path) if is_sail(spark) else path)
    if label.format == "parquet":
        return spark.read.parquet(literal(spark, path))
    return spark.read.option("header", True).option("sep", label.delimiter).csv(literal(spark, path))


def _check_columns(label: Label, names: list[str]) -> None:
    for column in (label.user_column, label.label_column, label.date_column):
        if column and column not in names:
            raise EvaluationError(
                f"label '{label.name}': no column '{column}'; available: {names}{nearest(column, names)}"
            )


def _date(table: DataFrame, column: str) -> Column:
    """The UTC date of a column of dates, of moments, or of texts; null where a text does not begin with YYYY-MM-DD."""
    found = F.col(f"`{column}`")
    if isinstance(table.schema[column].dataType, DateType | TimestampType):
        return found.cast("date")
    text = F.trim(found.cast("string"))
    # The engines read 2024 as 2024-01-01.
    local = F.when(text.rlike(rf"^{DATE_TEXT}([T ][\d:.,]*)?$"), F.substring(text, 1, 10).try_cast("date"))
    return local.when(text.rlike(rf"^{DATE_TEXT}[T ]"), text.try_cast("timestamp").cast("date"))


def _check_rows(rows: DataFrame, label: Label, kind: str) -> None:
    where, key = f"label '{label.name}'", ["user_id", *([DAY] if label.date_column else [])]
    odd = rows.where(F.col("user_id").isNull()).first()
    if odd is not None:
        raise EvaluationError(f"{where}: expected user ids of type {kind}, got {odd[TEXT]!r}")
    if label.date_column and (undated := rows.where(F.col(DAY).isNull()).first()):
        raise EvaluationError(
            f"{where}: user {undated['user_id']!r} has no date YYYY-MM-DD in the column '{label.date_column}'"
        )
    twice = rows.groupBy(*key).count().where("count > 1").orderBy(*key).first()
    if twice is not None:
        at = f" at {twice[DAY]}" if label.date_column else ""
        raise EvaluationError(
            f"{where}: user {twice['user_id']!r} has {twice['count']} rows{at}; expected one{_dates(label)}"
        )


def _check_file(label: Label, kind: UserIds) -> None:
    path = storage.absolute(label.path or "")
    if not storage.exists(path):
        raise EvaluationError(f"label '{label.name}': {path} does not exist")
    if not label.delimiter.isascii():
        return  # The engine takes any delimiter, pyarrow none but ASCII.
    odd_lines: list[int | None] = []
    try:
        rows = _dataset(label, path, odd_lines)
        _check_columns(label, rows.schema.names)
        _check_ids(label, rows.schema.field(label.user_column).type, kind)
        filesystem, _ = storage.open_filesystem(path)
        if sum(file.size or 0 for file in filesystem.get_file_info(rows.files)) <= CHECKED_BYTES:
            _check_few(label, rows, path, odd_lines)
    except UnicodeDecodeError:
        return  # The engine reads names of columns that are not UTF-8.
    except (OSError, pa.ArrowException) as error:
        raise EvaluationError(f"label '{label.name}': {path} cannot be read as {label.format}: {error}") from error


def _dataset(label: Label, path: str, odd_lines: list[int | None]) -> ds.FileSystemDataset:
    """The files of a table, as the engine would read them: lines of another length are left out, and put down."""

    def leave_out(line: csv.InvalidRow) -> str:
        odd_lines[:] = [line.number]
        return "skip"

    filesystem, inner = storage.open_filesystem(path)
    columns = [column for column in (label.user_column, label.label_column, label.date_column) if column]
    texts = ds.CsvFileFormat(
        parse_options=csv.ParseOptions(delimiter=label.delimiter, invalid_row_handler=leave_out),
        # Bytes, because a text need not be UTF-8.
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.binary())),
    )
    folder = filesystem.get_file_info(inner).type == fs.FileType.Directory
    return ds.dataset(
        inner,
        format=texts if label.format == "csv" else "parquet",
        filesystem=filesystem,
        partitioning="hive" if folder else None,
    )


def _check_ids(label: Label, found: pa.DataType, kind: UserIds) -> None:
    if pa.types.is_floating(found):
        raise EvaluationError(
            f"label '{label.name}': {label.user_column} is {found}, expected {kind}; write the ids as whole numbers or "
            "as text"
        )


def _check_few(label: Label, rows: ds.FileSystemDataset, path: str, odd_lines: list[int | None]) -> None:
    """Refuse a table without a class, or with two rows of a user (and date), from all of its rows."""
    named = {"user": label.user_column, "class": label.label_column, "date": label.date_column}
    columns = {name: column for name, column in named.items() if column}
    table = rows.to_table(columns={name: ds.field(column) for name, column in columns.items()})
    classes = table["class"]
    classes = classes if pa.types.is_binary(classes.type) else classes.cast(pa.string())
    table = table.filter(pc.fill_null(pc.match_substring_regex(classes, "[^ ]"), False))
    if not len(table) and not odd_lines:
        raise EvaluationError(f"label '{label.name}': no row of {path} has a value in '{label.label_column}'")
    if label.positive is not None and not odd_lines:
        found = {str(_text(value)).strip(" ") for value in pc.unique(table["class"]).to_pylist()}
        check_positive(label.name, sorted(found), label.positive)
    key = [name for name in ("user", "date") if name in table.column_names]
    counts = table.group_by(key).aggregate([([], "count_all")])
    for twice in counts.filter(pc.greater(counts["count_all"], 1)).slice(0, 1).to_pylist():
        at = f" at {_text(twice['date'])}" if "date" in key else ""
        raise EvaluationError(
            f"label '{label.name}': user {_text(twice['user'])!r} has {twice['count_all']} rows{at}; expected one"
            f"{_dates(label)}"
        )


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _dates(label: Label) -> str:
    """The remedy where a user has several answers."""
    return "" if label.date_column else "; a user with an answer per date needs date_column"
