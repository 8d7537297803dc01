"""Aggregate snapshots: written as immutable folders, made visible by one row in ``snapshots``."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.config import Config
from gur_spark.errors import SnapshotError
from gur_spark.events.vocabulary import Vocabulary, encode, read_vocabulary
from gur_spark.features import windows
from gur_spark.runs import Run
from gur_spark.schema import Manifest, NumericField, make_manifest
from gur_spark.tables import Tables, check_keys

log = logging.getLogger("gur_spark")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One row of ``snapshots``."""

    as_of: date
    known_at: datetime
    path: str
    manifest_hash: str
    vocabulary_version: int
    vocabulary_hash: str
    rows: int
    checksum: str

    @property
    def data(self) -> str:
        """The Parquet folder."""
        return storage.join(self.path, "data")

    def manifest(self) -> Manifest:
        """The manifest beside the data.

        Raises:
            SnapshotError: it is gone, or was altered.
        """
        try:
            manifest = Manifest.from_json(storage.read_text(storage.join(self.path, "manifest.json")))
        except (FileNotFoundError, ValueError) as error:
            raise SnapshotError(f"snapshot {self.as_of} at {self.path}: {error}") from error
        if manifest.hash != self.manifest_hash:
            raise SnapshotError(
                f"snapshot {self.as_of} at {self.path}: manifest {manifest.hash}, expected {self.manifest_hash}"
            )
        return manifest


def manifest_of(config: Config) -> Manifest:
    """The manifest a configuration declares."""
    numeric = [NumericField(name=f.name, step=f.step, transform=f.transform) for f in config.fields.numeric]
    categorical = [f.name for f in config.fields.categorical]
    return make_manifest(config.fields.user_id.type, config.aggregates.windows, numeric, categorical)


def aggregate_snapshot(
    tables: Tables,
    config: Config,
    as_of: date,
    run: Run,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
) -> Snapshot:
    """Compute the snapshot of ``as_of``, write its folder, and make it visible.

    Only rows that had landed before ``known_at`` count; by default as_of midnight UTC plus the configured delay.

    A killed run leaves a folder that no row names; running again makes a new one. When the content is
    that of the visible snapshot, the visible one stays, so that what was made from it still names it.

    Raises:
        TableError: ``events`` or ``vocabulary`` does not exist, or a user has two rows.
        SnapshotError: nobody had an event in the longest window and no users list is given.
    """
    manifest = manifest_of(config)
    vocabulary = read_vocabulary(tables, vocabulary_version)
    known_at = known_at or windows.known_at(as_of, config.aggregates.delay_days)
    path = tables.folder("aggregates", as_of.isoformat(), run.id)
    frame = _aggregates(tables, config, manifest, vocabulary, as_of, known_at)
    frame.write.mode("overwrite").parquet(storage.join(path, "data"))
    storage.write_text(storage.join(path, "manifest.json"), manifest.to_json())
    written = tables.spark.read.parquet(storage.join(path, "data"))
    rows, content = check_content(written, f"aggregates of {as_of}")
    if not rows:
        storage.remove_folder(path)
        raise SnapshotError(
            f"no event in the {manifest.windows[-1]} days before {as_of} that had landed before "
            f"{known_at:%Y-%m-%d %H:%M}; {_range(tables)}"
        )
    snapshot = Snapshot(
        as_of=as_of,
        known_at=known_at,
        path=path,
        manifest_hash=manifest.hash,
        vocabulary_version=vocabulary.version,
        vocabulary_hash=vocabulary.hash,
        rows=rows,
        checksum=content,
    )
    visible = _same_content(tables, snapshot)
    if visible:
        storage.remove_folder(path)
        log.info("snapshot %s: unchanged, %s users, checksum %s", as_of, f"{rows:,}", visible.checksum)
        return visible
    _make_visible(tables, snapshot, run.id)
    log.info("snapshot %s: %s users, checksum %s", as_of, f"{rows:,}", snapshot.checksum)
    return snapshot


def find_snapshot(tables: Tables, config: Config, as_of: date, known_at: datetime | None = None) -> Snapshot:
    """The visible snapshot of a date, as known at the configured delay if no other moment is given.

    Raises:
        SnapshotError: there is none; the message lists the dates there are.
    """
    known_at = known_at or windows.known_at(as_of, config.aggregates.delay_days)
    found = _visible(tables, as_of, known_at)
    if found is None:
        known = [f"{s.as_of} (known at {s.known_at:%Y-%m-%d %H:%M})" for s in visible_snapshots(tables)]
        raise SnapshotError(f"no snapshot of {as_of} known at {known_at:%Y-%m-%d %H:%M}; available: {known}")
    return found


