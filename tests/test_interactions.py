"""Interactions on Spark: one row per user and item, the same rows however the events lie."""

import random
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gur_spark import schema
from gur_spark.errors import ConfigError, SnapshotError
from gur_spark.features.declare.manifest import InteractionManifest
from gur_spark.models.kind import Form
from gur_spark.snapshots.files import read_vocabulary_ref
from gur_spark.snapshots.interactions import interaction_snapshots
from gur_spark.snapshots.sequences import sequence_snapshots
from gur_spark.snapshots.stale import commands_for, stale_snapshots
from gur_spark.snapshots.visible import Snapshot, visible_snapshots
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.cleaning import clean
from gur_spark.tables.delta import Tables
from jobs import interactions as job
from tests.test_sequences import ids_of
from tests.test_snapshots import AS_OF, MIDNIGHT, Event, event, log, new_run, run_id, write

pytestmark = [pytest.mark.both_engines, pytest.mark.usefixtures("vocabulary")]

EARLIER = AS_OF - timedelta(days=30)


@pytest.fixture
def configure(make_config: Any) -> Any:
    def configured(**keys: Any) -> Any:
        return make_config({"vocabulary": {"min_count": 1}, "interactions": {"field": "mcc", **keys}})

    return configured


def made(tables: Tables, config: Any, events: list[Event], files: int = 1) -> Snapshot:
    write(tables, events, files)
    [snapshot] = interaction_snapshots(tables, config, [AS_OF], run_id()).snapshots
    return snapshot


def rows_of(snapshot: Snapshot) -> list[tuple[Any, ...]]:
    rows = pq.read_table(snapshot.data).to_pylist()
    assert {row["as_of"] for row in rows} == {snapshot.as_of}
    return sorted((row["user_id"], row["item"], row["count"], row["first_time"], row["last_time"]) for row in rows)


def plain(events: list[Event], ids: dict[str | None, int], days: int = 180) -> list[tuple[Any, ...]]:
    """The naive way: the times of each user and item in a list."""
    times: dict[tuple[int, int], list[datetime]] = {}
    for user, time, _, mcc, _ in events:
        if timedelta(0) < MIDNIGHT - time <= timedelta(days=days) and mcc is not None:
            times.setdefault((user, ids.get(mcc, schema.UNKNOWN_ID)), []).append(time)
    return sorted((*key, len(found), min(found), max(found)) for key, found in times.items())


def test_interactions_are_what_plain_python_makes_of_all_rows(tables: Tables, configure: Any) -> None:
    # Two items that the vocabulary does not know, and events without an item.
    events = [*log(), *(event(1, timedelta(days=n), mcc, 1) for n, mcc in enumerate(("new", "newer", None), 1))]
    snapshot = made(tables, configure(), events)
    ids = ids_of(tables)
    assert rows_of(snapshot) == plain(events, ids)
    assert snapshot.rows == len(rows_of(snapshot))
    assert [row[2] for row in rows_of(snapshot) if row[:2] == (1, schema.UNKNOWN_ID)] == [2]
    assert schema.MISSING_ID not in {row[1] for row in rows_of(snapshot)}
    manifest = snapshot.manifest(InteractionManifest)
    assert (manifest.field, manifest.window.days) == ("mcc", 180)
    types = {field.name: field.type for field in pq.read_schema(next(Path(snapshot.data).glob("*.parquet")))}
    time = pa.timestamp("us", "UTC")
    assert types == {
        "user_id": pa.int64(), "as_of": pa.date32(), "item": pa.int32(), "count": pa.int64(), "first_time": time,
        "last_time": time,
    }  # fmt: skip
    assert [column.name for column in manifest.columns] == list(types)
    assert read_vocabulary_ref(snapshot.path).sizes == {"mcc": max(ids.values()) + 1}


