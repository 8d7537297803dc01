"""Label tables from elsewhere: read by Spark for a report, and checked by pyarrow before Spark starts."""

from datetime import date
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow import csv
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, TimestampType

from gur_spark import storage
from gur_spark.config.evaluation import Label
from gur_spark.engines import is_sail
from gur_spark.errors import EvaluationError, nearest
from gur_spark.tables.paths import literal, plain_path
from gur_spark.tables.user_ids import user_ids

UserIds = Literal["long", "string"]


def check_label_files(labels: list[Label], kind: UserIds) -> None:
    """Check label tables that are CSV or Parquet, before minutes are spent on anything else.

    Raises:
        EvaluationError: a file or a column is missing, ids are floats, a user (or a user and date) has two rows, or no
            row has a class.
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
    table = _read(spark, label)
    _check_columns(label, table.columns)
    user = user_ids(table, label.user_column, kind, f"label '{label.name}'", EvaluationError)
    answer = F.nullif(F.trim(F.col(f"`{label.label_column}`").cast("string")), F.lit(""))
    texts = [F.col(f"`{label.user_column}`").cast("string").alias("text")]
    dates = [_date(table, label.date_column).alias("date")] if label.date_column else []
    rows = table.select(user.alias("user_id"), answer.alias(label.name), *texts, *dates)
    rows = rows.where(F.col(label.name).isNotNull())
    _check_rows(rows, label, kind)
    if not label.date_column:
        return rows.select("user_id", label.name)
    inside = F.col("date") >= F.lit(as_of) if as_of else F.lit(True)
    inside = inside & (F.col("date") < F.lit(until)) if until else inside
    first = rows.where(inside).groupBy("user_id").agg(F.min(F.struct("date", label.name)).alias("first"))
    return first.select("user_id", F.col(f"first.{label.name}").alias(label.name))


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
    """The date of a column of dates, of moments in UTC, or of ISO texts; null where a text is none."""
    found = F.col(f"`{column}`")
    if isinstance(table.schema[column].dataType, DateType | TimestampType):
        return found.cast("date")
    return F.substring(F.trim(found.cast("string")), 1, 10).try_cast("date")


def _check_rows(rows: DataFrame, label: Label, kind: str) -> None:
    where, key = f"label '{label.name}'", ["user_id", *(["date"] if label.date_column else [])]
    odd = rows.where(F.col("user_id").isNull()).first()
    if odd is not None:
        raise EvaluationError(f"{where}: expected user ids of type {kind}, got {odd['text']!r}")
    if label.date_column and (undated := rows.where(F.col("date").isNull()).first()):
        raise EvaluationError(
            f"{where}: user {undated['user_id']!r} has no date YYYY-MM-DD in the column '{label.date_column}'"
        )
    twice = rows.groupBy(*key).count().where("count > 1").orderBy(*key).first()
    if twice is not None:
        at = f" at {twice['date']}" if label.date_column else ""
        raise EvaluationError(f"{where}: user {twice['user_id']!r} has {twice['count']} rows{at}; expected one")


def _check_file(label: Label, kind: UserIds) -> None:
    path = storage.absolute(label.path or "")
    if not storage.exists(path):
        raise EvaluationError(f"label '{label.name}': {path} does not exist")
    try:
        table = _columns(label, path)
    except (OSError, pa.ArrowException) as error:
        raise EvaluationError(f"label '{label.name}': {path} cannot be read as {label.format}: {error}") from error
    found = table.schema.field("user").type
    if label.format == "parquet" and pa.types.is_floating(found):
        raise EvaluationError(
            f"label '{label.name}': {label.user_column} is {found}, expected {kind}; write the ids as whole numbers or "
            "as text"
        )
    if not len(table):
        raise EvaluationError(f"label '{label.name}': no row of {path} has a value in '{label.label_column}'")
    key = [name for name in ("user", "date") if name in table.column_names]
    counts = table.group_by(key).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1)).to_pylist()
    if twice:
        at = f" at {twice[0]['date']}" if "date" in key else ""
        raise EvaluationError(
            f"label '{label.name}': user {twice[0]['user']!r} has {twice[0]['count_all']} rows{at}; expected one"
        )


def _columns(label: Label, path: str) -> pa.Table:
    """The columns ``user``, ``class`` and, if there is one, ``date`` of the rows with a class."""
    named = {"user": label.user_column, "class": label.label_column, "date": label.date_column}
    columns = {name: column for name, column in named.items() if column}
    texts = ds.CsvFileFormat(
        parse_options=csv.ParseOptions(delimiter=label.delimiter),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(columns.values(), pa.string())),
    )
    filesystem, inner = storage.open_filesystem(path)
    rows = ds.dataset(inner, format=texts if label.format == "csv" else "parquet", filesystem=filesystem)
    _check_columns(label, rows.schema.names)
    table = rows.to_table(columns={name: ds.field(column) for name, column in columns.items()})
    classes = pc.utf8_trim(table["class"].cast(pa.string()), " ")
    return table.filter(pc.fill_null(pc.not_equal(classes, ""), False))
