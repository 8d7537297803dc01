"""Snapshots: immutable folders of Parquet, each made visible by one row in ``snapshots``."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, overload

import pyarrow as pa
from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.errors import SnapshotError, WriteConflict
from gur_spark.features.declare.manifest import AnyManifest
from gur_spark.features.kernel.state_files import has_saved_state
from gur_spark.models.kind import Form
from gur_spark.snapshots.files import M, read_manifest, row_groups
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account

log = logging.getLogger("gur_spark")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MADE_BY = {Form.AGGREGATES: "aggregate", Form.SEQUENCES: "sequences", Form.INTERACTIONS: "interactions"}
"""Form -> the job that makes its snapshots."""


Key = tuple[Form, date, datetime, str, str]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One row of ``snapshots``."""

    form: Form
    as_of: date
    known_at: datetime
    path: str
    manifest_hash: str
    vocabulary_version: int
    vocabulary_hash: str
    lineage: str
    """The ``events`` table, and the commit of it that the snapshot was made from."""
    rows: int
    checksum: str

    @property
    def key(self) -> "Key":
        """The grain of the table: form, as_of, known_at, manifest_hash and vocabulary_hash."""
        return self.form, self.as_of, self.known_at, self.manifest_hash, self.vocabulary_hash

    @property
    def data(self) -> str:
        """The Parquet folder."""
        return storage.join(self.path, "data")

    @overload
    def manifest(self) -> AnyManifest: ...
    @overload
    def manifest(self, expected: type[M]) -> M: ...
    def manifest(self, expected: type[Any] | None = None) -> AnyManifest:
        """The manifest beside the data; where a type is ``expected``, of this one.

        Raises:
            SnapshotError: it is gone, was altered, or is of another form than expected.
        """
        manifest = read_manifest(self.path) if expected is None else read_manifest(self.path, expected)
        if manifest.hash != self.manifest_hash:
            raise SnapshotError(
                f"{self.form} {self.as_of} at {self.path}: manifest {manifest.hash}, expected {self.manifest_hash}"
            )
        return manifest


@dataclass(frozen=True, kw_only=True)
class MadeSnapshots:
    """The snapshots that a run was asked for, whether it made them or found them made."""

    snapshots: Sequence[Snapshot]
    """Oldest first."""
    inputs: Mapping[str, str]
    """For the run's row: the commit of ``events``, and of aggregates by which route each date was made, and why."""

    @property
    def account(self) -> Account:
        """Entries for the run's row."""
        inputs = dict(self.inputs)
        for snapshot in self.snapshots:
            inputs["vocabulary"] = f"{snapshot.vocabulary_version} {snapshot.vocabulary_hash}"
        return Account(
            inputs=inputs,
            counts={f"rows {s.as_of}": s.rows for s in self.snapshots},
            outputs={str(s.as_of): s.path for s in self.snapshots},
        )


def visible_snapshots(tables: Tables, form: Form | None = None) -> list[Snapshot]:
    """The rows of ``snapshots``, or those of one form, in the order of form, as_of, known_at and time of creation.

    Raises:
        TableError: there is no such table yet.
    """
    # Times as numbers: Spark gives them in the zone of the driver's process.
    made_by = MADE_BY[form or Form.AGGREGATES]
    frame = tables.read("snapshots", made_by=made_by).withColumn("known_at", F.unix_micros("known_at"))
    if form is not None:
        frame = frame.where(F.col("form") == form.value)
    rows = frame.orderBy("created").select(*Snapshot.__dataclass_fields__).collect()
    return sorted((_snapshot(row.asDict()) for row in rows), key=lambda s: (s.form, s.as_of, s.known_at))


def _snapshot(row: Mapping[str, Any]) -> Snapshot:
    known_at = _EPOCH + timedelta(microseconds=row["known_at"])
    return Snapshot(**{**row, "form": Form(row["form"]), "known_at": known_at})


def make_visible(tables: Tables, made: Sequence[Snapshot], run_id: str) -> list[Snapshot]:
    """Write the rows of snapshots in one commit, and return the rows that are visible then.

    A visible snapshot with the same content stays, because models and embeddings name its folder. Its row then has the
    lineage of the new one, whose folder is removed.

    Raises:
        WriteConflict: another run made one of them at the same time; none of these is visible.
    """
    tables.create("snapshots", schema.SNAPSHOTS)
    before = _by_key(tables)
    rows = [_kept(before.get(snapshot.key), snapshot) for snapshot in made]
    while True:
        try:
            _write_rows(tables, rows, run_id)
            break
        except WriteConflict:
            # Rows of other keys are no conflict, but Delta cannot tell.
            if any(_by_key(tables).get(snapshot.key) != before.get(snapshot.key) for snapshot in made):
                raise
    for new, row in zip(made, rows, strict=True):
        if row.path != new.path:
            storage.remove_folder(new.path)
        word = "unchanged, " if row.path != new.path else ""
        log.info("%s %s: %s%s rows, checksum %s", row.form, row.as_of, word, f"{row.rows:,}", row.checksum)
    return rows


def ask_again(tables: Tables, found: Sequence[Snapshot], run_id: str) -> None:
    """Write the rows of found snapshots anew where one of another vocabulary was made since.

    So the newest row of a date and manifest is the one that was asked for last, and ``train`` reads it.
    """
    newest = {snapshot.key[:4]: snapshot for snapshot in visible_snapshots(tables)} if found else {}
    older = [snapshot for snapshot in found if newest[snapshot.key[:4]].key != snapshot.key]
    if older:
        make_visible(tables, older, run_id)


def is_whole(snapshot: Snapshot) -> bool:
    """Whether a snapshot's files still hold all its rows, by their footers."""
    try:
        snapshot.manifest()
        return sum(group.rows for group in row_groups(snapshot.path)) == snapshot.rows
    except (SnapshotError, OSError, pa.ArrowException):
        return False


def _kept(visible: Snapshot | None, made: Snapshot) -> Snapshot:
    """The row to write: the visible snapshot with the new lineage where the content is the same, else the new snapshot.

    A new snapshot with a saved state replaces one without. The visible one's state has a lineage of its own.
    """
    if visible is None:
        return made
    kept = replace(made, path=visible.path)
    if has_saved_state(made.path) and not has_saved_state(visible.path):
        return made
    return kept if replace(visible, lineage=made.lineage) == kept and is_whole(visible) else made


def _by_key(tables: Tables) -> dict[Key, Snapshot]:
    return {snapshot.key: snapshot for snapshot in visible_snapshots(tables)}


def _write_rows(tables: Tables, snapshots: Sequence[Snapshot], run_id: str) -> None:
    names = [column.split()[0] for column in schema.SNAPSHOTS.split(", ")]
    more = {"run_id": run_id, "created": datetime.now(UTC)}
    rows = [tuple((vars(s) | {"form": s.form.value} | more)[name] for name in names) for s in snapshots]
    keys = [
        f"(form = '{s.form}' AND as_of = DATE '{s.as_of}' AND known_at = TIMESTAMP '{s.known_at:%Y-%m-%d %H:%M:%S.%f}' "
        f"AND manifest_hash = '{s.manifest_hash}' AND vocabulary_hash = '{s.vocabulary_hash}')"
        for s in snapshots
    ]
    frame = tables.spark.createDataFrame(rows, schema.SNAPSHOTS).coalesce(1)
    tables.replace(frame, "snapshots", " OR ".join(keys))
