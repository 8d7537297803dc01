"""The output ``embeddings``: one vector per user, date and model version."""

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark.arrays import Mask, matrix
from gur_spark.config.pipeline import Config
from gur_spark.errors import ModelError, TableError
from gur_spark.outputs.output import Output
from gur_spark.registry.names import VersionName
from gur_spark.registry.published import published
from gur_spark.schema import SQL_USER_ID
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables

NOW = "embeddings_now"
"""The table of rows that are newer than the published ones; see ``gur_spark.serving.live``."""


def embeddings_schema(user_id_type: str) -> str:
    """DDL of ``embeddings``: one row per (user_id, as_of, model_version); ``events`` counts those of the longest
    window."""
    return (
        f"user_id {SQL_USER_ID[user_id_type]}, as_of DATE, model_version STRING, embedding ARRAY<FLOAT>, events BIGINT"
    )


def not_finite(value: Column) -> Column:
    return value.isNull() | F.isnan(value) | (F.abs(value) == float("inf"))


def broken_vector() -> Column:
    """Make a condition: the vector is missing, or one of its numbers is not finite."""
    vector = F.col("embedding")
    return vector.isNull() | (F.size(vector) == 0) | F.exists(vector, not_finite)


def check_vectors(rows: pa.RecordBatch, subject: str, version: str) -> None:
    """Raises ModelError where a vector is missing, not finite, or not as wide as the others, naming whose."""

    def refuse(where: Mask, what: str) -> None:
        if where.any():
            whose = rows[subject][int(np.argmax(where))].as_py()
            name = "user" if subject == "user_id" else subject
            raise ModelError(f"model {version} gives {name} {whose!r} {what}")

    vectors = rows["embedding"]
    width_N = pc.fill_null(pc.list_value_length(vectors), 0).to_numpy()
    refuse(np.equal(width_N, 0), "no embedding")
    widest = width_N.max(initial=0)
    refuse(np.less(width_N, widest), f"an embedding of fewer than {widest} numbers, which others have")
    refuse(np.asarray(~np.isfinite(matrix(vectors)).all(axis=1)), "an embedding that is not finite")


EMBEDDINGS = Output(
    name="embeddings",
    subject="user_id",
    made_by="score",
    schema=embeddings_schema,
    broken=broken_vector,
    check_batch=lambda rows, version: check_vectors(rows, "user_id", version),
)


def check_widths(tables: Tables, output: Output, version: str, as_of: date) -> None:
    """Refuse vectors of several widths in one version and date.

    Raises:
        TableError: there are several widths.
    """
    widths = output.select(tables, version, as_of).agg(F.count_distinct(F.size("embedding"))).first()
    assert widths is not None
    if widths[0] > 1:
        raise TableError(f"{output.name} of {version} at {as_of} were not published: {widths[0]} different widths")


def select_embeddings(tables: Tables, version: str, as_of: date | None) -> DataFrame:
    """Select the rows of a version and date; there may be none."""
    return EMBEDDINGS.select(tables, version, as_of)


def read_embeddings(
    spark: SparkSession,
    config: Config,
    version: str = "published",
    as_of: date | None = None,
    in_space_of: str | None = None,
) -> DataFrame:
    """Read embeddings for a consumer: one row per user_id, ``user_id, as_of, model_version, embedding, events``.

    Args:
        version: a model version, or ``published`` for the one that consumers should use.
        as_of: the date; default is the published date, or the newest scored date of a named version.
        in_space_of: the version that the consumer was trained on. If another version is read, its rows are those that
            ``score`` mapped to that space (``gur_spark.spaces.maps``), of model_version ``NEW@OLD``.

    Raises:
        TableError: nothing is published, or there are no such embeddings; the message lists the available ones.
    """
    tables = open_tables(spark, config.tables)
    version, as_of = published_or(tables, config.name, version, as_of)
    hint = ""
    if in_space_of and in_space_of != version:
        version = str(VersionName(version).mapped_to(in_space_of))
        hint = f"; name {in_space_of} in scoring.in_space_of and run score"
    return read_rows(tables, EMBEDDINGS, version, as_of, hint)


def read_embeddings_now(spark: SparkSession, config: Config) -> DataFrame:
    """Read the published embeddings, or newer ones of users with events since then: one row per user_id.

    The columns are those of ``read_embeddings``; ``as_of`` tells the two apart.

    Raises:
        TableError: nothing is published.
    """
    tables = open_tables(spark, config.tables)
    now = published(tables, config.name)
    if now is None or not tables.exists(NOW):
        return read_embeddings(spark, config)
    rows = select_embeddings(tables, now.model_version, now.as_of)
    of_version = F.col("model_version") == now.model_version
    newer = tables.read(NOW).where(of_version & (F.col("as_of") > F.lit(now.as_of)))
    return rows.join(newer.select("user_id"), "user_id", "left_anti").unionByName(newer).select(*newer.columns)


def published_or(tables: Tables, pipeline: str, version: str, as_of: date | None) -> tuple[str, date | None]:
    """Return a named version as it is; for ``published``, the version and date that the pipeline published last.

    Raises:
        TableError: nothing is published.
    """
    if version != "published":
        return version, as_of
    now = published(tables, pipeline)
    if now is None:
        raise TableError(f"nothing is published for pipeline '{pipeline}'; run the publish job, or name a version")
    return now.model_version, as_of or now.as_of


def read_rows(tables: Tables, output: Output, version: str, as_of: date | None, hint: str = "") -> DataFrame:
    """Read the rows of a version and date, or of its newest date.

    Raises:
        TableError: there are none; the message lists the available ones.
    """
    as_of = as_of or max(output.dates(tables, version), default=None)
    rows = output.select(tables, version, as_of)
    if rows.isEmpty():
        raise TableError(output.missing(tables, version, as_of, remedy=hint))
    return rows
