"""The incremental route, which makes a date's aggregates from an earlier snapshot, and the last step of every route."""

import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Literal

from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.errors import BaseSnapshotError, SnapshotError
from gur_spark.events.vocabulary import encode
from gur_spark.features.spark import incremental
from gur_spark.features.spark.derived import add_derived
from gur_spark.features.spark.selection import attribute_rows, event_rows
from gur_spark.features.spark.writer import Written
from gur_spark.models.kind import Form
from gur_spark.snapshots.base_snapshots import Base, Needed, find_base
from gur_spark.snapshots.inputs import SnapshotInputs, check_landings, events_range
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables

log = logging.getLogger("gur_spark")

Route = Literal["full", "incremental", "auto"]


def from_base(
    tables: Tables,
    inputs: SnapshotInputs,
    visible: Sequence[Snapshot],
    moment: tuple[date, datetime],
    folder: str,
    gap_days: int,
    must: bool,
) -> tuple[list[Snapshot], str]:
    """Write the folder of a date from a base snapshot, if there is one.

    Args:
        moment: the as-of date, and until when landings count.
        gap_days: ``aggregates.landing_gap_days``.
        must: whether it is an error that there is no base.

    Returns:
        The snapshot, or nothing without a base, and the route in words for the run's row.

    Raises:
        BaseSnapshotError: there is no base, and there ``must`` be one.
    """
    day, known_at = moment
    try:
        if inputs.users:
            raise BaseSnapshotError("aggregates.users is given: a list of users needs all events")
        needed = Needed(
            manifest_hash=inputs.manifest.hash,
            vocabulary=(inputs.vocabulary.version, inputs.vocabulary.hash),
            events_id=inputs.events_id,
            events_version=inputs.events_version,
        )
        base = find_base(tables, visible, needed, day, known_at)
        made = _continue(tables, inputs, base, moment, folder, gap_days)
    except BaseSnapshotError as error:
        storage.remove_folder(folder)
        if must:
            raise
        log.info("aggregates %s: from all events, because %s", day, error)
        return [], f"full: {error}"
    log.info("aggregates %s: from the snapshot of %s and the events since", day, base.snapshot.as_of)
    return made, f"incremental from {base.snapshot.path}"


def _continue(
    tables: Tables, inputs: SnapshotInputs, base: Base, moment: tuple[date, datetime], folder: str, gap_days: int
) -> list[Snapshot]:
    """Write the folder of a date from its base and the events that came since."""
    manifest, vocabulary, (day, known_at) = inputs.manifest, inputs.vocabulary, moment
    table, before = inputs.events(tables), (base.snapshot.as_of, base.snapshot.known_at)
    entering = incremental.entering_events(event_rows(table, manifest), day, known_at, before, manifest.reach)
    attributes = incremental.entering_events(attribute_rows(table, manifest), day, known_at, before, None)
    landed, oldest = base.kept.landed, None
    if manifest.reach is None or (day - landed).days > gap_days:
        found = entering.agg(F.max("landed_on").alias("landed"), F.min(F.to_date("event_time")).alias("first")).first()
        assert found is not None
        landed, oldest = max(landed, found["landed"] or landed), found["first"]
        check_landings(day, landed, gap_days)
    written = incremental.write_incremental(
        encode(add_derived(entering, manifest), vocabulary, manifest.categorical),
        manifest,
        vocabulary.sizes,
        (base.snapshot.path, base.kept),
        day,
        folder,
        oldest,
        inputs.encoded_attributes(attributes),
    )
    return finish(tables, inputs, {day: known_at}, {day: folder}, {day: written})


def finish(
    tables: Tables,
    inputs: SnapshotInputs,
    moments: Mapping[date, datetime],
    folders: Mapping[date, str],
    written: Mapping[date, Written],
) -> list[Snapshot]:
    """Write the manifests beside the data, and return the rows for ``snapshots``.

    Raises:
        SnapshotError: a date has no user; no folder is left.
    """
    manifest, vocabulary = inputs.manifest, inputs.vocabulary
    empty = [day for day, content in written.items() if not content.rows]
    if empty:
        for folder in folders.values():
            storage.remove_folder(folder)
        raise SnapshotError(
            f"no event {manifest.standard_windows[-1].meaning.replace('as_of', str(empty[0]))} that had landed before "
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
            lineage=inputs.lineage,
            rows=content.rows,
            checksum=content.checksum,
        )
        for day, content in written.items()
    ]
