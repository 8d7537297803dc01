"""Delta commits by the library deltalake, without a JVM, for sessions on Sail.

Sail reads Delta well, but its writes cannot be trusted: a dynamic overwrite wipes the table, and rows outside
``replaceWhere`` are accepted. So Sail writes a frame as Parquet into a staging folder, and deltalake reads it batch by
batch into the table. A write takes disk for one more copy of the frame, and memory for a few batches.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from pyspark.sql import DataFrame

from gur_spark import storage
from gur_spark.errors import TableError, WriteConflict
from gur_spark.tables.delta import Commit, Tables
from gur_spark.tables.paths import plain_path

_ALL = "true"
"""Predicate of all rows. Without one, deltalake does not see rows that another run appends meanwhile."""

_NOTE = "userMetadata"
"""Name that Spark gives to the note of a commit."""


@dataclass(frozen=True, kw_only=True)
class DeltaRsTables(Tables):
    """``Tables`` by path: the session computes and reads, and deltalake commits."""

    def place(self, table: str) -> str:
        return plain_path(self.folder(table))

    def version(self, table: str) -> int:
        return int(self._open(table).version())

    def newest_commits(self, table: str, most: int) -> list[Commit]:
        return [
            Commit(h["version"], h["operation"], h.get("operationParameters", {}).get("predicate"), h.get(_NOTE))
            for h in self._open(table).history(most)
        ]

    def identity(self, table: str) -> str:
        return str(self._open(table).metadata().id)

    def create(self, table: str, schema: str, partitioned_by: Sequence[str] = ()) -> None:
        if self.exists(table):
            return
        columns = Schema.from_json(self.spark.createDataFrame([], schema).schema.json())
        try:
            DeltaTable.create(self.place(table), columns, mode="ignore", partition_by=list(partitioned_by))
        except CommitFailedError:
            # Another run created it meanwhile.
            if not self.exists(table):
                raise

    def append(self, frame: DataFrame, table: str) -> None:
        self._commit(frame, table, mode="append")

    def replace(self, frame: DataFrame, table: str, predicate: str | None, note: str | None = None) -> None:
        # deltalake reads a bare text in the zone of the column, UTC, and `TIMESTAMP ''` as a time without a zone.
        bare = re.sub(r"\bTIMESTAMP\s*(?=')", "", predicate) if predicate else _ALL
        properties = CommitProperties(custom_metadata={_NOTE: note}) if note else None
        try:
            self._commit(frame, table, mode="overwrite", predicate=bare, commit_properties=properties)
        except DeltaError as error:
            where = f" where {predicate}" if predicate else ""
            raise TableError(f"{self.sql_name(table)}{where}: the frame does not fit: {error}") from error

    def replace_by_files(self, files: Sequence[str], table: str) -> None:
        # The engine would read these files only to write them once more.
        opened = self._open(table)
        filesystem, _ = storage.open_filesystem(files[0])
        inner = [storage.open_filesystem(file)[1] for file in files]
        rows = ds.dataset(inner, pa.schema(opened.schema()), filesystem=filesystem, format="parquet").scanner()
        try:
            self._write(opened, rows.to_reader(), table, mode="overwrite", predicate=_ALL)
        except DeltaError as error:
            raise TableError(f"{self.sql_name(table)}: the files do not fit: {error}") from error

    def _commit(self, frame: DataFrame, table: str, **how: Any) -> None:
        # Opened before the frame is computed, so that a commit of another run meanwhile is a conflict.
        opened = self._open(table)
        with self._staged(frame, pa.schema(opened.schema()), table) as rows:
            self._write(opened, rows, table, **how)

    def _write(self, opened: DeltaTable, rows: pa.RecordBatchReader, table: str, **how: Any) -> None:
        try:
            write_deltalake(opened, rows, **how)
        except CommitFailedError as error:
            raise WriteConflict(
                f"{self.sql_name(table)}: another run wrote to it at the same time and won; nothing of this run "
                "was written: run again"
            ) from error

    @contextmanager
    def _staged(self, frame: DataFrame, schema: pa.Schema, table: str) -> Iterator[pa.RecordBatchReader]:
        """Compute the frame, and stream it in batches of the table's schema."""
        if sorted(frame.columns) != sorted(schema.names):
            # A table of another version of gur_spark is refused by a message with the way out.
            self.read(table)
            raise TableError(
                f"{self.sql_name(table)}: the frame does not fit: expected columns {schema.names}, got {frame.columns}"
            )
        folder = self.folder("_staging", uuid4().hex)
        try:
            frame.write.mode("overwrite").parquet(folder)
            filesystem, inner = storage.open_filesystem(folder)
            filesystem.create_dir(inner, recursive=True)
            yield ds.dataset(inner, schema, filesystem=filesystem, format="parquet").scanner().to_reader()
        finally:
            storage.remove_folder(folder)

    def _open(self, table: str) -> DeltaTable:
        return DeltaTable(self.place(table))
