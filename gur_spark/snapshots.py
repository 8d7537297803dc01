"""Aggregate snapshots: written as immutable folders, made visible by one row in ``snapshots``."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.config import Config
from gur_spark.errors import SnapshotError
from gur_spark.events.vocabulary import Vocabulary, encode, read_vocabulary
from gur_spark.features import windows
from gur_spark.runs import Run
from gur_spark.schema import Manifest, NumericField, make_manifest
from gur_spark.snapshot_files import row_groups
from gur_spark.tables import Tables

log = logging.getLogger("gur_spark")

PASS_DATES = 31
"""Dates of one pass: what a worker holds grows with them."""

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
    events_version: int
    """The commit of ``events`` it was made from."""
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


def aggregate_snapshots(
    tables: Tables,
    config: Config,
    dates: Collection[date],
    run: Run,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
) -> list[Snapshot]:
    """Compute the snapshots of some dates, write their folders, and make them visible; oldest first.

    Only rows that had landed before ``known_at`` count; by default a date's midnight UTC plus the configured delay.
    Up to ``PASS_DATES`` dates are one pass over the events, and visible when it ends; a date that was made from the
    same events, vocabulary and declarations is not made again. So a killed run leaves folders that no row names, and
    running again goes on after the last pass that ended. When the content is that of the visible snapshot, the
    visible one stays, so that what was made from it still names it.

    Raises:
        TableError: ``events`` or ``vocabulary`` does not exist.
        SnapshotError: nobody had an event in a date's longest window and no users list is given.
    """
    wanted = _Wanted.of(tables, config, vocabulary_version)
    moments = {day: known_at or windows.known_at(day, config.aggregates.delay_days) for day in sorted(set(dates))}
    there = _made_already(tables, config, wanted, moments)
    missing = [day for day in moments if day not in there]
    for start in range(0, len(missing), PASS_DATES):
        some = missing[start : start + PASS_DATES]
        there |= _aggregate_pass(tables, config, wanted, {day: moments[day] for day in some}, run)
    return [there[day] for day in moments]


def aggregate_snapshot(
    tables: Tables,
    config: Config,
    as_of: date,
    run: Run,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
) -> Snapshot:
    """``aggregate_snapshots`` of one date."""
    return aggregate_snapshots(tables, config, [as_of], run, vocabulary_version, known_at)[0]


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What the snapshots of a run are made from and of."""

    manifest: Manifest
    vocabulary: Vocabulary
    events_version: int

    @classmethod
    def of(cls, tables: Tables, config: Config, vocabulary_version: int | None) -> "_Wanted":
        tables.read("events", made_by="ingest")
        return cls(
            manifest=manifest_of(config),
            vocabulary=read_vocabulary(tables, vocabulary_version),
            events_version=tables.version("events"),
        )


def _made_already(
    tables: Tables, config: Config, wanted: _Wanted, moments: Mapping[date, datetime]
) -> dict[date, Snapshot]:
    """Visible snapshots that another run would make again; none with a users list, which may have changed."""
    if config.aggregates.users or not tables.exists("snapshots"):
        return {}
    lineage = (wanted.manifest.hash, wanted.vocabulary.version, wanted.vocabulary.hash, wanted.events_version)
    found = {
        s.as_of: s
        for s in visible_snapshots(tables)
        if s.known_at == moments.get(s.as_of)
        and (s.manifest_hash, s.vocabulary_version, s.vocabulary_hash, s.events_version) == lineage
        and _whole(s)
    }
    for snapshot in found.values():
        log.info("snapshot %s: made already from these events, checksum %s", snapshot.as_of, snapshot.checksum)
    return found


def _whole(snapshot: Snapshot) -> bool:
    """Whether its files still hold its rows, as their footers say."""
    try:
        snapshot.manifest()
        return sum(group.rows for group in row_groups(snapshot.path)) == snapshot.rows
    except (SnapshotError, OSError):
        return False


def _aggregate_pass(
    tables: Tables, config: Config, wanted: _Wanted, moments: Mapping[date, datetime], run: Run
) -> dict[date, Snapshot]:
    """Make the snapshots of a few dates in one pass over the events."""
    manifest, vocabulary = wanted.manifest, wanted.vocabulary
    events = tables.read("events", version=wanted.events_version)
    inside = windows.snapshot_events(events, moments, manifest.windows[-1])
    users = tables.spark.read.parquet(storage.absolute(config.aggregates.users)) if config.aggregates.users else None
    folders = {day: tables.folder("aggregates", day.isoformat(), run.id) for day in moments}
    written = windows.write_aggregates(
        encode(inside, vocabulary, manifest.categorical),
        manifest,
        vocabulary.sizes,
        moments,
        folders,
        users,
        # Of the whole table, which Delta knows without looking; the windows have no more.
        windows.partitions_for(events.count()),
    )
    empty = [day for day, content in written.items() if not content.rows]
    if empty:
        for folder in folders.values():
            storage.remove_folder(folder)
        raise SnapshotError(
            f"no event in the {manifest.windows[-1]} days before {empty[0]} that had landed before "
            f"{moments[empty[0]]:%Y-%m-%d %H:%M}; {_range(tables)}"
        )
    made = {}
    for day, content in written.items():
        storage.write_text(storage.join(folders[day], "manifest.json"), manifest.to_json())
        snapshot = Snapshot(
            as_of=day,
            known_at=moments[day],
            path=folders[day],
            manifest_hash=manifest.hash,
            vocabulary_version=vocabulary.version,
            vocabulary_hash=vocabulary.hash,
            events_version=wanted.events_version,
            rows=content.rows,
            checksum=content.checksum,
        )
        made[day] = _make_visible(tables, snapshot, run.id)
    return made


def _make_visible(tables: Tables, snapshot: Snapshot, run_id: str) -> Snapshot:
    """Write the row that names a snapshot, unless the visible one has the same content: then that one stays."""
    visible = _same_content(tables, snapshot)
    if visible:
        storage.remove_folder(snapshot.path)
        log.info("snapshot %s: unchanged, %s users, checksum %s", visible.as_of, f"{visible.rows:,}", visible.checksum)
        return visible
    _write_row(tables, snapshot, run_id)
    log.info("snapshot %s: %s users, checksum %s", snapshot.as_of, f"{snapshot.rows:,}", snapshot.checksum)
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


def _visible(tables: Tables, as_of: date, known_at: datetime) -> Snapshot | None:
    return next((s for s in visible_snapshots(tables) if (s.as_of, s.known_at) == (as_of, known_at)), None)


def _same_content(tables: Tables, made: Snapshot) -> Snapshot | None:
    """The visible snapshot, when it is what was just made."""
    visible = _visible(tables, made.as_of, made.known_at) if tables.exists("snapshots") else None
    if visible is None or not _whole(visible):
        return None
    return visible if replace(visible, path=made.path, events_version=made.events_version) == made else None


def _write_row(tables: Tables, snapshot: Snapshot, run_id: str) -> None:
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
