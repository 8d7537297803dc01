"""The outputs of recommenders: ``recommendations`` per user, and ``item_embeddings`` per item."""

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark.config.pipeline import Config
from gur_spark.errors import ModelError
from gur_spark.outputs.embeddings import broken_vector, check_vectors, not_finite, published_or, read_rows
from gur_spark.outputs.output import Output
from gur_spark.schema import SQL_USER_ID
from gur_spark.tables.open import open_tables


def recommendations_schema(user_id_type: str) -> str:
    """DDL of ``recommendations``: one row per (user_id, as_of, model_version); ``items`` are best first, each once.

    ``propensity`` is the probability with which the policy shows the item, null where there is none.
    """
    return (
        f"user_id {SQL_USER_ID[user_id_type]}, as_of DATE, model_version STRING, "
        "items ARRAY<STRUCT<item: STRING, score: FLOAT, propensity: FLOAT>>"
    )


def item_embeddings_schema(user_id_type: str) -> str:
    """DDL of ``item_embeddings``: one row per (item, as_of, model_version); ``events`` counts the item's events in
    training."""
    return "item STRING, as_of DATE, model_version STRING, embedding ARRAY<FLOAT>, events BIGINT"


def _broken_items() -> Column:
    """Make a condition: the list breaks the contract.

    It is empty, an item is null or stands twice, a score is not finite or rises, or a propensity is not in (0, 1].
    """
    items, count = F.col("items"), F.size("items")
    distinct = F.size(F.array_distinct(F.transform(items, lambda one: one["item"])))
    rises = F.exists(
        F.sequence(F.lit(1), F.greatest(count - 1, F.lit(1))),
        lambda n: (n < count) & (F.get(items, n)["score"] > F.get(items, n - 1)["score"]),
    )
    odd = F.exists(
        items,
        lambda one: (
            one["item"].isNull()
            | not_finite(one["score"])
            | F.coalesce((one["propensity"] <= 0) | (one["propensity"] > 1), F.lit(False))
        ),
    )
    return items.isNull() | (count == 0) | (distinct != count) | odd | rises


def check_items(rows: pa.RecordBatch, version: str) -> None:
    """Raises ModelError where a user's list breaks the contract of ``recommendations``, naming the user."""
    lists = rows["items"]
    owners = np.repeat(np.arange(rows.num_rows), pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
    flat = lists.flatten()
    item, score = pc.struct_field(flat, "item"), flat.field("score").to_numpy(zero_copy_only=False)
    propensity = flat.field("propensity")
    share, without = propensity.to_numpy(zero_copy_only=False), propensity.is_null().to_numpy(zero_copy_only=False)
    same_user = owners[1:] == owners[:-1]
    problems = {
        "no item": ~np.isin(np.arange(rows.num_rows), owners),
        "an item that is null": _marked(rows, owners[item.is_null().to_numpy(zero_copy_only=False)]),
        "a score that is not finite": _marked(rows, owners[~np.isfinite(score)]),
        "a score that rises": _marked(rows, owners[1:][same_user & (score[1:] > score[:-1])]),
        "a propensity outside (0, 1]": _marked(rows, owners[~without & ~((share > 0) & (share <= 1))]),
        "an item twice": _marked(rows, owners[_repeated(owners, item)]),
    }
    for problem, users in problems.items():
        if users.any():
            user = rows["user_id"][int(np.argmax(users))].as_py()
            raise ModelError(f"model {version} gives user {user!r} recommendations with {problem}")


def _marked(rows: pa.RecordBatch, owners: np.ndarray) -> np.ndarray:
    return np.isin(np.arange(rows.num_rows), owners)


def _repeated(owners: np.ndarray, item: pa.Array) -> np.ndarray:
    """Mark each entry of a user who has the item at an earlier place."""
    ids = item.dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
    _, first = np.unique(owners * (ids.max(initial=0) + 2) + ids + 1, return_index=True)
    repeated = np.ones(len(owners), dtype=np.bool_)
    repeated[first] = False
    return repeated


RECOMMENDATIONS = Output(
    name="recommendations",
    subject="user_id",
    made_by="score",
    schema=recommendations_schema,
    broken=_broken_items,
    check_batch=check_items,
)

ITEM_EMBEDDINGS = Output(
    name="item_embeddings",
    subject="item",
    made_by="score",
    schema=item_embeddings_schema,
    broken=broken_vector,
    check_batch=lambda rows, version: check_vectors(rows, "item", version),
)


def read_recommendations(
    spark: SparkSession, config: Config, version: str = "published", as_of: date | None = None
) -> DataFrame:
    """Read recommendations for a consumer: one row per user_id, ``user_id, as_of, model_version, items``.

    Args:
        version: a model version, or ``published`` for the one that consumers should use.
        as_of: the date; default is the published date, or the newest scored date of a named version.

    Raises:
        TableError: nothing is published, or there are no such rows; the message lists the available ones.
    """
    tables = open_tables(spark, config.tables)
    return read_rows(tables, RECOMMENDATIONS, *published_or(tables, config.name, version, as_of))


def read_item_embeddings(
    spark: SparkSession, config: Config, version: str = "published", as_of: date | None = None
) -> DataFrame:
    """Read vectors of items: one row per item, ``item, as_of, model_version, embedding, events``.

    Arguments and errors are those of ``read_recommendations``.
    """
    tables = open_tables(spark, config.tables)
    return read_rows(tables, ITEM_EMBEDDINGS, *published_or(tables, config.name, version, as_of))
