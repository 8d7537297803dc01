"""Answers to compare with: who churned after a date, and label tables from elsewhere."""

from datetime import date, timedelta
from typing import Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config import Label
from gur_spark.errors import EvaluationError, nearest
from gur_spark.schema import SQL_USER_ID

CHURN_CLASSES = ("active", "churned")
"""In alphabetical order, so that ``churned`` is the positive class of the probe."""


def check_future(events: DataFrame, as_of: date, horizon_days: int) -> None:
    """Refuse a date whose future is not all there: silence that is only missing data is no churn.

    A log is known up to its last ``landed_on`` (the last daily landing, or a bulk load's last event), and several logs
    up to that of the one which ends first.

    Raises:
        EvaluationError: naming the last day that is known and the last as_of that it allows.
    """
    log = F.col("source") if "source" in events.columns else F.lit(0)
    ends = events.groupBy(log.alias("log")).agg(F.max("landed_on").alias("last"))
    found = ends.agg(F.min("last").alias("last")).first()
    assert found is not None
    if found["last"] is None:
        raise EvaluationError("there are no events; run the ingest job first")
    ahead = timedelta(days=horizon_days - 1)
    if found["last"] < as_of + ahead:
        raise EvaluationError(
            f"churn in the {horizon_days} days from {as_of} on needs events up to {as_of + ahead}, the log ends on "
            f"{found['last']}; expected an as_of up to {found['last'] - ahead}, or a shorter evaluation.horizon_days"
        )


def churn(active: DataFrame, events: DataFrame, as_of: date, horizon_days: int) -> DataFrame:
    """Whether each active user has no event in ``[as_of, as_of + horizon_days)``.

    Args:
        active: user_id of the users with an event in the longest window before as_of.

    Returns:
        One row per user_id of ``active``: ``user_id, churn`` (one of ``CHURN_CLASSES``).
    """
    start, end = (F.lit(f"{day} 00:00:00+00:00").cast("timestamp") for day in (as_of, as_of + timedelta(horizon_days)))
    seen = events.where((F.col("event_time") >= start) & (F.col("event_time") < end)).select("user_id").distinct()
    stayed, gone = CHURN_CLASSES
    label = F.when(F.col("seen"), stayed).otherwise(gone)
    return (
        active.select("user_id")
        .join(seen.withColumn("seen", F.lit(True)), "user_id", "left")
        .select("user_id", label.alias("churn"))
    )


def read_label(spark: SparkSession, label: Label, user_id_type: Literal["long", "string"]) -> DataFrame:
    """A label table: one row per user_id, with the class as text in a column of the label's name.

    Rows without a class are left out.

    Raises:
        EvaluationError: the file or a column is missing, a user id is not of the declared type, or a user has two rows.
    """
    path = storage.absolute(label.path)
    if not storage.exists(path):
        raise EvaluationError(f"label '{label.name}': {path} does not exist")
    reader = spark.read.option("header", True) if label.format == "csv" else spark.read
    table = reader.format(label.format).load(path)
    for column in (label.user_column, label.label_column):
        if column not in table.columns:
            hint = nearest(column, table.columns)
            raise EvaluationError(f"label '{label.name}': no column '{column}'; available: {table.columns}{hint}")
    user = F.col(f"`{label.user_column}`").cast("string")
    answer = F.nullif(F.trim(F.col(f"`{label.label_column}`").cast("string")), F.lit(""))
    rows = table.select(
        user.try_cast(SQL_USER_ID[user_id_type]).alias("user_id"), answer.alias(label.name), user.alias("text")
    ).where(F.col(label.name).isNotNull())
    _check_users(rows, label.name, user_id_type)
    return rows.select("user_id", label.name)


def answers(embeddings: DataFrame, labels: list[DataFrame], max_users: int, seed: int) -> DataFrame:
    """One row per user_id with an embedding: ``user_id, embedding`` and a column per label, null where not known.

    Beyond ``max_users`` a sample by a hash of the user id, so that every label and model sees the same users.
    """
    sampled = (
        embeddings.select("user_id", "embedding")
        .orderBy(F.xxhash64(F.lit(seed), F.col("user_id")), "user_id")
        .limit(max_users)
    )
    for label in labels:
        sampled = sampled.join(label, "user_id", "left")
    return sampled.orderBy("user_id")


def unknown_users(label: DataFrame, embeddings: DataFrame) -> int:
    """How many labelled users have no embedding: they are ignored, and the report says so."""
    return label.join(embeddings.select("user_id"), "user_id", "left_anti").count()


def _check_users(rows: DataFrame, name: str, user_id_type: str) -> None:
    odd = rows.where(F.col("user_id").isNull()).first()
    if odd is not None:
        raise EvaluationError(f"label '{name}': expected user ids of type {user_id_type}, got {odd['text']!r}")
    twice = rows.groupBy("user_id").count().where("count > 1").orderBy("user_id").first()
    if twice is not None:
        raise EvaluationError(f"label '{name}': user {twice['user_id']!r} has {twice['count']} rows; expected one")
