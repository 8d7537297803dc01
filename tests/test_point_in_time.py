"""Training sets: every label keeps its row, with the newest features that were known at its time."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest

from gur_spark import training_set
from gur_spark.errors import SnapshotError, TableError
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.features.spark import selection
from gur_spark.snapshots.aggregation import aggregate_snapshot, aggregate_snapshots
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from tests.conftest import config_over
from tests.test_snapshots import MIDNIGHT, Event, event, log, run_id, write

DATES = [date(2024, 6, 1), date(2024, 6, 15), date(2024, 7, 1)]
Label = tuple[int, int, datetime]
Rows = dict[int, dict[str, Any]]
"""Aggregates by user."""
LABELS = "label INT, user_id BIGINT, label_time TIMESTAMP"


def make(root: Any, **aggregates: Any) -> Any:
    """A config over this folder."""
    return config_over(root, vocabulary={"min_count": 1}, aggregates=aggregates)


def aggregate_all(tables: Tables, config: Any, events: list[Event]) -> dict[date, Rows]:
    write(tables, events)
    if not tables.exists("vocabulary"):
        fit_vocabulary(tables, config)
    made = aggregate_snapshots(tables, config, DATES, run_id()).snapshots
    return {s.as_of: {row["user_id"]: row for row in pq.read_table(s.data).to_pylist()} for s in made}


@pytest.fixture(scope="module")
def made(spark: Any, tmp_path_factory: Any) -> tuple[Tables, Any, dict[date, Rows]]:
    """Tables, config, and the aggregates of each date by user."""
    config = make(tmp_path_factory.mktemp("made"))
    tables = open_tables(spark, config.tables)
    return tables, config, aggregate_all(tables, config, log())


def random_labels(count: int = 60) -> list[tuple[int, int, datetime]]:
    rng = random.Random(5)
    edges = [datetime(d.year, d.month, d.day, tzinfo=UTC) + timedelta(seconds=s) for d in DATES for s in (-1, 0)]
    times = edges + [MIDNIGHT - timedelta(minutes=rng.randrange(-80_000, 80_000)) for _ in range(count - len(edges))]
    return [(n, rng.randrange(14), time) for n, time in enumerate(times)]


def expect(labels: list[Label], rows: dict[date, Rows], found: dict[int, Any], delay_days: int) -> set[Any]:
    """Check each label's row against the plain rule; returns which cases there were."""
    cases = set()
    for number, user, time in labels:
        usable = [
            day
            for day in DATES
            if selection.known_at(day, delay_days) <= time and time - selection.known_at(day, 0) <= timedelta(days=20)
        ]
        expected = rows[usable[-1]].get(user) if usable else None
        row = found[number].asDict()
        assert row["as_of"] == (usable[-1] if usable else None)
        assert row["found"] == (expected is not None)
        names = [name for name in row if name not in ("label", "user_id", "label_time", "as_of", "found")]
        assert {n: row[n] for n in names} == {n: expected[n] if expected else None for n in names}
        cases.add((bool(usable), expected is not None))
    return cases


@pytest.mark.both_engines
def test_each_label_gets_the_newest_snapshot_that_was_known_and_is_young_enough(made: Any) -> None:
    tables, config, rows = made
    labels = random_labels()
    frame = tables.spark.createDataFrame(labels, LABELS)
    found = training_set(tables.spark, config, frame, max_age_days=20).collect()
    assert len(found) == len(labels)
    assert expect(labels, rows, {row.label: row for row in found}, 0) == {(True, True), (True, False), (False, False)}


@pytest.mark.any_engine
def test_a_snapshot_is_not_used_before_its_landings_were_there(spark: Any, tmp_path: Any) -> None:
    config = make(tmp_path, delay_days=2)
    tables = open_tables(spark, config.tables)
    rows = aggregate_all(tables, config, log())
    labels = random_labels()
    found = training_set(spark, config, spark.createDataFrame(labels, LABELS), max_age_days=20).collect()
    expect(labels, rows, {row.label: row for row in found}, 2)


@pytest.mark.any_engine
def test_events_after_the_labels_change_nothing(spark: Any, made: Any, tmp_path: Any) -> None:
    config = make(tmp_path)
    tables = open_tables(spark, config.tables)
    future = [event(user, timedelta(days=16 - user, hours=-1), "a", 5) for user in range(14)]
    known = {row.value for row in made[0].read("vocabulary").collect()}
    assert "a" in known
    aggregate_all(tables, config, log() + future)
    frame = spark.createDataFrame(random_labels(), LABELS).where("label_time < '2024-06-15 00:00:00'")
    one, other = (sorted(map(str, training_set(spark, c, frame, max_age_days=30).collect())) for c in (made[1], config))
    assert one == other


