"""How one date's snapshot is made from an earlier one, and what every route agrees on."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import BaseSnapshotError, SnapshotError
from gur_spark.events.columns import check_columns_of_events
from gur_spark.events.sets import each_member
from gur_spark.events.vocabulary import Vocabulary, encode, read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.spark import incremental
from gur_spark.features.spark.derived import add_derived
from gur_spark.features.spark.selection import attribute_rows, event_rows
from gur_spark.features.spark.writer import Written
from gur_spark.models.kind import Form
from gur_spark.snapshots.base_snapshots import Base, Needed, find_base
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.lineage import Lineage
from gur_spark.tables.runs import Run

log = logging.getLogger("gur_spark")

Route = Literal["full", "incremental", "auto"]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the snapshots of a run are made from and of."""

    manifest: Manifest
    vocabulary: Vocabulary
    events_id: str
    events_version: int
    users: str | None
    """The users list."""

    @property
    def lineage(self) -> str:
        """Text of the ``Lineage``."""
        return str(Lineage(self.events_id, self.events_version, self.users))

    @property
    def needed(self) -> Needed:
        """What a base must agree with."""
        vocabulary = self.vocabulary.version, self.vocabulary.hash
        return Needed(
            manifest_hash=self.manifest.hash,
            vocabulary=vocabulary,
            events_id=self.events_id,
            events_version=self.events_version,
        )

    def events(self, tables: Tables) -> DataFrame:
        """The table of that version."""
        return tables.read("events", version=self.events_version)

    def encoded_attributes(self, rows: DataFrame) -> DataFrame | None:
        """Rows of attributes with ids of their categories, one for each of a set; None without attributes."""
        if not self.manifest.attributes:
            return None
        rows = each_member(rows, self.manifest.separators)
        return encode(rows, self.vocabulary, self.manifest.attribute_categories)

    @classmethod
    def of(cls, tables: Tables, config: Config, vocabulary_version: int | None, users: str | None = None) -> "Wanted":
        """What the tables hold now: the newest commit of the events, and a vocabulary (the newest for None)."""
        check_columns_of_events(tables, config)
        return cls(
            manifest=config.manifest(),
            vocabulary=read_vocabulary(tables, vocabulary_version),
            events_id=tables.identity("events"),
            events_version=tables.version("events"),
            users=users,
        )


def from_base(
    tables: Tables,
    config: Config,
    wanted: Wanted,
    visible: Sequence[Snapshot],
    moment: tuple[date, datetime],
    run: Run,
    must: bool,
) -> list[Snapshot]:
    """Write the folder of a date from an earlier snapshot; nothing where none can be gone on from.

    Raises:
        BaseSnapshotError: there is none, and there ``must`` be.
    """
    day, known_at = moment
    try:
        if wanted.users:
            raise BaseSnapshotError("aggregates.users is given: a list of users needs all events")
        base = find_base(tables, visible, wanted.needed, day, known_at)
        made = _continue(tables, config, wanted, base, moment, run)
    except BaseSnapshotError as error:
        storage.remove_folder(tables.folder("aggregates", day.isoformat(), run.id))
        if must:
            raise
        log.info("snapshot %s: in full, %s", day, error)
        run.inputs[f"route {day}"] = f"full: {error}"
        return []
    log.info("snapshot %s: goes on from that of %s", day, base.snapshot.as_of)
    run.inputs[f"route {day}"] = f"incremental from {base.snapshot.path}"
    return made


def _continue(
    tables: Tables, config: Config, wanted: Wanted, base: Base, moment: tuple[date, datetime], run: Run
) -> list[Snapshot]:
    """Write the folder of a date from a base and the events that came since."""
    manifest, vocabulary, (day, known_at) = wanted.manifest, wanted.vocabulary, moment
    table, before = wanted.events(tables), (base.snapshot.as_of, base.snapshot.known_at)
    entering = incremental.entering_events(event_rows(table, manifest), day, known_at, before, manifest.reach)
    attributes = incremental.entering_events(attribute_rows(table, manifest), day, known_at, before, None)
    landed, oldest = base.kept.landed, None
    if manifest.reach is None or (day - landed).days > config.aggregates.landing_gap_days:
        found = entering.agg(F.max("landed_on").alias("landed"), F.min(F.to_date("event_time")).alias("first")).first()
        assert found is not None
        landed, oldest = max(landed, found["landed"] or landed), found["first"]
        check_landings(day, landed, config.aggregates.landing_gap_days)
    folder = tables.folder("aggregates", day.isoformat(), run.id)
    written = incremental.write_incremental(
        encode(add_derived(entering, manifest), vocabulary, manifest.categorical),
        manifest,
        vocabulary.sizes,
        (base.snapshot.path, base.kept),
        day,
        folder,
        oldest,
        wanted.encoded_attributes(attributes),
    )
    return finish(tables, wanted, {day: known_at}, {day: folder}, {day: written})


def finish(
    tables: Tables,
    wanted: Wanted,
    moments: Mapping[date, datetime],
    folders: Mapping[date, str],
    written: Mapping[date, Written],
) -> list[Snapshot]:
    """The rows for what was written.

    Raises:
        SnapshotError: a date has nobody.
    """
    manifest, vocabulary = wanted.manifest, wanted.vocabulary
    empty = [day for day, content in written.items() if not content.rows]
    if empty:
        for folder in folders.values():
            storage.remove_folder(folder)
        raise SnapshotError(
            f"no event in the {manifest.windows[-1]} days before {empty[0]} that had landed before "
            f"{moments[empty[0]]:%Y-%m-%d %H:%M}; {events_range(tables)}"
        )
    for folder in folders.values():
        storage.write_text(storage.join(folder, "manifest.json"), manifest.to_json())
    return [
        Snapshot(
            form=Form.AGGREGATES,
            as_of=day,
            known_at=moments[day],
            path=folders[day],
            manifest_hash=manifest.hash,
            vocabulary_version=vocabulary.version,
            vocabulary_hash=vocabulary.hash,
            lineage=wanted.lineage,
            rows=content.rows,
            checksum=content.checksum,
        )
        for day, content in written.items()
    ]


def check_landings(as_of: date, landed: date | None, gap_days: int) -> None:
    """A date that the landings have not come to would be made of silence."""
    if landed and (as_of - landed).days > gap_days:
        raise SnapshotError(
            f"as_of {as_of} is {(as_of - landed).days} days after the newest landing with events before it, {landed}; "
            f"aggregates.landing_gap_days allows {gap_days}: ingest what is missing, or raise it"
        )


def events_range(tables: Tables) -> str:
    """From when to when there are events, for a message."""
    found = (
        tables.read("events")
        .agg(F.min("event_time"), F.max("event_time"), F.min("landed_on"), F.max("landed_on"))
        .first()
    )
    assert found is not None
    return f"events run from {found[0]} to {found[1]}, landed from {found[2]} to {found[3]}"
