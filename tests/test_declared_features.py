"""Declared features from YAML to Parquet: columns that Spark derives, and declarations that are refused."""

from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest

from gur_spark.errors import ConfigError
from gur_spark.tables.delta import Tables
from tests.test_snapshots import MIDNIGHT, event, log, snapshot

pytestmark = [pytest.mark.both_engines, pytest.mark.usefixtures("vocabulary")]

FEATURES = [
    {"name": "large", "field": "amount", "operations": ["sum", "count"], "where": "amount >= 12.34 AND mcc = 'a'"},
    {"field": "amount", "operations": ["sum"], "by": "mcc", "windows": [30]},
    {"field": "amount", "operations": [{"quantiles": [0.5]}, {"last_k": 2}], "windows": ["lifetime"]},
    {"field": "mcc", "operations": [{"approx_distinct": 4}], "windows": [180]},
    {
        "operations": [{"hours": "Europe/Berlin"}, {"weekdays": "Europe/Berlin"}],
        "windows": [{"days": 60, "before": 30}],
    },
]


def rows(made: Any) -> dict[int, dict[str, Any]]:
    return {row["user_id"]: row for row in pq.read_table(made.data).to_pylist()}


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config({"vocabulary": {"min_count": 1}, "aggregates": {"features": FEATURES}})


def test_conditions_hours_and_crossed_sums_are_those_of_the_events(tables: Tables, config: Any) -> None:
    events = [*log(), event(3, timedelta(days=400), "a", 123_456), event(3, timedelta(days=400), "b", 1_233)]
    found = rows(snapshot(tables, config, events))
    for user, row in found.items():
        mine = [(MIDNIGHT - t, t, mcc, a) for u, t, _, mcc, a in events if u == user and t < MIDNIGHT]
        large = [a for age, _, mcc, a in mine if age <= timedelta(days=180) and mcc == "a" and a and a >= 1234]
        assert (row["large_amount_count_180d"], row["large_amount_sum_180d"]) == (len(large), sum(large) / 100)
        last = [a / 100 for _, _, _, a in sorted(mine, key=lambda e: e[0]) if a is not None]
        assert row["amount_last_2_lifetime"] == last[:2]
        middle = sorted(last)[(len(last) - 1) // 2]
        assert row["amount_p50_lifetime"] == pytest.approx(middle, rel=0.0101)
        local = [
            t.astimezone(ZoneInfo("Europe/Berlin"))
            for age, t, *_ in mine
            if timedelta(days=30) < age <= timedelta(days=90)
        ]
        assert row["hours_europe_berlin_60d_before_30d"] == [sum(t.hour == h for t in local) for h in range(24)]
        assert row["weekdays_europe_berlin_60d_before_30d"] == [sum(t.weekday() == d for t in local) for d in range(7)]
        assert len(row["amount_by_mcc_sum_30d"]) == len(row["mcc_ids"])
        month = sum(a for age, _, _, a in mine if a and age <= timedelta(days=30))
        assert sum(row["amount_by_mcc_sum_30d"]) == pytest.approx(month / 100)
        assert row["mcc_approx_distinct_180d"] == pytest.approx(row["mcc_distinct_180d"], abs=1)


def test_more_partitions_and_shuffled_files_change_no_bit(spark: Any, tables: Tables, config: Any) -> None:
    first = snapshot(tables, config, log())
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    try:
        assert snapshot(tables, config, log()[::-1], files=3).checksum == first.checksum
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")


@pytest.mark.parametrize("where", ["amount >", "nothing = 1", "sum(amount) > 1"])
def test_a_condition_that_cannot_be_used_is_a_configuration_error(tables: Tables, make_config: Any, where: str) -> None:
    feature = {"name": "x", "field": "amount", "operations": ["sum"], "where": where}
    config = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"features": [feature]}})
    with pytest.raises(ConfigError, match=r"aggregates.features: condition .* cannot be used"):
        snapshot(tables, config, [event(1, timedelta(days=1), "a", 5)])
    assert not tables.exists("snapshots")


def test_a_declaration_in_yaml_that_does_not_fit_names_its_place(make_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"aggregates.features.1: no operation 'sume' .*did you mean 'sum'"):
        make_config({"aggregates": {"features": [FEATURES[0], {"field": "amount", "operations": ["sume"]}]}})
    with pytest.raises(ConfigError, match=r"aggregates.features.0.wher: unknown key; .*did you mean 'where'"):
        make_config({"aggregates": {"features": [{"field": "amount", "operations": ["sum"], "wher": "x"}]}})
    with pytest.raises(ConfigError, match="greater than or equal to 1"):
        make_config({"aggregates": {"features": [{"field": "amount", "operations": ["sum"], "windows": [0]}]}})


@pytest.mark.parametrize(
    "where",
    ["amount > rand()", "uuid() > 'a'", "event_time > current_date", "event_time < NOW( )", "unix_timestamp() > 5"],
)
def test_a_condition_that_is_another_each_time_is_refused(make_config: Any, where: str) -> None:
    feature = {"name": "x", "field": "amount", "operations": ["sum"], "where": where}
    with pytest.raises(ConfigError, match="is another value each time; a snapshot must come out the same"):
        make_config({"aggregates": {"features": [feature]}})


def test_a_condition_may_speak_of_such_words(make_config: Any) -> None:
    where = "mcc IN ('rand()', 'now') AND unix_timestamp(event_time) > 5 AND brand > 1"
    feature = {"name": "x", "field": "amount", "operations": ["sum"], "where": where}
    assert make_config({"aggregates": {"features": [feature]}}).aggregates.features[0].where == where
