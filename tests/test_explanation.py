"""An explanation: the events behind a number, the number computed again, and a clear message if they differ."""

from datetime import timedelta
from typing import Any

import pytest

from gur_spark import explain, schema
from gur_spark.errors import SnapshotError
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.tables.open import open_tables
from tests.test_snapshots import AS_OF, MIDNIGHT, event, log, run_id, snapshot, write

pytestmark = [pytest.mark.any_engine, pytest.mark.usefixtures("vocabulary")]


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config({"vocabulary": {"min_count": 1}})


def test_every_statistic_is_recomputed_to_what_is_stored(tables: Any, config: Any) -> None:
    snapshot(tables, config, log(users=3, events=60))
    one_each = {column.statistic: column for column in config.manifest().columns if column.statistic != "key"}
    for column in one_each.values():
        made = explain(tables.spark, config, 1, AS_OF, column.name)
        assert made.agrees, f"{column.name}: stored {made.stored}, recomputed {made.recomputed}"
        assert type(made.recomputed) is type(made.stored)


def test_a_field_may_be_named_like_what_the_code_calls_things(spark: Any, make_config: Any) -> None:
    fields = {
        "categorical": [{"name": name, "column": name} for name in ("age_us", "text", "id")],
        "numeric": [{"name": name, "column": name, "step": 1} for name in ("word_0", "value")],
    }
    config = make_config({"vocabulary": {"min_count": 1}, "fields": fields})
    tables = open_tables(spark, config.tables)
    ddl = schema.events_schema("long", ["age_us", "text", "id"], ["word_0", "value"])
    when = MIDNIGHT - timedelta(days=20)
    tables.create("events", ddl)
    tables.append(spark.createDataFrame([(1, when, when.date(), "a", "b", "c", 5, 7)], ddl), "events")
    fit_vocabulary(tables, config)
    aggregate_snapshot(tables, config, AS_OF, run_id())
    expected = {
        "recency_days": 20.0,
        "events_7d": 0,
        "age_us_distinct_30d": 1,
        "word_0_sum_30d": 5.0,
        "value_max_30d": 7,
    }
    for feature, value in expected.items():
        made = explain(spark, config, 1, AS_OF, feature)
        assert (made.stored, made.agrees) == (value, True)
    assert [e.value for e in explain(spark, config, 1, AS_OF, "text_distinct_30d").events] == ["b"]


def test_a_declared_feature_counts_what_it_says(tables: Any, make_config: Any) -> None:
    features = [
        {"name": "large", "field": "amount", "operations": ["sum", "skew"], "where": "amount >= 1", "windows": [30]},
        {"field": "amount", "operations": ["sum"], "windows": [{"days": 7, "before": 7}, "lifetime"]},
    ]
    config = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"features": features}})
    days = {1: 50, 2: 200, 8: 300, 400: 1_000}
    snapshot(tables, config, [event(1, timedelta(days=d), "a", amount) for d, amount in days.items()])
    expected = {
        "large_amount_sum_30d": (5.0, 5.0, True, 2),
        "amount_sum_7d_before_7d": (3.0, 3.0, True, 1),
        "amount_sum_lifetime": (15.5, 15.5, True, 4),
        "large_amount_skew_30d": (0.0, None, None, 2),
    }
    for feature, found in expected.items():
        made = explain(tables.spark, config, 1, AS_OF, feature)
        assert (made.stored, made.recomputed, made.agrees, made.count) == found
    assert "2024-06-17 <= event_time < 2024-06-24" in str(
        explain(tables.spark, config, 1, AS_OF, "amount_sum_7d_before_7d")
    )
    assert "'skew' is not recomputed" in str(made)


def test_the_events_of_the_window_are_listed_in_order_with_their_values(tables: Any, config: Any) -> None:
    events = [
        event(1, timedelta(days=2), "b", 250),
        event(1, timedelta(days=7), "a", None),
        event(1, timedelta(days=7, microseconds=1), "a", 10**6),
        event(1, timedelta(0), "future", 1),
        event(2, timedelta(days=1), "a", 1),
    ]
    snapshot(tables, config, events)
    amounts = explain(tables.spark, config, 1, AS_OF, "amount_sum_7d")
    assert (amounts.stored, amounts.recomputed, amounts.count) == (2.5, 2.5, 2)
    assert [(e.time, e.value) for e in amounts.events] == [
        (MIDNIGHT - timedelta(days=7), None),
        (MIDNIGHT - timedelta(days=2), 2.5),
    ]
    categories = explain(tables.spark, config, 1, AS_OF, "mcc_distinct_180d", limit=1)
    assert (categories.stored, categories.count, [e.value for e in categories.events]) == (2, 3, ["a"])
    text = str(categories)
    assert "mcc_distinct_180d of user 1 at 2024-07-01: different mcc ids in the 180 days before as_of" in text
    assert "... and 2 more" in text
    assert "equal" in text


def test_a_value_that_later_landings_made_old_is_said_to_differ(tables: Any, config: Any) -> None:
    events = log(users=3, events=60)
    snapshot(tables, config, events)
    write(tables, [*events, event(1, timedelta(hours=30), "a", 5)])
    made = explain(tables.spark, config, 1, AS_OF, "events_7d")
    assert not made.agrees
    assert made.recomputed == made.stored + 1
    assert "DIFFERENT" in str(made)


def test_what_is_not_there_is_said_with_what_is(tables: Any, config: Any) -> None:
    snapshot(tables, config, log(users=3, events=60))
    with pytest.raises(SnapshotError, match=r"no feature 'amount_sum_8d'; did you mean 'amount_sum_\d+d'"):
        explain(tables.spark, config, 1, AS_OF, "amount_sum_8d")
    with pytest.raises(SnapshotError, match="user 99 has no row in the snapshot of 2024-07-01"):
        explain(tables.spark, config, 99, AS_OF, "events_7d")
    with pytest.raises(SnapshotError, match="no snapshot of 2024-06-30"):
        explain(tables.spark, config, 1, AS_OF - timedelta(days=1), "events_7d")
