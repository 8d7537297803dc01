"""Labels that embeddings are judged by: what comes after a date in the events, and label tables from elsewhere."""

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.evaluation import NextCategory, Task, Volume
from gur_spark.config.pipeline import Config
from gur_spark.errors import EvaluationError
from gur_spark.evaluate.label_tables import read_label
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.spark.selection import event_rows
from gur_spark.snapshots.horizon import check_complete, events_ahead
from gur_spark.tables.delta import Tables

CHURN_CLASSES = ("active", "churned")
"""Classes of churn in alphabetical order, so that ``churned`` is the positive class of the probe."""


def make_labels(
    tables: Tables, config: Config, users: DataFrame, as_of: date, until: date | None = None
) -> tuple[list[DataFrame], list[str]]:
    """Make the labels of every task and label table, one frame by user_id each, and notes for the report.

    Args:
        users: ``user_id, events`` of the users with an embedding, one row each.
        until: the next judged date, from which on dated labels count there.

    Raises:
        EvaluationError: the horizon is not complete, or a label table cannot be used.
    """
    settings = config.evaluation
    made, notes = [], []
    if settings.tasks:
        manifest = config.manifest()
        events = event_rows(tables.read("events", made_by="ingest"), manifest)
        check_complete(events, config, [as_of], settings.horizon_days, EvaluationError)
        ahead = events_ahead(events, as_of, settings.horizon_days, config.aggregates.delay_days)
        for task in settings.tasks:
            frame, note = answer(task, users, ahead, manifest)
            made.append(frame)
            notes.append(f"{task.name}: {note}, in the {settings.horizon_days} days from {as_of} on")
    for label in settings.labels:
        table = read_label(tables.spark, label, config.fields.user_id.type, as_of, until)
        unknown = unknown_users(table, users)
        if unknown:
            notes.append(f"{label.name}: {unknown:,} labelled users have no embedding and are left out")
        made.append(table)
    return made, notes


def answer(task: Task, users: DataFrame, ahead: DataFrame, manifest: Manifest) -> tuple[DataFrame, str]:
    """Make the labels of a task, ``user_id`` and a column of the task's name, and a sentence on their meaning."""
    active = users.where(F.col("events") > 0)
    if isinstance(task, Volume):
        steps = {f.name: f.step for f in manifest.numeric}
        step = float(steps[task.of]) if task.of in steps else 1.0
        what = "events" if task.of == "events" else f"sum of {task.of}"
        return volume(active, ahead, task, step), f"{what} of active users, sign(y) log(1 + |y|)"
    if isinstance(task, NextCategory):
        note = f"{task.field} of the first event of active users who have one, the {task.classes} most frequent ones"
        return next_category(active, ahead, task), note
    return churn(active, ahead, task.name), "a churned user was active and has no event"


def churn(active: DataFrame, ahead: DataFrame, name: str = "churn") -> DataFrame:
    """Label each active user as churned, without an event ahead, or as active.

    One row per user_id of ``active``; the column has the values ``CHURN_CLASSES``.
    """
    stayed, gone = CHURN_CLASSES
    seen = ahead.select("user_id").distinct().withColumn("seen", F.lit(True))
    label = F.when(F.col("seen"), stayed).otherwise(gone)
    return active.select("user_id").join(seen, "user_id", "left").select("user_id", label.alias(name))


def volume(active: DataFrame, ahead: DataFrame, task: Volume, step: float) -> DataFrame:
    """Sum the events, or a number in its unit, that each active user has ahead; 0 for a user without events."""
    total = F.count(F.lit(1)) if task.of == "events" else F.sum(task.of)
    sums = ahead.groupBy("user_id").agg(total.cast("DOUBLE").alias("total"))
    amount = F.coalesce(F.col("total") * F.lit(step), F.lit(0.0))
    return active.select("user_id").join(sums, "user_id", "left").select("user_id", amount.alias(task.name))


def next_category(active: DataFrame, ahead: DataFrame, task: NextCategory) -> DataFrame:
    """Label each active user with the category of the first event ahead that has one.

    One row per user with such an event, if its category is one of the ``classes`` most frequent ones (ties by the
    alphabet). Among several events at that time, the first category in the alphabet counts.
    """
    having = ahead.where(F.col(task.field).isNotNull()).join(active.select("user_id"), "user_id", "left_semi")
    first = having.groupBy("user_id").agg(F.min("event_time").alias("event_time"))
    found = having.join(first, ["user_id", "event_time"]).groupBy("user_id").agg(F.min(task.field).alias(task.name))
    frequent = found.groupBy(task.name).agg(F.count(F.lit(1)).alias("n")).orderBy(F.desc("n"), task.name)
    return found.join(frequent.limit(task.classes).select(task.name), task.name, "left_semi").select(
        "user_id", task.name
    )


def answers(embeddings: DataFrame, labels: list[DataFrame], max_users: int, seed: int) -> DataFrame:
    """Join labels to embeddings: one row per user_id, ``user_id, embedding, events`` and a column per label.

    A label is null where it is not known. Beyond ``max_users`` the rows are a sample by a hash of the user id, so that
    every label and model sees the same users.
    """
    sampled = (
        embeddings.select("user_id", "embedding", "events")
        .orderBy(F.xxhash64(F.lit(seed), F.col("user_id")), "user_id")
        .limit(max_users)
    )
    for label in labels:
        sampled = sampled.join(label, "user_id", "left")
    return sampled.orderBy("user_id")


def unknown_users(label: DataFrame, embeddings: DataFrame) -> int:
    """Count the labelled users without an embedding. They are ignored, and the report says so."""
    return label.join(embeddings.select("user_id"), "user_id", "left_anti").count()
