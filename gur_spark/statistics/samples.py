"""Samples of users, chosen by a hash of their ids, so that a run can be repeated."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.arrays import matrix
from gur_spark.statistics.measures import Sample

_BUCKETS = 1 << 20


def users_in_common(before: DataFrame, after: DataFrame, size: int) -> Sample:
    """Embeddings of the first ``size`` users, by the hash, that both frames have."""
    now = after.select("user_id", F.col("embedding").alias("after"))
    both = before.select("user_id", F.col("embedding").alias("before")).join(now, "user_id")
    rows = both.orderBy(F.xxhash64("user_id"), "user_id").limit(size).toArrow()
    return Sample(rows["user_id"].to_numpy(), *(matrix(rows[name]) for name in ("before", "after")))


def some_users(frame: DataFrame, rows: int, size: int) -> DataFrame:
    """About ``size`` of the frame's ``rows`` users. Frames with many users in common give mostly the same users."""
    buckets = min(_BUCKETS, max(round(_BUCKETS * size / rows), 1)) if rows else _BUCKETS
    return frame.where(F.pmod(F.xxhash64("user_id"), F.lit(_BUCKETS)) < buckets)