@pytest.mark.both_engines
def test_labels_meet_snapshots_without_a_cross_join(made: Any, capsys: Any) -> None:
    tables, config, _ = made
    frame = tables.spark.createDataFrame(random_labels(), LABELS)
    training_set(tables.spark, config, frame, max_age_days=20).explain()
    plan = capsys.readouterr().out
    assert "HashJoin" in plan or "SortMergeJoin" in plan
    assert "Cartesian" not in plan
    assert "NestedLoop" not in plan


@pytest.mark.both_engines
def test_a_label_dated_by_day_is_of_its_midnight_and_null_times_find_nothing(made: Any) -> None:
    tables, config, rows = made
    user = next(iter(rows[DATES[1]]))
    labels = [(user, DATES[1]), (user, DATES[1] - timedelta(days=1)), (user, None)]
    frame = tables.spark.createDataFrame(labels, "user_id BIGINT, day DATE")
    found = training_set(tables.spark, config, frame, max_age_days=30, label_time="day").collect()
    assert {row.day: row.as_of for row in found} == {DATES[1]: DATES[1], labels[1][1]: DATES[0], None: None}


@pytest.mark.slow
def test_embeddings_are_attached_alone_or_with_the_aggregates_of_their_date(whole: Any) -> None:
    tables, config = whole
    day = date(2025, 4, 1)
    rows = {row.user_id: row for row in tables.read("embeddings").where(f"as_of = DATE'{day}'").collect()}
    labels = [(user, day + timedelta(days=3)) for user in sorted(rows)] + [(10**12, day)]
    frame = tables.spark.createDataFrame(labels, "user_id BIGINT, label_time DATE")
    alone = training_set(tables.spark, config, frame, max_age_days=7, features=["embeddings"]).collect()
    both = training_set(tables.spark, config, frame, max_age_days=7, features=["aggregates", "embeddings"]).collect()
    assert len(alone) == len(both) == len(labels)
    for row in [*alone, *both]:
        expected = rows.get(row.user_id)
        assert (row.as_of, row.found) == (day, expected is not None)
        assert row.embedding == (expected.embedding if expected else None)
    assert all(row.found == (row.events_7d is not None) for row in both)


@pytest.mark.any_engine
def test_labels_that_do_not_fit_are_refused_by_name(made: Any, make_config: Any) -> None:
    spark, config = made[0].spark, made[1]
    with pytest.raises(TableError, match="snapshots` does not exist; run the aggregate job first"):
        training_set(spark, make_config(), spark.createDataFrame([], LABELS), max_age_days=20)
    for ddl, message in [
        ("user_id BIGINT", "labels have no column 'label_time'; available"),
        ("user_id STRING, label_time DATE", "user_id is string, expected bigint"),
        ("user_id BIGINT, label_time STRING", "label_time is string, expected timestamp or date"),
        ("user_id BIGINT, label_time DATE, events_7d INT", r"adds: \['events_7d'\]; rename"),
    ]:
        with pytest.raises(TableError, match=message):
            training_set(spark, config, spark.createDataFrame([], ddl), max_age_days=20)
    other = make(made[0].root, windows=[3])
    with pytest.raises(SnapshotError, match=r"no snapshot of manifest .* available: .*2024-06-01"):
        training_set(spark, other, spark.createDataFrame([], LABELS), max_age_days=20)


@pytest.mark.any_engine
def test_the_columns_are_those_of_the_manifest(made: Any) -> None:
    tables, config, _ = made
    found = training_set(tables.spark, config, tables.spark.createDataFrame([], LABELS), max_age_days=20)
    names = [column.name for column in config.manifest().columns if column.statistic != "key"]
    assert found.columns == ["label", "user_id", "label_time", "as_of", "found", *names]


@pytest.mark.any_engine
def test_snapshots_of_an_older_vocabulary_are_left_out(spark: Any, tmp_path: Any) -> None:
    config = make(tmp_path)
    tables = open_tables(spark, config.tables)
    aggregate_all(tables, config, log())
    write(tables, [*log(), event(1, timedelta(days=2), "new", 1)])
    fit_vocabulary(tables, config)
    aggregate_snapshot(tables, config, DATES[0], run_id())
    found = training_set(spark, config, spark.createDataFrame(random_labels(), LABELS), max_age_days=365).collect()
    assert {row.as_of for row in found} == {None, DATES[0]}