def test_partitions_row_order_and_files_change_no_row(spark: Any, tables: Tables, configure: Any) -> None:
    events = log()
    expected = made(tables, configure(), events)
    for partitions in ("1", "7"):
        random.shuffle(events)
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        spark.conf.set("spark.sql.adaptive.enabled", "false")
        try:
            assert made(tables, configure(), events, files=int(partitions)).checksum == expected.checksum
        finally:
            spark.conf.set("spark.sql.shuffle.partitions", "2")
            spark.conf.set("spark.sql.adaptive.enabled", "true")
    moved = [(*e[:1], e[1] - timedelta(microseconds=e[0] == 1), *e[2:]) for e in events]
    assert made(tables, configure(), moved).checksum != expected.checksum


@pytest.mark.any_engine
def test_future_late_and_too_old_events_change_nothing(tables: Tables, configure: Any) -> None:
    events = log()
    expected = made(tables, configure(window=30), events)
    assert rows_of(expected) == plain(events, ids_of(tables), days=30)
    injected = [
        event(1, timedelta(0), "a", 5),
        event(3, timedelta(days=30, microseconds=1), "b", 5),
        event(4, timedelta(days=2), "c", 5, landed=AS_OF),
    ]
    assert made(tables, configure(window=30), events + injected).checksum == expected.checksum


@pytest.mark.any_engine
def test_interactions_have_the_life_of_a_snapshot(tables: Tables, configure: Any) -> None:
    write(tables, log())
    config = configure(window=30)
    runs = [run_id(), run_id()]
    made_first = interaction_snapshots(tables, config, [EARLIER, AS_OF], runs[0]).snapshots
    assert interaction_snapshots(tables, config, [EARLIER, AS_OF], runs[1]).snapshots == made_first
    # Interactions of a date stand beside its sequences.
    [sequences] = sequence_snapshots(tables, config, [AS_OF], runs[1]).snapshots
    assert visible_snapshots(tables) == [*made_first, sequences]
    assert find_snapshot(tables, config, AS_OF, Form.INTERACTIONS) == made_first[1]
    assert commands_for(tables, stale_snapshots(tables, config, ["2024-05-20"]), config) == [
        f"sequences --as-of {AS_OF}",
        f"interactions --as-of {EARLIER}",
    ]
    litter = Path(tables.folder("interactions", str(AS_OF), "killed", "_attempts"))
    litter.mkdir(parents=True)
    assert clean(tables, datetime.now(UTC) + timedelta(hours=1)) == [str(litter.parent)]


@pytest.mark.any_engine
def test_a_date_without_an_item_is_refused_and_leaves_nothing(tables: Tables, configure: Any) -> None:
    write(tables, [event(1, timedelta(days=1), None, 5)])
    with pytest.raises(
        SnapshotError, match=r"^no event with mcc in the 180 days before 2024-07-01 .*\(interactions of 2024"
    ):
        interaction_snapshots(tables, configure(), [AS_OF], run_id())
    assert not Path(tables.folder("interactions")).exists()
    assert not tables.exists("snapshots")


@pytest.mark.any_engine
def test_the_job_makes_the_dates_it_is_asked_for(tables: Tables, configure: Any, make_config: Any) -> None:
    write(tables, log())
    parser = ArgumentParser()
    job.options(parser)
    run = new_run()
    job.stage(tables, configure(), parser.parse_args(["--as-of", "2024-07-01", "2024-06-01"]), run)
    assert sorted(run.outputs) == ["2024-06-01", "2024-07-01"]
    assert run.counts == {f"rows {s.as_of}": s.rows for s in visible_snapshots(tables, Form.INTERACTIONS)}
    with pytest.raises(ConfigError, match=r"interactions: not given; .* categories of events: \['mcc'\]"):
        job.check(make_config())
    with pytest.raises(ConfigError, match=r"interactions.field: no category 'mc' .*did you mean 'mcc'"):
        make_config({"interactions": {"field": "mc"}})
