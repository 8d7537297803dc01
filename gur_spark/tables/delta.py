"""Delta tables by path or by name. Their writes can be killed and run again."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.errors import TableError, WriteConflict
from gur_spark.schema import FIXED_SCHEMAS, column_names
from gur_spark.tables.paths import read_parquet

_HARMLESS = {"CREATE TABLE", "OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "COMPUTE STATS", "SET TBLPROPERTIES"}
# Delta measures least and greatest values of each file for reads that skip files. Measuring the columns that no read
# asks for would take a third of the time of a write of events.
_MEASURED = {"events": "'delta.dataSkippingStatsColumns' = 'user_id,event_time,landed_on'"}
# Two runs that create the same table conflict in its metadata or protocol.
_CONFLICTS = ("CONCURRENT_", "METADATA_CHANGED", "PROTOCOL_CHANGED")


@dataclass(frozen=True)
class Commit:
    """One line of a table's history."""

    version: int
    operation: str
    """Such as WRITE or OPTIMIZE."""
    predicate: str | None
    """Predicate of the rows that a write replaced."""
    note: str | None = None
    """Note of the writer."""

    @property
    def harmless(self) -> bool:
        """Whether it is an operation that changes no row."""
        return self.operation in _HARMLESS


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Tables of one pipeline: their place, and how they are read and replaced."""

    spark: SparkSession
    root: str
    catalog: str | None = None
    database: str | None = None

    def folder(self, *parts: str) -> str:
        """A folder under the root, for Parquet and artefacts."""
        return storage.join(self.root, *parts)

    def place(self, table: str) -> str:
        """Path of a table as its library takes it."""
        return self.folder(table)

    def sql_name(self, table: str) -> str:
        """Name of the table in SQL: ``delta.`path` `` or ``catalog.schema.table``."""
        if self.catalog:
            return f"`{self.catalog}`.`{self.database}`.`{table}`"
        return f"delta.`{self.place(table)}`"

    def exists(self, table: str) -> bool:
        """Whether there is such a table."""
        if self.catalog:
            return self.spark.catalog.tableExists(self.sql_name(table))
        return storage.exists(storage.join(self.folder(table), "_delta_log"))

    def version(self, table: str) -> int:
        """Number of the table's newest commit."""
        newest = self.spark.sql(f"DESCRIBE HISTORY {self.sql_name(table)} LIMIT 1").first()
        assert newest is not None  # creating the table is a commit
        return int(newest["version"])

    def commits(self, table: str, after: int, until: int) -> list[Commit]:
        """Commits to the table after one version and until another, newest first.

        Raises:
            TableError: the history of the table does not reach so far back.
        """
        if after >= until:
            return []
        # A few more are read, because others may commit meanwhile.
        found = [c for c in self.newest_commits(table, until - after + 10) if after < c.version <= until]
        if len(found) != until - after:
            raise TableError(
                f"expected all commits {after + 1} to {until} in the history of {self.sql_name(table)}, "
                f"found {sorted(c.version for c in found)}"
            )
        return found

    def newest_commits(self, table: str, most: int) -> list[Commit]:
        """Newest commits in the table's history, newest first."""
        rows = self.spark.sql(f"DESCRIBE HISTORY {self.sql_name(table)} LIMIT {most}").collect()
        found = [
            Commit(r["version"], r["operation"], (r["operationParameters"] or {}).get("predicate"), r["userMetadata"])
            for r in rows
        ]
        return sorted(found, key=lambda commit: -commit.version)

    def identity(self, table: str) -> str:
        """Id of the table. A new table in the same place has another one."""
        detail = self.spark.sql(f"DESCRIBE DETAIL {self.sql_name(table)}").first()
        assert detail is not None
        return str(detail["id"])

    def read(self, table: str, made_by: str = "", version: int | None = None) -> DataFrame:
        """Read the table, or one of its versions.

        Args:
            made_by: name of the job that makes the table, for the message.

        Raises:
            TableError: it does not exist, or another version of gur_spark made it with other columns.
        """
        if not self.exists(table):
            hint = f"; run the {made_by} job first" if made_by else ""
            raise TableError(f"table {self.sql_name(table)} does not exist{hint}")
        if version is not None:
            return self.spark.sql(f"SELECT * FROM {self.sql_name(table)} VERSION AS OF {version}")
        if self.catalog:
            frame = self.spark.read.table(self.sql_name(table))
        else:
            frame = self.spark.read.format("delta").load(self.place(table))
        return self._complete(table, frame)

    def _complete(self, table: str, frame: DataFrame) -> DataFrame:
        """The frame, once its columns are checked.

        Raises:
            TableError: it lacks columns that this version of gur_spark reads.
        """
        expected = column_names(FIXED_SCHEMAS[table]) if table in FIXED_SCHEMAS else []
        if missing := sorted(set(expected) - set(frame.columns)):
            raise TableError(
                f"table {self.sql_name(table)} has no column {', '.join(missing)}: another version of gur_spark made "
                "it; set tables.root to a new place and run the pipeline there, or use that version"
            )
        return frame

    def create(self, table: str, schema: str, partitioned_by: Sequence[str] = ()) -> None:
        """Create an empty table. An existing table stays as it is."""
        if self.exists(table):
            return
        partitions = f" PARTITIONED BY ({', '.join(partitioned_by)})" if partitioned_by else ""
        measured = f" TBLPROPERTIES ({_MEASURED[table]})" if table in _MEASURED else ""
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self.sql_name(table)} ({schema}) USING DELTA{partitions}{measured}"
        )

    def append(self, frame: DataFrame, table: str) -> None:
        """Add the rows of a frame.

        Raises:
            WriteConflict: another run wrote to the table at the same time; nothing was written.
        """
        self._save(frame.write.format("delta").mode("append"), table)

    def replace(self, frame: DataFrame, table: str, predicate: str | None, note: str | None = None) -> None:
        """Replace the rows that satisfy ``predicate`` by the rows of ``frame``, in one commit.

        Args:
            predicate: None for all rows, which saves Delta the check of each new row.
            note: text that the history shows beside the commit.

        Raises:
            TableError: the frame has rows outside the predicate, or another schema; nothing was written.
            WriteConflict: another run wrote to the table at the same time; nothing was written.
        """
        writer = frame.write.format("delta").mode("overwrite")
        writer = writer.option("replaceWhere", predicate) if predicate else writer
        try:
            self._save(writer.option("userMetadata", note) if note else writer, table)
        except AnalysisException as error:
            where = f" where {predicate}" if predicate else ""
            raise TableError(f"{self.sql_name(table)}{where}: the frame does not fit: {error}") from error

    def replace_by_files(self, files: Sequence[str], table: str) -> None:
        """Replace all rows by those of Parquet files; raises what ``replace`` does.

        Columns may stand in any order. A column of the table that the files lack is null.
        """
        rows, there = read_parquet(self.spark, *files), self.read(table).schema
        filled = [
            F.col(f.name) if f.name in rows.columns else F.lit(None).cast(f.dataType).alias(f.name) for f in there
        ]
        self.replace(rows.select(filled), table, None)

    def _save(self, writer: DataFrameWriter, table: str) -> None:
        try:
            if self.catalog:
                writer.saveAsTable(self.sql_name(table))
            else:
                writer.save(self.folder(table))
        except Exception as error:
            # Delta's conflicts have different types in Spark and in Spark Connect.
            if not any(f"[DELTA_{kind}" in str(error) for kind in _CONFLICTS):
                if isinstance(error, AnalysisException) and self.exists(table):
                    # A table of another version of gur_spark is refused by a message with the way out.
                    self.read(table)
                raise
            raise WriteConflict(
                f"{self.sql_name(table)}: another run wrote to it at the same time and won; nothing of this run "
                "was written: run again"
            ) from error


def check_keys(frame: DataFrame, key: Sequence[str], what: str) -> int:
    """Count the rows of a frame, and check that its key is unique and never null.

    Args:
        what: name of the rows, for messages.

    Raises:
        TableError: a key is null or not unique.
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
