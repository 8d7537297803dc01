"""Events -> snapshots of aggregates.

Dates that are made already are left out. A date may be made from an earlier snapshot, and the others are made in passes
over the events, several dates each.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.config.snapshots import Aggregates
from gur_spark.errors import TableError
from gur_spark.events.vocabulary import encode
from gur_spark.features.declare.windows import hours_of
from gur_spark.features.kernel.state_files import SavedState
from gur_spark.features.spark import derived, hot_users, selection, writer
from gur_spark.models.kind import Form
from gur_spark.snapshots.inputs import SnapshotInputs, check_landings
from gur_spark.snapshots.making import known_moments, made_already
from gur_spark.snapshots.routes import Route, finish, from_base
from gur_spark.snapshots.visible import MadeSnapshots, Snapshot, ask_again, make_visible, visible_snapshots
from gur_spark.tables.delta import Tables
from gur_spark.tables.paths import read_parquet
from gur_spark.tables.runs import Account, kept_on_failure
from gur_spark.tables.user_ids import user_ids

log = logging.getLogger("gur_spark")

PASS_DATES = 31
"""Most dates of one pass. With more of them, a kill loses more work and a worker holds more."""


def aggregate_snapshots(
    tables: Tables,
    config: Config,
    dates: Collection[date],
    run_id: str,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
    again: bool = False,
    route: Route = "auto",
) -> MadeSnapshots:
    """Write the aggregates of some dates, in folders named by the run, and make them visible.

    Only rows that had landed before ``known_at`` count; by default, before a date's midnight UTC plus the configured
    delay. Neighbouring dates, up to ``PASS_DATES`` of them, are made in one pass over the events, and are visible when
    it ends. A date that was made of the same commit of the events, with the same vocabulary and manifest, is not made
    again, unless ``again`` or there is a users list, which may have changed. A killed run leaves folders that no row
    names, and running again continues after the last pass that ended.

    With the route ``incremental``, each date is made from an earlier snapshot with a saved state and the events that
    came since; its content is the same. The route ``auto`` does so for a single date, where
    ``aggregates.incremental_days`` is given and there is such a snapshot; else it is ``full``. The result says which
    route a date took, and why.

    Raises:
        BaseSnapshotError: the route is incremental and a date has no base snapshot; the message says why.
        TableError: ``events`` or ``vocabulary`` does not exist, or a row of the users list has no user_id.
        SnapshotError: no user had an event in a date's longest window and no users list is given.
        WriteConflict: another run made one of the dates at the same time.
    """
    inputs = SnapshotInputs.of(tables, config, vocabulary_version, config.aggregates.users)
    moments = known_moments(dates, config.aggregates.delay_days, known_at)
    visible = visible_snapshots(tables, Form.AGGREGATES) if tables.exists("snapshots") else []
    there = {} if again or config.aggregates.users else made_already(visible, inputs, inputs.manifest.hash, moments)
    folders = {day: tables.folder("aggregates", day.isoformat(), run_id) for day in moments}
    aggregates, must = config.aggregates, route == "incremental"
    longest = timedelta(hours=hours_of(inputs.manifest.windows[-1]))
    said = {"events": inputs.lineage}
    with kept_on_failure(Account(inputs=said)):
        ask_again(tables, list(there.values()), run_id)
        for day in [day for day in moments if day not in there]:
            if must or (route == "auto" and len(moments) == 1 and aggregates.incremental_days):
                place = folders[day], aggregates.landing_gap_days
                one, said[f"route {day}"] = from_base(tables, inputs, visible, (day, moments[day]), *place, must)
                there |= {snapshot.as_of: snapshot for snapshot in make_visible(tables, one, run_id)} if one else {}
        for some in passes([day for day in moments if day not in there], longest):
            users = max((snapshot.rows for snapshot in visible), default=None)
            made = _aggregate_pass(tables, aggregates, inputs, {day: moments[day] for day in some}, folders, users)
            said |= {f"route {day}": "full" for day in some if f"route {day}" not in said}
            there |= {snapshot.as_of: snapshot for snapshot in make_visible(tables, made, run_id)}
    return MadeSnapshots(snapshots=[there[day] for day in moments], inputs=said)


def aggregate_snapshot(
    tables: Tables,
    config: Config,
    as_of: date,
    run_id: str,
    vocabulary_version: int | None = None,
    known_at: datetime | None = None,
) -> Snapshot:
    """Write the aggregates of one date; see ``aggregate_snapshots``."""
    return aggregate_snapshots(tables, config, [as_of], run_id, vocabulary_version, known_at).snapshots[0]


def aggregate_users(
    tables: Tables, aggregates: Aggregates, inputs: SnapshotInputs, users: DataFrame, as_of: date, folder: str
) -> Snapshot:
    """Write the aggregates of some users at a date into a folder that ``snapshots`` does not name.

    The rows are those that a full run would have for these users; users without a row there have none here.

    Args:
        users: one row per user_id.
    """
    manifest, vocabulary = inputs.manifest, inputs.vocabulary
    moment = selection.known_at(as_of, aggregates.delay_days)
    table = inputs.events(tables).join(users, "user_id", "left_semi")
    inside = selection.snapshot_events(selection.event_rows(table, manifest), {as_of: moment}, manifest.reach)
    found = inside.agg(F.count(F.lit(1)), F.count_distinct("user_id"), F.min(F.to_date("event_time"))).collect()[0]
    known = selection.snapshot_events(selection.attribute_rows(table, manifest), {as_of: moment}, None)
    oldest = found[2] if manifest.reach is None else None
    listed = _users(tables, aggregates.users, inputs.manifest.user_id_type)
    written = writer.write_aggregates(
        encode(derived.add_derived(inside, manifest), vocabulary, manifest.categorical),
        manifest,
        vocabulary.sizes,
        {as_of: moment},
        {as_of: folder},
        None if listed is None else listed.join(users, "user_id", "left_semi"),
        writer.partitions_for(manifest, writer.tiles_of(manifest, [as_of], oldest), found[1], found[0]),
        oldest,
        attributes=inputs.encoded_attributes(known),
    )[as_of]
    storage.write_text(storage.join(folder, "manifest.json"), manifest.to_json())
    return Snapshot(
        form=Form.AGGREGATES,
        as_of=as_of,
        known_at=moment,
        path=folder,
        manifest_hash=manifest.hash,
        vocabulary_version=vocabulary.version,
        vocabulary_hash=vocabulary.hash,
        lineage=inputs.lineage,
        rows=written.rows,
        checksum=written.checksum,
    )


def passes(dates: Sequence[date], longest: timedelta) -> Iterator[list[date]]:
    """Group ascending dates: at most ``PASS_DATES`` in a group, with no time between their longest windows."""
    group: list[date] = []
    for day in dates:
        if group and (len(group) == PASS_DATES or day - group[-1] > longest):
            yield group
            group = []
        group.append(day)
    if group:
        yield group


def _aggregate_pass(
    tables: Tables,
    aggregates: Aggregates,
    inputs: SnapshotInputs,
    moments: Mapping[date, datetime],
    folders_of: Mapping[date, str],
    expected_users: int | None,
) -> list[Snapshot]:
    """Write the folders of a few dates in one pass over the events; a single date may save a state."""
    manifest, vocabulary = inputs.manifest, inputs.vocabulary
    table = inputs.events(tables)
    inside = selection.snapshot_events(selection.event_rows(table, manifest), moments, manifest.reach)
    found = inside.agg(
        F.count(F.lit(1)).alias("events"),
        F.min(F.to_date("event_time")).alias("first"),
        F.max("landed_on").alias("landed"),
        *([] if expected_users else [F.approx_count_distinct("user_id").alias("users")]),
    ).first()
    assert found is not None
    check_landings(max(moments), found["landed"], aggregates.landing_gap_days)
    oldest = found["first"] if manifest.reach is None else None
    # Several dates have tiles of their own, and with a users list the days after would need the list, too.
    horizon = aggregates.incremental_days if len(moments) == 1 and not aggregates.users else 0
    tiles = writer.tiles_of(manifest, list(moments), oldest, horizon)
    users = expected_users or found["users"]
    folders = {day: folders_of[day] for day in moments}
    known = selection.snapshot_events(selection.attribute_rows(table, manifest), moments, None)
    attributes = inputs.encoded_attributes(known)
    rows = found["events"] + (0 if attributes is None else attributes.count())
    partitions = writer.partitions_for(manifest, tiles, users, rows)
    written = writer.write_aggregates(
        encode(derived.add_derived(inside, manifest), vocabulary, manifest.categorical),
        manifest,
        vocabulary.sizes,
        moments,
        folders,
        _users(tables, aggregates.users, inputs.manifest.user_id_type),
        partitions,
        oldest,
        horizon,
        attributes,
        hot_users.hot_users(inside, found["events"], writer.tasks_for(tables.spark, partitions)),
    )
    made = finish(tables, inputs, moments, folders, written)
    if horizon:
        state = {"horizon": horizon, "oldest": oldest, "landed": found["landed"], "lineage": inputs.lineage}
        [(day, content)] = written.items()
        SavedState(as_of=day, files=content.states, **state).write(folders[day])
    return made


def _users(tables: Tables, path: str | None, kind: Literal["long", "string"]) -> DataFrame | None:
    """The list of users that get a row even without events; None where there is none."""
    if not path:
        return None
    given = read_parquet(tables.spark, storage.absolute(path))
    if "user_id" not in given.columns:
        raise TableError(f"aggregates.users: {path} has no column user_id; available: {given.columns}")
    users = given.select(user_ids(given, "user_id", kind, "aggregates.users", TableError).alias("user_id"))
    if users.where(F.col("user_id").isNull()).count():
        raise TableError(f"aggregates.users: {path} has rows without a user_id of type {kind}")
    return users
