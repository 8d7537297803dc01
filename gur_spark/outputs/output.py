"""The contract of an output: a table that kinds write, its schema, grain and checks.

Every output is written by the same path. The rows of one (model_version, as_of) replace the old ones in one commit
(``serving.scoring``), and one switch publishes them (``serving.publishing``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark.errors import TableError, nearest
from gur_spark.registry.known import versions_of_its_pipeline
from gur_spark.registry.names import VersionName
from gur_spark.tables.delta import Tables

RUN_COLUMNS = ("as_of", "model_version")
"""Columns that the run adds to the rows of a scorer."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """One table of results; one row per subject, as_of and model_version."""

    name: str
    """Name of the output, and of its table."""
    subject: str
    """The column that a row is about: ``user_id`` or ``item``."""
    made_by: str
    """The job that writes it."""
    schema: Callable[[str], str]
    """Function of the type of user ids: DDL of the table."""
    broken: Callable[[], Column]
    """Function that makes a condition: the row must never be published."""
    check_batch: Callable[[pa.RecordBatch, str], None]
    """Check of a scorer's rows of the named version, on the worker.

    Raises:
        ModelError: the rows break the contract.
    """

    @property
    def key(self) -> Sequence[str]:
        """The grain of the table."""
        return (self.subject, *RUN_COLUMNS)

    def scored_schema(self, user_id_type: str) -> str:
        """DDL of a scorer's rows: the table's columns without those that the run adds."""
        return ", ".join(c for c in _columns(self.schema(user_id_type)) if c.split()[0] not in RUN_COLUMNS)

    def create(self, tables: Tables, user_id_type: str) -> None:
        """Create the table if it does not exist."""
        tables.create(self.name, self.schema(user_id_type), ["model_version", "as_of"])

    def keyed(self, rows: DataFrame, version: str, as_of: date, user_id_type: str) -> DataFrame:
        """Add the run's columns to a scorer's rows, in the order of the table."""
        stamped = rows.withColumns({"as_of": F.lit(as_of), "model_version": F.lit(version)})
        return stamped.select(*[column.split()[0] for column in _columns(self.schema(user_id_type))])

    def select(self, tables: Tables, version: str, as_of: date | None) -> DataFrame:
        """Select the rows of a version and date; there may be none.

        Raises:
            TableError: the table does not exist.
        """
        rows = tables.read(self.name, made_by=self.made_by)
        return rows.where((F.col("model_version") == version) & (F.col("as_of") == F.lit(as_of)))

    def dates(self, tables: Tables, version: str) -> list[date]:
        """List the dates with rows of a version, ascending.

        Raises:
            TableError: the table does not exist.
        """
        rows = tables.read(self.name, made_by=self.made_by).where(F.col("model_version") == version)
        return sorted(row["as_of"] for row in rows.select("as_of").distinct().collect())

    def missing(self, tables: Tables, version: str, as_of: date | None, purpose: str = "", remedy: str = "") -> str:
        """Message: there are no rows of a version and date, and what there is of the pipeline that trained it.

        If the version is not in ``models``, the message lists what there is of every pipeline.

        Args:
            remedy: what helps; by default, the job that makes the rows.
        """
        keys = tables.read(self.name).select("model_version", "as_of").distinct().orderBy("as_of", "model_version")
        base, own = VersionName.parse(version).base, versions_of_its_pipeline(tables, version)
        found = [row for row in keys.collect() if not own or VersionName.parse(row.model_version).base in own]
        at = f" at {as_of}" if as_of else ""
        available = [f"{row.model_version} at {row.as_of}" for row in found]
        if own:
            remedy = remedy or f"; run {self.made_by} --as-of {as_of or 'DATE'} --model {base}"
        else:
            remedy = remedy or nearest(version, sorted({row.model_version for row in found}))
        return f"no {self.name} of {version}{at}{purpose}; available: {available or 'none'}{remedy}"

    def check(self, tables: Tables, version: str, as_of: date) -> int:
        """Count the rows of a version and date, and check that they may be published.

        Raises:
            TableError: there are no rows, or one of them is broken.
        """
        found = self.select(tables, version, as_of).agg(
            F.count(F.lit(1)).alias("rows"), F.count_if(self.broken()).alias("broken")
        )
        row = found.first()
        assert row is not None
        if not row["rows"]:
            raise TableError(self.missing(tables, version, as_of, " to publish"))
        if row["broken"]:
            raise TableError(f"{self.name} of {version} at {as_of} were not published: {row['broken']} rows are broken")
        return int(row["rows"])


def _columns(ddl: str) -> list[str]:
    """List the columns of a DDL, without splitting inside a type."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(ddl):
        depth += (character in "<(") - (character in ">)")
        if character == "," and not depth:
            parts.append(ddl[start:position].strip())
            start = position + 1
    return [*parts, ddl[start:].strip()]
