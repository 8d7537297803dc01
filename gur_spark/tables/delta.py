"""Delta tables, by path or by name, with writes that can be killed and run again."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.errors import TableError, WriteConflict
from gur_spark.schema import ALIKE, column_names

_HARMLESS = {"CREATE TABLE", "OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "COMPUTE STATS", "SET TBLPROPERTIES"}
# Two runs that make a table for the first time conflict in its metadata or protocol.
_CONFLICTS = ("CONCURRENT_", "METADATA_CHANGED", "PROTOCOL_CHANGED")


@dataclass(frozen=True)
class Commit:
    """One line of a table's history."""

    version: int
    operation: str
    """Such as WRITE or OPTIMIZE."""
    predicate: str | None
    """Which rows a write replaced."""
    note: str | None = None
    """What the writer said of it."""

    @property
    def harmless(self) -> bool:
        """Whether it is of a kind that changes no row."""
        return self.operation in _HARMLESS


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Where one pipeline's tables are, and how they are read and replaced."""

    spark: SparkSession
    root: str
    catalog: str | None = None
    database: str | None = None

    def folder(self, *parts: str) -> str:
        """A folder under the root, for Parquet and artefacts."""
        return storage.join(self.root, *parts)

    def sql_name(self, table: str) -> str:
        """The table as SQL names it: ``delta.`path` `` or ``catalog.schema.table``."""
        if self.catalog:
            return f"`{self.catalog}`.`{self.database}`.`{table}`"
        return f"delta.`{self.folder(table)}`"

    def exists(self, table: str) -> bool:
        if self.catalog:
            return self.spark.catalog.tableExists(self.sql_name(table))
        return storage.exists(storage.join(self.folder(table), "_delta_log"))

    def version(self, table: str) -> int:
        """The number of the table's last commit."""
        newest = self.spark.sql(f"DESCRIBE HISTORY {self.sql_name(table)} LIMIT 1").first()
        assert newest is not None  # its creation is a commit
        return int(newest["version"])

    def commits(self, table: str, after: int, until: int) -> list[Commit]:
        """What was done to the table after one version, until another, newest first.

        Raises:
            TableError: its history does not reach so far back.
        """
        if after >= until:
            return []
        # A few more: others may commit meanwhile.
        found = [c for c in self.newest_commits(table, until - after + 10) if after < c.version <= until]
        if len(found) != until - after:
            raise TableError(f"the history of {self.sql_name(table)} does not tell all of versions {after} to {until}")
        return found

    def newest_commits(self, table: str, most: int) -> list[Commit]:
        """The last commits that the table's history tells of, newest first."""
        rows = self.spark.sql(f"DESCRIBE HISTORY {self.sql_name(table)} LIMIT {most}").collect()
        found = [
            Commit(r["version"], r["operation"], (r["operationParameters"] or {}).get("predicate"), r["userMetadata"])
            for r in rows
        ]
        return sorted(found, key=lambda commit: -commit.version)

    def identity(self, table: str) -> str:
        """An id that a table made anew in the same place does not have."""
        detail = self.spark.sql(f"DESCRIBE DETAIL {self.sql_name(table)}").first()
        assert detail is not None
        return str(detail["id"])

    def read(self, table: str, made_by: str = "", version: int | None = None) -> DataFrame:
        """The table as it stands, or stood after a commit.

        Raises:
            TableError: it does not exist, and ``made_by`` names the job that makes it; or another version of gur_spark
                made it with other columns.
        """
        if not self.exists(table):
            hint = f"; run the {made_by} job first" if made_by else ""
            raise TableError(f"table {self.sql_name(table)} does not exist{hint}")
        if version is not None:
            return self.spark.sql(f"SELECT * FROM {self.sql_name(table)} VERSION AS OF {version}")
        if self.catalog:
            frame = self.spark.read.table(self.sql_name(table))
        else:
            frame = self.spark.read.format("delta").load(self.folder(table))
        return self._complete(table, frame)

    def _complete(self, table: str, frame: DataFrame) -> DataFrame:
        """The frame, if it has the columns that this version of gur_spark asks for."""
        expected = column_names(ALIKE[table]) if table in ALIKE else []
        if missing := sorted(set(expected) - set(frame.columns)):
            raise TableError(
                f"table {self.sql_name(table)} has no column {', '.join(missing)}: another version of gur_spark made "
                "it; set tables.root to a new place and run the pipeline there, or go on with that version"
            )
        return frame

    def create(self, table: str, schema: str, partitioned_by: Sequence[str] = ()) -> None:
        """Make an empty table where there is none; an existing one is left as it is."""
        if self.exists(table):
            return
        partitions = f" PARTITIONED BY ({', '.join(partitioned_by)})" if partitioned_by else ""
        self.spark.sql(f"CREATE TABLE IF NOT EXISTS {self.sql_name(table)} ({schema}) USING DELTA{partitions}")

    def append(self, frame: DataFrame, table: str) -> None:
        self._save(frame.write.format("delta").mode("append"), table)

    def replace(self, frame: DataFrame, table: str, predicate: str, note: str | None = None) -> None:
        """Replace the rows that satisfy ``predicate`` by ``frame``, in one commit, whose history keeps the ``note``.

        Raises:
            TableError: the frame has rows outside the predicate, or another schema; nothing was written.
            WriteConflict: another run wrote to the table meanwhile; nothing was written.
        """
        writer = frame.write.format("delta").mode("overwrite").option("replaceWhere", predicate)
        try:
            self._save(writer.option("userMetadata", note) if note else writer, table)
        except AnalysisException as error:
            raise TableError(f"{self.sql_name(table)} where {predicate}: the frame does not fit: {error}") from error

    def _save(self, writer: DataFrameWriter, table: str) -> None:
        try:
            if self.catalog:
                writer.saveAsTable(self.sql_name(table))
            else:
                writer.save(self.folder(table))
        except Exception as error:
            # Spark and Spark Connect raise Delta's conflicts as different types.
            if not any(f"[DELTA_{kind}" in str(error) for kind in _CONFLICTS):
                raise
            raise WriteConflict(
                f"{self.sql_name(table)}: another run wrote to it at the same time and won; nothing of this one is in "
                "it: run again"
            ) from error


def check_keys(frame: DataFrame, key: Sequence[str], what: str) -> int:
    """Row count of a frame whose key is unique and never null.

    Raises:
        TableError: a key is null or stands twice.
    """
    null_key = F.greatest(*[F.col(k).isNull().cast("int") for k in key], F.lit(0))
    found = frame.agg(
        F.count(F.lit(1)).alias("rows"),
        F.coalesce(F.sum(null_key), F.lit(0)).alias("nulls"),
        F.count_distinct(*[F.col(k) for k in key]).alias("keys"),
    ).first()
    assert found is not None
    if found["nulls"]:
        raise TableError(f"{what}: {found['nulls']} rows have no {' or '.join(key)}")
    if found["keys"] != found["rows"]:
        raise TableError(
            f"{what}: {found['rows']} rows for {found['keys']} different ({', '.join(key)}); expected one each"
        )
    return int(found["rows"])
