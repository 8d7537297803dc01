"""The page of a monitored date, with the trends of the dates before, in the folder of reports."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import pyarrow as pa
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.monitoring.drift import Drift
from gur_spark.monitoring.features import Distribution
from gur_spark.monitoring.page import shown_distributions, to_html
from gur_spark.tables.delta import Tables

HISTORY = timedelta(days=90)
"""Time that the trends of a page show."""


def write_page(tables: Tables, pipeline: str, drift: Drift) -> str:
    """Write the page of a date; returns its path."""
    names = names_of_ids(tables, drift.vocabulary_version, shown_distributions(drift))
    path = tables.folder("reports", "drift", pipeline, drift.as_of.isoformat(), "drift.html")
    storage.write_text(path, to_html(pipeline, drift, history(tables, pipeline, drift.as_of), names))
    return path


def history(tables: Tables, pipeline: str, as_of: date) -> pa.Table:
    """Rows of a pipeline in ``drift`` in the ``HISTORY`` until a date, by date."""
    rows = tables.read("drift", made_by="monitor").where(F.col("name") == pipeline)
    recent = rows.where(F.col("as_of").between(as_of - HISTORY, as_of))
    return recent.orderBy("as_of", "kind", "subject", "measure").toArrow()


def names_of_ids(tables: Tables, version: int, distributions: Sequence[Distribution]) -> Mapping[tuple[str, int], str]:
    """Look up category values by (field, id), for the ids that are bins of these distributions."""
    fields = {d.field for d in distributions if d.field is not None}
    ids = {bin for d in distributions for bin in d.bins if isinstance(bin, int)}
    if not fields:
        return {}
    rows = tables.read("vocabulary").where((F.col("version") == version) & F.col("value").isNotNull())
    found = rows.where(F.col("field").isin(*fields) & F.col("id").isin(*ids)).collect()
    return {(row["field"], row["id"]): row["value"] for row in found}
