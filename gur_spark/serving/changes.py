"""Which users a date need not embed: those whose inputs are the ones that an embedding of theirs was made of.

Every commit of the scoring step to ``embeddings`` says in the table's history which snapshot its rows were made from,
or which version's rows they were mapped from.
So rows and what they were made from cannot come apart, however often a run is killed or raced by another.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark import schema
from gur_spark.errors import SnapshotError, TableError, WriteConflict
from gur_spark.features.checksum import row_hashes
from gur_spark.features.declare.manifest import Manifest
from gur_spark.snapshots.files import row_groups
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Commit, Tables

COMMITS = 1000
"""Of ``embeddings``, how many are gone back through at most."""

_ROWS = 1 << 14
"""Rows of a snapshot that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The rows of a version and date, as one commit of ``embeddings`` left them."""

    model_version: str
    as_of: date
    snapshot: str
    """Folder of the snapshot that they were made from."""
    lineage: str
    """What that snapshot was made from."""
    commit: int
    """The table's newest when they were found."""

    def rows(self, tables: Tables) -> DataFrame:
        """The table's rows."""
        rows = tables.read("embeddings", version=self.commit)
        return rows.where((F.col("model_version") == self.model_version) & (F.col("as_of") == F.lit(self.as_of)))


def note(model_version: str, snapshot: Snapshot) -> str:
    """What a commit says of the rows that it replaces."""
    made_from = {"snapshot": snapshot.path, "lineage": snapshot.lineage}
    return json.dumps({"model_version": model_version, "as_of": snapshot.as_of.isoformat(), **made_from})


def mapped_note(model_version: str, as_of: date, mapped_from: str) -> str:
    """The same of rows that were mapped from those of another version (``gur_spark.spaces.maps``)."""
    return json.dumps({"model_version": model_version, "as_of": as_of.isoformat(), "mapped_from": mapped_from})


def find_scored(tables: Tables, model_version: str, as_of: date) -> Scored:
    """The rows of a version and date, with what they were made from.

    Raises:
        TableError: there are none, or it is not known what they were made from; the message says why.
    """
    commits = tables.newest_commits("embeddings", COMMITS) if tables.exists("embeddings") else []
    what = f"embeddings of {model_version} at {as_of}"
    for commit in commits:
        said = _said(commit)
        if (said.get("model_version"), said.get("as_of")) == (model_version, as_of.isoformat()):
            if "mapped_from" in said:
                raise TableError(f"{what} were mapped from those of {said['mapped_from']}: ask for that version")
            return Scored(
                model_version=model_version, as_of=as_of, snapshot=said["snapshot"], lineage=said["lineage"],
                commit=commits[0].version,
            )  # fmt: skip
        if not said and not commit.harmless:
            raise TableError(
                f"{what}: what they were made from is not known, since version {commit.version} of the table "
                f"({commit.operation}) may have changed them; score the date once more, all users"
            )
    raise TableError(f"no {what} in the last {len(commits)} commits of the table; score that date first")


def check_untouched(tables: Tables, since: int, versions: Collection[str], as_of: date | None) -> None:
    """Whether no commit after ``since`` may have changed the rows of these versions and the date; None: of any date.

    Raises:
        WriteConflict: one has, or may have.
    """
    for commit in tables.newest_commits("embeddings", COMMITS):
        said = _said(commit)
        ours = said.get("model_version") in versions and as_of in (None, date.fromisoformat(said["as_of"]))
        if commit.version > since and (ours or (not said and not commit.harmless)):
            raise WriteConflict(
                f"embeddings of {', '.join(versions)}: another run wrote to it at the same time and won (version "
                f"{commit.version} of the table); nothing of this one is in it: run again"
            )


def _said(commit: Commit) -> dict[str, str]:
    """What ``note`` or ``mapped_note`` wrote; empty for a commit of anybody else, whatever it says."""
    try:
        said = json.loads(commit.note or "")
    except ValueError:
        return {}
    return said if isinstance(said, dict) and said.keys() >= {"model_version", "as_of"} else {}


def newest_scored(tables: Tables, model_version: str, as_of: date) -> Scored:
    """The rows of a version and the newest date up to ``as_of``, that one included.

    Raises:
        TableError: there are none, or it is not known what they were made from.
    """
    if not tables.exists("embeddings"):
        raise TableError(f"no embeddings of {model_version} up to {as_of}")
    rows = tables.read("embeddings").where(F.col("model_version") == model_version)
    newest = rows.where(F.col("as_of") <= F.lit(as_of)).agg(F.max("as_of")).collect()[0][0]
    if newest is None:
        raise TableError(f"no embeddings of {model_version} up to {as_of}")
    return find_scored(tables, model_version, newest)


def compare(tables: Tables, before: Scored, now: Snapshot, manifest: Manifest) -> DataFrame:
    """One row per user_id of a snapshot: its row_group and row there, and ``same``, whether there is an embedding
    among the rows ``before`` that was made of equal inputs.

    Raises:
        SnapshotError: the files of the snapshot before are gone, as ``clean`` leaves them once it is replaced.
    """
    earlier = fingerprints(tables.spark, before.snapshot, manifest).select("user_id", F.col("fingerprint").alias("was"))
    embedded = earlier.join(before.rows(tables).select("user_id"), "user_id", "left_semi")
    both = fingerprints(tables.spark, now.path, manifest).join(embedded, "user_id", "left")
    same = F.coalesce(F.col("fingerprint") == F.col("was"), F.lit(False))
    return both.select("user_id", "row_group", "row", same.alias("same"))


def fingerprints(spark: SparkSession, snapshot: str, manifest: Manifest) -> DataFrame:
    """One row per user_id of a snapshot: a 64-bit fingerprint of what a model takes, and where the row is.

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


CANNOT_COMPARE = (SnapshotError, TableError)
"""Why everyone must be embedded."""
