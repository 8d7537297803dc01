"""Users whose inputs have not changed since they were last embedded; their embedding is copied.

Every commit of the scoring step to ``embeddings`` says in the table's history which snapshot its rows were made from
(``gur_spark.outputs.notes``).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark import schema
from gur_spark.errors import ModelError, SnapshotError, TableError, WriteConflict
from gur_spark.features.checksum import row_hashes
from gur_spark.features.declare.manifest import Manifest
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.outputs.notes import read_note
from gur_spark.snapshots.files import row_groups
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables

COMMITS = 1000
"""Commits of a table that are searched, at most."""

_ROWS = 1 << 14
"""Rows of a snapshot that are read at a time."""

CANNOT_COMPARE = (SnapshotError, TableError, ModelError)
"""Errors that give the reason why everyone must be embedded."""


@dataclass(frozen=True, kw_only=True)
class EarlierRows:
    """Embeddings of a version and date, as one commit of ``embeddings`` left them."""

    model_version: str
    as_of: date
    snapshot: str
    """Folder of the snapshot that they were made from."""
    lineage: str
    """Lineage of that snapshot."""
    commit: int
    """Newest commit of the table when they were found."""

    def rows(self, tables: Tables) -> DataFrame:
        """Read the rows of the table."""
        rows = tables.read(EMBEDDINGS.name, version=self.commit)
        return rows.where((F.col("model_version") == self.model_version) & (F.col("as_of") == F.lit(self.as_of)))


def find_rows(tables: Tables, model_version: str, as_of: date) -> EarlierRows:
    """Find the embeddings of a version and date, with the snapshot that they were made from.

    Raises:
        TableError: there are none, or their snapshot is not known; the message says why.
    """
    commits = tables.newest_commits(EMBEDDINGS.name, COMMITS) if tables.exists(EMBEDDINGS.name) else []
    what = f"embeddings of {model_version} at {as_of}"
    for commit in commits:
        note = read_note(commit)
        if note and (note.model_version, note.as_of) == (model_version, as_of):
            if note.snapshot is None or note.lineage is None:
                raise TableError(f"{what} were mapped from those of {note.mapped_from}: ask for that version")
            return EarlierRows(
                model_version=model_version, as_of=as_of, snapshot=note.snapshot, lineage=note.lineage,
                commit=commits[0].version,
            )  # fmt: skip
        if not note and not commit.harmless:
            raise TableError(
                f"{what}: what they were made from is not known, since version {commit.version} of the table "
                f"({commit.operation}) may have changed them; score the date once more, all users"
            )
    raise TableError(f"no {what} in the last {len(commits)} commits of the table; score that date first")


def check_untouched(tables: Tables, table: str, since: int, versions: Collection[str], as_of: date | None) -> None:
    """Check that no commit after ``since`` may have changed the rows of these versions at the date (None: any date).

    Raises:
        WriteConflict: one has, or may have.
    """
    for commit in tables.newest_commits(table, COMMITS):
        note = read_note(commit)
        ours = note is not None and note.model_version in versions and as_of in (None, note.as_of)
        if commit.version > since and (ours or (note is None and not commit.harmless)):
            raise WriteConflict(
                f"{table} of {', '.join(versions)}: another run wrote to it at the same time and won (version "
                f"{commit.version} of the table); nothing of this one is in it: run again"
            )


def check_follows(tables: Tables, mapped: str, version: str, as_of: date) -> None:
    """Check that mapped rows of a date were written after the rows of the version that they were mapped from.

    A scoring that was killed after it replaced rows leaves older mapped rows beside them.

    Raises:
        TableError: the mapped rows are older.
    """
    for commit in tables.newest_commits(EMBEDDINGS.name, COMMITS):
        note = read_note(commit)
        if note and note.as_of == as_of and note.model_version == mapped:
            return
        if note and note.as_of == as_of and note.model_version == version:
            raise TableError(
                f"embeddings of {mapped} at {as_of} were mapped from older rows of {version}; run score --model "
                f"{version} --as-of {as_of} again"
            )


def newest_rows(tables: Tables, model_version: str, as_of: date) -> EarlierRows:
    """Find the embeddings of a version at the newest date up to and including ``as_of``.

    Raises:
        TableError: there are none, or their snapshot is not known.
    """
    known = EMBEDDINGS.dates(tables, model_version) if tables.exists(EMBEDDINGS.name) else []
    earlier = [day for day in known if day <= as_of]
    if not earlier:
        raise TableError(f"no embeddings of {model_version} up to {as_of}")
    return find_rows(tables, model_version, earlier[-1])


def compare(tables: Tables, before: EarlierRows, now: Snapshot, manifest: Manifest) -> DataFrame:
    """Compare the inputs of each user with those of the earlier embedding.

    One row per user_id of the snapshot ``now``: row_group and row are its place there. ``same`` is true where the rows
    ``before`` have an embedding that was made of equal inputs.

    Raises:
        SnapshotError: the files of the earlier snapshot are gone; ``clean`` removes them once it is replaced.
    """
    earlier = fingerprints(tables.spark, before.snapshot, manifest).select("user_id", F.col("fingerprint").alias("was"))
    embedded = earlier.join(before.rows(tables).select("user_id"), "user_id", "left_semi")
    both = fingerprints(tables.spark, now.path, manifest).join(embedded, "user_id", "left")
    same = F.coalesce(F.col("fingerprint") == F.col("was"), F.lit(False))
    return both.select("user_id", "row_group", "row", same.alias("same"))


def fingerprints(spark: SparkSession, snapshot: str, manifest: Manifest) -> DataFrame:
    """Hash the model's inputs: one row per user_id of a snapshot, a 64-bit fingerprint and the place of the row.

    Raises:
        SnapshotError: there are no Parquet files.
    """
    groups, columns = row_groups(snapshot), ["user_id", *manifest.inputs]

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (number for batch in batches for number in batch["id"].to_pylist()):
            first = 0
            for rows in groups[number].read(columns, _ROWS):
                yield _of_rows(rows, manifest.inputs, number, first)
                first += rows.num_rows

    user_id = schema.SQL_USER_ID[manifest.user_id_type]
    return spark.range(0, len(groups), 1, len(groups)).mapInArrow(
        kernel, f"user_id {user_id}, fingerprint BIGINT, row_group INT, row INT"
    )


def _of_rows(rows: pa.RecordBatch, inputs: Sequence[str], group: int, first: int) -> pa.RecordBatch:
    hashes = row_hashes(pa.Table.from_batches([rows]).select(inputs)).view(np.int64)
    places = np.arange(first, first + rows.num_rows, dtype=np.int32)
    return pa.RecordBatch.from_arrays(
        [rows["user_id"], pa.array(hashes), pa.array(np.full(len(places), group, np.int32)), pa.array(places)],
        names=["user_id", "fingerprint", "row_group", "row"],
    )
