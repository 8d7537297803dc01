"""Hot users, whose events are counted where they are read: the same snapshots, and the right users."""

from datetime import date, timedelta
from typing import Any

import pytest

from gur_spark.features.spark import hot_users, writer
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.tables.delta import Tables
from tests.test_snapshots import AS_OF, Event, event, log, run_id, write

pytestmark = [pytest.mark.both_engines, pytest.mark.usefixtures("vocabulary")]


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config({"vocabulary": {"min_count": 1}})


def skewed() -> list[Event]:
    """User 3 does ten times as much as any other; some of it lands late."""
    late = [event(3, timedelta(days=9 + n % 90), "b", n, landed=AS_OF - timedelta(days=n % 9)) for n in range(40)]
    return log(events=250) + [(3, *rest) for _, *rest in log(seed=4, events=200)] + late


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The hot users of each pass, where a hundred events are enough."""
    hot, of_each = hot_users.hot_users, []

    def recorded(*args: Any) -> list[Any]:
        of_each.append(hot(*args))
        return of_each[-1]

    monkeypatch.setattr(hot_users, "HOT_EVENTS", 100)
    monkeypatch.setattr(hot_users, "hot_users", recorded)
    monkeypatch.setattr(writer, "tasks_for", lambda session, partitions: 100)
    return of_each


def test_a_hot_user_changes_no_bit_on_any_route(
    tables: Tables, config: Any, make_config: Any, found: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots of several dates, of one date that keeps a state, and of the next day, which continues from it."""
    write(tables, skewed(), files=3)
    week = [AS_OF - timedelta(days=7), AS_OF, AS_OF + timedelta(days=1)]

    def checksums(dates: list[date], config: Any, **options: Any) -> list[str]:
        made = aggregate_snapshots(tables, config, dates, run_id(), again=True, **options).snapshots
        return [snapshot.checksum for snapshot in made]

    keeping = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"incremental_days": 1}})
    apart = checksums(week, config)
    kept = checksums(week[1:2], keeping, route="full") + checksums(week[2:], keeping, route="incremental")
    assert found == [[3], [3]]
    monkeypatch.setattr(hot_users, "HOT_EVENTS", 10_000)
    whole = checksums(week, config)
    assert found[2:] == [[]]
    assert apart == whole
    assert kept == whole[1:]


def test_whoever_has_more_than_two_tasks_share_is_hot(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot_users, "HOT_EVENTS", 20)
    users = ["a"] * 60 + ["b"] * 25 + [str(n) for n in range(15)]
    events = spark.createDataFrame([(u,) for u in users], "user_id STRING")
    found = [hot_users.hot_users(events, 100, tasks) for tasks in (1, 4, 200)]
    assert found == [[], ["a"], ["a", "b"]]
    assert hot_users.hot_users(None, 20, 200) == []  # type: ignore[arg-type] # too few to be looked at