def visible_snapshots(tables: Tables) -> list[Snapshot]:
    """All rows of ``snapshots``, in the order of as_of and known_at.

    Raises:
        TableError: there is no such table yet.
    """
    # As a number: Spark gives times in the zone of the driver's process.
    frame = tables.read("snapshots", made_by="aggregate").withColumn("known_at", F.unix_micros("known_at"))
    rows = [row.asDict() for row in frame.select(*Snapshot.__dataclass_fields__).collect()]
    snapshots = [Snapshot(**{**row, "known_at": _EPOCH + timedelta(microseconds=row["known_at"])}) for row in rows]
    return sorted(snapshots, key=lambda s: (s.as_of, s.known_at))


def stale_snapshots(tables: Tables, config: Config, landings: Collection[str]) -> list[Snapshot]:
    """The visible snapshots that these landings (ISO dates; another name is the whole log), just ingested, may change.

    A landing counts for a snapshot when it came before ``known_at`` and its events, which may be a little ahead of the
    landing's date, reach the longest window (which is not asked where the windows are not the configured ones).
    """
    if not tables.exists("snapshots"):
        return []
    manifest = manifest_of(config)
    window = timedelta(days=manifest.windows[-1]) + _AHEAD

    def reaches(landing: str, snapshot: Snapshot) -> bool:
        if not _is_day(landing):
            return True
        day = date.fromisoformat(landing)
        began = snapshot.manifest_hash != manifest.hash or day >= snapshot.as_of - window
        return began and windows.known_at(day, 0) < snapshot.known_at

    return [s for s in visible_snapshots(tables) if any(reaches(landing, s) for landing in landings)]


def _is_day(landing: str) -> bool:
    try:
        return bool(date.fromisoformat(landing))
    except ValueError:
        return False


def check_content(frame: DataFrame, what: str) -> tuple[int, str]:
    """Row count and content checksum of aggregates, in one pass.

    The checksum is over rows, whatever their order: the exact sum of a 64-bit hash per row.
    NaN and -0.0 do not occur in aggregates, so equal content means equal hashes.

    Raises:
        TableError: a user is null or stands twice.
    """
    row_hash = F.xxhash64(*frame.columns).cast("decimal(38,0)")
    found = check_keys(frame, ["user_id"], what, hashes=F.sum(row_hash))
    return found["rows"], f"{int(found['hashes'] or 0) % 2**64:016x}"


def _aggregates(
    tables: Tables, config: Config, manifest: Manifest, vocabulary: Vocabulary, as_of: date, known_at: datetime
) -> DataFrame:
    events = windows.snapshot_events(tables.read("events", made_by="ingest"), as_of, known_at, manifest.windows[-1])
    encoded = encode(events, vocabulary, manifest.categorical)
    users = tables.spark.read.parquet(storage.absolute(config.aggregates.users)) if config.aggregates.users else None
    return windows.aggregate(encoded, manifest, vocabulary.sizes, as_of, users)


def _visible(tables: Tables, as_of: date, known_at: datetime) -> Snapshot | None:
    return next((s for s in visible_snapshots(tables) if (s.as_of, s.known_at) == (as_of, known_at)), None)


def _same_content(tables: Tables, made: Snapshot) -> Snapshot | None:
    """The visible snapshot, when it is what was just made."""
    visible = _visible(tables, made.as_of, made.known_at) if tables.exists("snapshots") else None
    if visible is None or replace(visible, path=made.path) != made or not storage.exists(visible.data):
        return None
    return visible


def _make_visible(tables: Tables, snapshot: Snapshot, run_id: str) -> None:
    values = {**vars(snapshot), "run_id": run_id, "created": datetime.now(UTC)}
    names = [column.split()[0] for column in schema.SNAPSHOTS.split(", ")]
    frame = tables.spark.createDataFrame([tuple(values[name] for name in names)], schema.SNAPSHOTS).coalesce(1)
    tables.create("snapshots", schema.SNAPSHOTS)
    known_at = f"TIMESTAMP '{snapshot.known_at:%Y-%m-%d %H:%M:%S.%f}'"
    tables.replace(frame, "snapshots", f"as_of = DATE '{snapshot.as_of}' AND known_at = {known_at}")


def _range(tables: Tables) -> str:
    found = (
        tables.read("events")
        .agg(F.min("event_time"), F.max("event_time"), F.min("landed_on"), F.max("landed_on"))
        .first()
    )
    assert found is not None
    return f"events run from {found[0]} to {found[1]}, landed from {found[2]} to {found[3]}"
