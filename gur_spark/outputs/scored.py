"""At which dates a version was scored."""

from datetime import date

from pyspark.sql import functions as F

from gur_spark.tables.delta import Tables


def scored_dates(tables: Tables, model_version: str) -> list[date]:
    """The dates of which ``embeddings`` has rows of a version, ascending.

    Raises:
        TableError: there is no such table, no date was ever scored.
    """
    rows = tables.read("embeddings", made_by="score").where(F.col("model_version") == model_version)
    return sorted(row["as_of"] for row in rows.select("as_of").distinct().collect())
