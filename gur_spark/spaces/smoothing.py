"""Embeddings that move less from day to day: means over a user's last dates, under a version name of their own.

``VERSION-mean3`` names the means of three dates of ``VERSION``. Consumers read one version by its name, so they see
means or the embeddings themselves, never both. The gates compare the two as versions that share a space.
"""

from collections.abc import Iterable, Iterator
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.arrays import matrix, to_lists
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.schema import SQL_USER_ID
from gur_spark.tables.delta import Tables


def last_dates(tables: Tables, model_version: str, as_of: date, dates: int) -> list[date]:
    """List the last scored dates of a version up to ``as_of``, newest first."""
    known = [day for day in EMBEDDINGS.dates(tables, model_version) if day <= as_of]
    return known[::-1][:dates]


def smoothed(rows: DataFrame, newest: date, user_id_type: str, unit_norm: bool) -> DataFrame:
    """Average each user's embeddings over the rows' dates: one row per user_id of the newest date.

    The embedding is the mean over the dates with one (of length 1 with ``unit_norm``); ``events`` is that of the newest
    date.

    Args:
        rows: rows of one version, with the columns of ``embeddings``.
    """
    entry = F.struct(F.datediff(F.lit(newest), F.col("as_of")).alias("age"), "embedding", "events")
    users = rows.groupBy("user_id").agg(F.collect_list(entry).alias("entries"), F.max("as_of").alias("newest"))

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield mean_of_entries(batch, unit_norm)

    there = users.where(F.col("newest") == F.lit(newest)).select("user_id", "entries")
    return there.mapInArrow(kernel, f"user_id {SQL_USER_ID[user_id_type]}, embedding ARRAY<FLOAT>, events BIGINT")


def mean_of_entries(users: pa.RecordBatch, unit_norm: bool) -> pa.RecordBatch:
    """Average rows of user_id and entries (age, embedding, events), one of age 0, to user_id, embedding and events.

    Sums are in float64 from the newest date on, so that the order of rows changes no bit. Where embeddings of length 1
    cancel each other out, the newest one gives the direction.
    """
    lists = users["entries"]
    user_N = np.repeat(np.arange(users.num_rows), lists.value_lengths().to_numpy())
    entries = lists.flatten()
    age_N = entries.field("age").to_numpy(zero_copy_only=False)
    order_N = np.lexsort((age_N, user_N))
    vectors = matrix(entries.field("embedding"))[order_N]
    first_U = np.searchsorted(user_N, np.arange(users.num_rows))
    mean_UL = np.add.reduceat(vectors, first_U) / np.bincount(user_N)[:, None]
    if unit_norm:
        length_U = np.linalg.norm(mean_UL, axis=1, keepdims=True)
        mean_UL = np.where(length_U > 1e-6, mean_UL / np.maximum(length_U, 1e-6), vectors[first_U])
    embedding = to_lists(mean_UL.astype(np.float32))
    events = entries.field("events").take(pa.array(order_N[first_U]))
    return pa.RecordBatch.from_arrays([users["user_id"], embedding, events], names=["user_id", "embedding", "events"])
