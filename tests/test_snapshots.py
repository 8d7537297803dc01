"""Snapshots on Spark: the same bytes whatever the partitioning, order and route; nothing from the future."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from gur_spark import schema, storage
from gur_spark.errors import AggregateOverflow, SnapshotError, TableError, WriteConflict
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.features.spark import writer
from gur_spark.models.kind import Form
from gur_spark.snapshots import aggregation
from gur_spark.snapshots import visible as snapshots
from gur_spark.snapshots.aggregation import aggregate_snapshot, aggregate_snapshots
from gur_spark.snapshots.stale import stale_snapshots
from gur_spark.snapshots.visible import Snapshot, make_visible, visible_snapshots
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run
from tests.oracles import DAY_US, aggregate_rows, same_rows

pytestmark = [pytest.mark.both_engines, pytest.mark.usefixtures("vocabulary")]

AS_OF = date(2024, 7, 1)
MIDNIGHT = datetime(2024, 7, 1, tzinfo=UTC)
Event = tuple[int, datetime, date, str | None, int | None]


def event(user: int, before: timedelta, mcc: str | None, amount: int | None, landed: date | None = None) -> Event:
    when = MIDNIGHT - before
    return (user, when, landed or when.date(), mcc, amount)


def log(seed: int = 3, users: int = 12, events: int = 400) -> list[Event]:
    rng = random.Random(seed)
    return [
        event(
            rng.randrange(users),
            timedelta(microseconds=rng.randrange(1, 200 * DAY_US)),
            rng.choice([None, "a", "a", "b", "c"]),
            rng.choice([None, *[rng.randrange(-5_000, 90_000)] * 9]),
        )
        for _ in range(events)
    ]


EVENTS = pa.schema(
    {
        "user_id": pa.int64(),
        "event_time": pa.timestamp("us", "UTC"),
        "landed_on": pa.date32(),
        "mcc": pa.string(),
        "amount": pa.int64(),
    }
)


def write(tables: Tables, events: Sequence[Event], files: int = 1) -> None:
    """Make these the rows of ``events``; by delta-rs, which commits a few rows thirty times as fast as Spark."""
    for number in range(files):
        rows = [dict(zip(EVENTS.names, event, strict=True)) for event in events[number::files]]
        part = pa.Table.from_pylist(rows, schema=EVENTS)
        write_deltalake(tables.folder("events"), part, mode="append" if number else "overwrite")


def run_id() -> str:
    return f"run{random.getrandbits(60):x}"


def new_run() -> Run:
    return Run(id=run_id(), job="test", parameters={})


def snapshot(tables: Tables, config: Any, events: Sequence[Event], as_of: date = AS_OF, files: int = 1) -> Snapshot:
    write(tables, events, files)
    return aggregate_snapshot(tables, config, as_of, run_id())


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config({"vocabulary": {"min_count": 1}})


def test_a_snapshot_is_what_plain_python_makes_of_all_rows(tables: Tables, config: Any) -> None:
    events = log()
    made = snapshot(tables, config, events)
    ids = {row.value: row.id for row in read_vocabulary(tables).frame.collect()} | {None: schema.MISSING_ID}
    rows = [
        {"user_id": u, "age_us": (MIDNIGHT - t) // timedelta(microseconds=1), "amount": amount, "mcc": ids[mcc]}
        for u, t, _, mcc, amount in events
        if timedelta(0) < MIDNIGHT - t <= timedelta(days=180)
    ]
    found = {row.pop("user_id"): row for row in pq.read_table(made.data).to_pylist()}
    assert {row.pop("as_of") for row in found.values()} == {AS_OF}
    assert same_rows(found, aggregate_rows(rows, config.manifest()))
    assert made.rows == len(found)


def test_partitions_and_row_order_change_no_bit(spark: Any, tables: Tables, config: Any) -> None:
    events = log()
    expected = snapshot(tables, config, events).checksum
    for partitions in ("1", "7", "19"):
        random.shuffle(events)
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        spark.conf.set("spark.sql.adaptive.enabled", "false")
        try:
            assert snapshot(tables, config, events, files=int(partitions)).checksum == expected
        finally:
            spark.conf.set("spark.sql.shuffle.partitions", "2")
            spark.conf.set("spark.sql.adaptive.enabled", "true")


def test_future_late_and_too_old_events_change_nothing(tables: Tables, config: Any) -> None:
    events = log()
    expected = snapshot(tables, config, events)
    injected = [
        event(1, timedelta(0), "a", 5),  # at as_of itself
        event(2, -timedelta(days=3), "new", 5),
        event(99, -timedelta(microseconds=1), "a", 5),
        event(3, timedelta(days=180, microseconds=1), "b", 5),  # one microsecond before the longest window
        event(4, timedelta(days=2), "c", 5, landed=AS_OF),  # happened in time, landed after known_at
    ]
    again = snapshot(tables, config, events + injected)
    assert again.checksum == expected.checksum
    assert again.path == expected.path


@pytest.mark.any_engine
def test_a_delay_lets_late_landings_in(tables: Tables, make_config: Any) -> None:
    config = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"delay_days": 1}})
    late = event(4, timedelta(days=2), "c", 5, landed=AS_OF)
    made = snapshot(tables, config, [late])
    assert (made.rows, made.known_at) == (1, MIDNIGHT + timedelta(days=1))


@pytest.mark.any_engine
def test_a_snapshot_is_rebuilt_as_it_was_known_at_another_time(tables: Tables, config: Any) -> None:
    as_it_was = log()
    first = snapshot(tables, config, as_it_was)
    late = event(1, timedelta(days=2), "a", 5, landed=date(2024, 7, 3))
    write(tables, [*as_it_was, late])
    assert aggregate_snapshot(tables, config, AS_OF, run_id()).path == first.path
    later = aggregate_snapshot(
        tables, config, AS_OF, run_id(), known_at=MIDNIGHT + timedelta(days=2, hours=3, microseconds=5)
    )
    assert later.checksum != first.checksum
    assert later.checksum == snapshot(tables, config, [*as_it_was, event(1, timedelta(days=2), "a", 5)]).checksum
    assert find_snapshot(tables, config, AS_OF, known_at=later.known_at) == later
    assert tables.read("snapshots").count() == 2


@pytest.mark.any_engine
def test_landings_that_come_later_make_the_snapshots_they_reach_stale(tables: Tables, config: Any) -> None:
    assert stale_snapshots(tables, config, ["2024-06-20"]) == []
    write(tables, log())
    for day in (date(2024, 2, 1), date(2024, 6, 1), AS_OF):
        aggregate_snapshot(tables, config, day, run_id())

    def stale(*landings: str) -> list[str]:
        return [str(s.as_of) for s in stale_snapshots(tables, config, landings)]

    assert stale("2024-06-20") == ["2024-07-01"]
    assert stale("2024-05-31") == ["2024-06-01", "2024-07-01"]
    assert stale("2024-07-01") == []  # landed at known_at, not before
    assert stale("2024-01-01") == ["2024-02-01", "2024-06-01", "2024-07-01"]  # an event may be a day ahead
    assert stale("2023-12-31") == ["2024-02-01", "2024-06-01"]  # before the window of the last began
    assert stale("bulk") == ["2024-02-01", "2024-06-01", "2024-07-01"]


@pytest.mark.any_engine
def test_both_edges_of_a_window_are_half_open(tables: Tables, config: Any) -> None:
    edges = [event(1, timedelta(days=w), "a", 1) for w in (7, 30, 180)]
    made = pq.read_table(snapshot(tables, config, edges).data).to_pylist()[0]
    assert [made[f"events_{w}d"] for w in (7, 30, 180)] == [1, 2, 3]
    assert (made["recency_days"], made["tenure_days"]) == (7.0, 180.0)


@pytest.mark.any_engine
def test_a_users_list_whose_ids_went_through_floats_is_refused(tables: Tables, make_config: Any, tmp_path: Any) -> None:
    listed = tmp_path / "users.parquet"
    config = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"users": str(listed)}})
    pq.write_table(pa.table({"user_id": [1234567890123456781.0]}), listed)
    with pytest.raises(TableError, match=r"aggregates.users: user_id is double, expected bigint"):
        snapshot(tables, config, log())
    pq.write_table(pa.table({"user_id": ["1", "x"]}), listed)
    with pytest.raises(TableError, match=r"rows without a user_id of type long"):
        snapshot(tables, config, log())
    pq.write_table(pa.table({"user_id": pa.array([1, 10**18 + 1], pa.int64())}), listed)
    users = pq.read_table(snapshot(tables, config, log()).data)["user_id"].to_pylist()
    assert 10**18 + 1 in users


@pytest.mark.any_engine
def test_a_users_list_gives_rows_to_users_without_events(tables: Tables, make_config: Any, tmp_path: Any) -> None:
    tables.spark.createDataFrame([(1,), (77,)], "user_id BIGINT").write.parquet(str(tmp_path / "users"))
    config = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"users": str(tmp_path / "users")}})
    made = pq.read_table(snapshot(tables, config, [event(1, timedelta(days=1), "a", 1)]).data).to_pylist()
    assert {row["user_id"]: row["events_180d"] for row in made} == {1: 1, 77: 0}
    tables.spark.createDataFrame([(None,)], "user_id BIGINT").write.mode("append").parquet(str(tmp_path / "users"))
    with pytest.raises(TableError, match=r"aggregates.users: .* has rows without a user_id"):
        aggregate_snapshot(tables, config, AS_OF, run_id())


@pytest.mark.any_engine
def test_the_same_content_again_keeps_the_visible_snapshot(tables: Tables, config: Any) -> None:
    first = snapshot(tables, config, log())
    # Another commit of events, the same content: the folder stays, and the row says what it can be made from.
    write(tables, log())
    again = aggregate_snapshot(tables, config, AS_OF, run_id())
    assert again.lineage != first.lineage
    assert again == replace(first, lineage=again.lineage)
    assert find_snapshot(tables, config, AS_OF) == again
    assert tables.read("snapshots").count() == 1
    assert [Path(folder).name for folder in storage.folders(str(Path(first.path).parent))] == [Path(first.path).name]


@pytest.mark.any_engine
def test_only_what_may_have_changed_is_made_again(tables: Tables, config: Any) -> None:
    first = snapshot(tables, config, log())
    made = aggregate_snapshots(tables, config, [AS_OF], run_id())
    assert made.snapshots == [first]
    assert made.inputs == {"events": first.lineage}
    # Events made anew in the same place are other events, although their commits have the same numbers.
    shutil.rmtree(tables.folder("events"))
    write(tables, log(seed=4))
    assert aggregate_snapshots(tables, config, [AS_OF], run_id()).snapshots[0].checksum != first.checksum


@pytest.mark.any_engine
def test_other_content_replaces_the_row_of_its_date_only(tables: Tables, config: Any) -> None:
    write(tables, log())
    older = aggregate_snapshot(tables, config, date(2024, 6, 1), run_id())
    first = aggregate_snapshot(tables, config, AS_OF, run_id())
    second = snapshot(tables, config, [*log(), event(1, timedelta(days=1), "a", 1)])
    assert second.path != first.path
    assert find_snapshot(tables, config, AS_OF) == second
    assert find_snapshot(tables, config, older.as_of) == older
    assert storage.exists(first.data), "a snapshot a model was trained on stays readable"


@pytest.mark.any_engine
def test_a_snapshot_nobody_is_in_is_refused_with_the_range_of_the_events(tables: Tables, config: Any) -> None:
    snapshot(tables, config, log())
    with pytest.raises(SnapshotError, match=r"no event in the 180 days before 2030-01-01.*events run from 2023"):
        aggregate_snapshot(tables, config, date(2030, 1, 1), run_id())


def test_a_worker_that_cannot_write_is_said_and_nothing_is_visible(tables: Tables, config: Any) -> None:
    with (
        patch.object(writer.storage, "create_folder"),  # as a full disk does: the worker's file cannot be opened
        pytest.raises(SnapshotError, match=r"a worker cannot write the aggregates: .*No such file"),
    ):
        snapshot(tables, config, [event(1, timedelta(days=8), "a", 5)])
    assert not tables.exists("snapshots")


@pytest.mark.any_engine
def test_a_date_that_the_landings_have_not_come_to_is_refused(tables: Tables, make_config: Any) -> None:
    config = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"landing_gap_days": 7}})
    write(tables, [event(1, timedelta(days=8), "a", 5)])
    with pytest.raises(SnapshotError, match=r"as_of 2024-07-01 is 8 days after the newest landing .*, 2024-06-23"):
        aggregate_snapshot(tables, config, AS_OF, run_id())
    assert not tables.exists("snapshots")
    assert aggregate_snapshot(tables, config, AS_OF - timedelta(days=1), run_id()).rows == 1


@pytest.mark.any_engine
def test_a_missing_snapshot_names_those_there_are(tables: Tables, config: Any) -> None:
    with pytest.raises(TableError, match="run the aggregate job first"):
        find_snapshot(tables, config, AS_OF)
    snapshot(tables, config, log())
    with pytest.raises(SnapshotError, match=r"no snapshot of 2024-07-02.*2024-07-01 \(known at 2024-07-01 00:00"):
        find_snapshot(tables, config, date(2024, 7, 2))


@pytest.mark.any_engine
def test_snapshots_of_two_forms_of_one_date_stand_beside_one_another(tables: Tables, config: Any) -> None:
    aggregates = snapshot(tables, config, log())
    sequences = replace(aggregates, form=Form.SEQUENCES, path=f"{aggregates.path}s", checksum="x")
    make_visible(tables, [sequences], "run")
    assert visible_snapshots(tables) == [aggregates, sequences]
    assert visible_snapshots(tables, Form.SEQUENCES) == [sequences]
    assert find_snapshot(tables, config, AS_OF) == aggregates
    assert find_snapshot(tables, config, AS_OF, Form.SEQUENCES, manifest=aggregates.manifest()) == sequences
    with pytest.raises(SnapshotError, match=r"of form interactions, .* available: none; run the interactions job"):
        find_snapshot(tables, config, AS_OF, Form.INTERACTIONS)
    # Aggregates made anew replace the row of the aggregates alone.
    other = snapshot(tables, config, [*log(), event(1, timedelta(days=1), "a", 1)])
    assert visible_snapshots(tables) == [other, sequences]


@pytest.mark.any_engine
def test_an_altered_manifest_is_refused(tables: Tables, config: Any) -> None:
    made = snapshot(tables, config, log())
    file = storage.join(made.path, "manifest.json")
    storage.write_text(file, storage.read_text(file).replace('"events"', '"clicks"'))
    with pytest.raises(SnapshotError, match="it was altered"):
        made.manifest()


def weekly(count: int) -> list[date]:
    return [AS_OF - timedelta(days=7 * n) for n in reversed(range(count))]


def test_many_dates_in_one_pass_have_the_bits_each_has_alone(tables: Tables, config: Any, tmp_path: Any) -> None:
    # Some of the log landed a few weeks late: after the earlier dates, before the later ones.
    events = [(*e[:2], e[2] + timedelta(days=20 * (e[0] % 2)), *e[3:]) for e in log()]
    write(tables, events)
    together = aggregate_snapshots(tables, config, weekly(4), run_id()).snapshots
    assert [s.as_of for s in together] == weekly(4)
    others = replace(tables, root=str(tmp_path / "alone"))
    for table in ("events", "vocabulary"):
        shutil.copytree(tables.folder(table), others.folder(table))
    alone = [aggregate_snapshot(others, config, day, run_id()) for day in weekly(4)]
    assert [(s.as_of, s.known_at, s.rows, s.checksum) for s in together] == [
        (s.as_of, s.known_at, s.rows, s.checksum) for s in alone
    ]
    assert len({s.checksum for s in together}) == 4


@pytest.mark.any_engine
def test_a_backfill_that_was_killed_goes_on_after_the_last_pass_that_ended(
    tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tables, log())
    monkeypatch.setattr(aggregation, "PASS_DATES", 2)
    passes: list[list[date]] = []
    write_aggregates = writer.write_aggregates

    def counted(*args: Any) -> Any:
        passes.append(list(args[3]))
        if len(passes) == 2:
            raise KeyboardInterrupt
        return write_aggregates(*args)

    monkeypatch.setattr(writer, "write_aggregates", counted)
    with pytest.raises(KeyboardInterrupt):
        aggregate_snapshots(tables, config, weekly(3), run_id())
    assert [s.as_of for s in visible_snapshots(tables)] == weekly(3)[:2]
    made = aggregate_snapshots(tables, config, weekly(3), run_id()).snapshots
    assert passes == [weekly(3)[:2], weekly(3)[2:], weekly(3)[2:]]
    assert visible_snapshots(tables) == made
    # A file that was cut off is made again, although the events are the same.
    next(Path(made[0].data).glob("*.parquet")).write_bytes(b"PAR1")
    assert aggregate_snapshots(tables, config, weekly(3), run_id()).snapshots[0].path != made[0].path
    assert passes[3:] == [weekly(3)[:1]]


@pytest.mark.any_engine
def test_dates_far_apart_are_passes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "PASS_DATES", 3)
    days = [AS_OF + timedelta(days=n) for n in (0, 10, 20, 30, 41, 60)]
    assert [len(some) for some in aggregation.passes(days, timedelta(10))] == [3, 1, 1, 1]
    assert [day for some in aggregation.passes(days, timedelta(10)) for day in some] == days


def test_of_two_runs_of_one_date_at_once_one_wins_and_another_date_is_no_conflict(
    tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = snapshot(tables, config, log())
    other, mine = (replace(first, as_of=first.as_of + timedelta(days=n), checksum="x") for n in (1, 2))
    write_rows = snapshots._write_rows

    def meanwhile(date_of: Snapshot) -> Any:
        """Another run commits between this run's look at the table and its write."""

        def late(tables: Tables, rows: Any, run_id: str) -> None:
            monkeypatch.setattr(snapshots, "_write_rows", write_rows)
            write_rows(tables, [date_of], "other")
            raise WriteConflict("as Delta says")

        monkeypatch.setattr(snapshots, "_write_rows", late)

    meanwhile(other)
    assert make_visible(tables, [mine], "mine") == [mine]
    meanwhile(replace(mine, checksum="theirs"))
    with pytest.raises(WriteConflict):
        make_visible(tables, [replace(mine, checksum="y")], "mine")
    assert {s.checksum for s in visible_snapshots(tables)} == {first.checksum, "x", "theirs"}


def test_a_sum_that_a_worker_finds_too_large_is_said_by_field_and_user(tables: Tables, config: Any) -> None:
    with pytest.raises(AggregateOverflow, match=r"^field 'amount' of user 7: a sum over its window"):
        snapshot(tables, config, [event(7, timedelta(days=1), "a", schema.MAX_STEPS)] * 2**17)
    assert not tables.exists("snapshots")


@pytest.mark.any_engine
def test_a_date_without_anybody_leaves_no_other_date_half_made(tables: Tables, config: Any) -> None:
    write(tables, log())
    with pytest.raises(SnapshotError, match="no event in the 180 days before 2020-01-01"):
        aggregate_snapshots(tables, config, [AS_OF, date(2020, 1, 1)], run_id())
    assert not tables.exists("snapshots")
    assert not list(Path(tables.folder("aggregates")).rglob("*.parquet"))
