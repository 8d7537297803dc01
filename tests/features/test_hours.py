"""Windows with hours: the naive oracle's values, on every route; columns of whole days keep their bits."""

from datetime import timedelta
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gur_spark.features.checksum import checksum
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.pivots import Pivot
from gur_spark.features.declare.spec import Aggregation, aggregation
from gur_spark.features.declare.windows import Length, Window
from gur_spark.features.kernel.dumps import dump, load_into
from gur_spark.features.kernel.merging import merge
from gur_spark.features.kernel.partition import KNOWN, PartitionState, aggregate_partition
from gur_spark.features.states.tiles import Tiles
from tests.features import operation_oracles as oracles
from tests.features.test_dumps import HORIZON, continued, full
from tests.features.test_kernel import AMOUNT, AS_OF
from tests.features.test_operations import DAY_US, OLDEST, different, same, to_table, with_derived
from tests.oracles import HOUR_US, aggregate_rows, same_rows

ENDING = ["6h", 1, "30h", {"hours": 7, "before": "40h"}, {"days": 2, "before": "5h"}]
WINDOWS = [*ENDING, 10, "lifetime", {"days": None, "before": "9h"}]
FEATURES: tuple[Aggregation, ...] = (
    aggregation(None, "events", "active_days", "gap_mean", "gap_std", "hours", "weekdays", windows=WINDOWS, name="e"),
    aggregation(None, "recency", "tenure", windows=["6h", "50h"], name="since"),
    aggregation(
        "amount",
        *("count", "sum", "mean", "std", "min", "max", "range", "skew", "kurtosis", "share_zero", "share_negative"),
        *("first", "last", {"last_k": 2}, {"bins": [-1, 0, 0.015, 2.5]}, {"quantiles": [0, 0.5]}, {"decayed_sum": 1.5}),
        windows=WINDOWS,
        name="n",
    ),
    aggregation(
        "mcc",
        *("distinct", {"top_k": 2}, "mode", "mode_share", "entropy", "first", "last", {"last_k": 2}, "approx_distinct"),
        windows=WINDOWS,
        name="c",
    ),
    aggregation("mcc", "ids", "histogram", "new", windows=["6h", "30h", 5], name="h"),
    aggregation("amount", "count", "sum", "mean", windows=WINDOWS, by="mcc"),
    aggregation("amount", "sum", windows=["6h", 1, 4], name="q", ratios=[["6h", "1d"]], trends=[["6h", 4], [4, "6h"]]),
)
PIVOT = Pivot.model_validate({"by": "mcc", "of": "amount", "operations": ["mean", "last"], "top": 2})
MANIFEST = make_manifest(
    "long", ["6h", 1, "30h", 10], [AMOUNT], ["mcc"], [*FEATURES, PIVOT.pivoted({"a": 3, "b": 4, "c": 5})]
)

edges = [h * HOUR_US + s for h in (1, 5, 6, 7, 24, 30, 40, 47, 48, 53, 120, 240) for s in (0, 1)]
events = st.builds(
    lambda user, age, amount, mcc: {"user_id": user, "age_us": age, "amount": amount, "mcc": mcc},
    st.sampled_from([1, 2, 2**60]),
    st.one_of(st.integers(1, 60 * HOUR_US), st.integers(1, 30 * DAY_US), st.sampled_from([1, *edges])),
    st.one_of(st.none(), st.integers(-300, 300)),
    st.integers(1, 4),
).map(with_derived)
logs = st.lists(st.tuples(events, st.booleans()), min_size=1, max_size=30)


@given(logs)
@settings(max_examples=12, deadline=None)
def test_every_column_equals_the_naive_oracle(log: list[tuple[dict[str, Any], bool]]) -> None:
    rows = [row for row, _ in log]
    table = full(rows, MANIFEST, AS_OF).finalize(0).to_pylist()
    within = [r for r in rows if r["age_us"] <= 10 * DAY_US]
    standard = aggregate_rows(within, MANIFEST)
    found = {row["user_id"]: row for row in table}
    assert same_rows({u: {k: row[k] for k in standard[u]} for u, row in found.items()}, standard)
    for user, row in found.items():
        mine = [r for r in rows if r["user_id"] == user]
        for feature in FEATURES:
            for name, expected in oracles.declared(mine, feature, row["mcc_ids"]).items():
                assert same(row[name], expected, relative=0.0101 if "_p" in name else 1e-9), (name, row[name], expected)


@given(logs, st.integers(1, HORIZON))
@settings(max_examples=8, deadline=None)
def test_a_later_date_has_the_bits_it_has_alone(log: list[tuple[dict[str, Any], bool]], days: int) -> None:
    expected = full([row for row, _ in log], MANIFEST, AS_OF + timedelta(days=days)).finalize(0)
    found = continued(log, MANIFEST, days)
    assert checksum(found) == checksum(expected), different(found, expected)


@given(st.data(), st.lists(st.integers(1, 10), min_size=1, max_size=3))
@settings(max_examples=8, deadline=None)
def test_each_date_of_many_has_the_bits_it_has_alone(data: Any, steps: list[int]) -> None:
    """Any of the dates may be the first that knows a row."""
    lags = list(accumulate(steps, initial=0))
    dates = sorted(AS_OF - timedelta(days=lag) for lag in lags)
    log = data.draw(st.lists(st.tuples(events, st.integers(0, len(dates) - 1)), min_size=1, max_size=30))
    tiles = Tiles.of(dates, MANIFEST.windows, MANIFEST.declared_windows, OLDEST)
    many = to_table([row for row, _ in log], **{KNOWN: [known for _, known in log]})
    for number, (day, found) in enumerate(aggregate_partition(many.to_batches(max_chunksize=5), MANIFEST, tiles)):
        ages = [(row, row["age_us"] - (AS_OF - day).days * DAY_US) for row, known in log if known <= number]
        seen = [row | {"age_us": age} for row, age in ages if age > 0]
        alone = Tiles.of([day], MANIFEST.windows, MANIFEST.declared_windows, OLDEST)
        [(_, expected)] = aggregate_partition(to_table(seen).to_batches() if seen else [], MANIFEST, alone)
        assert checksum(found) == checksum(expected), different(found, expected)


@given(logs)
@settings(max_examples=8, deadline=None)
def test_parts_of_a_log_merged_have_the_bits_of_the_whole(log: list[tuple[dict[str, Any], bool]]) -> None:
    tiles = Tiles.of([AS_OF], MANIFEST.windows, MANIFEST.declared_windows, OLDEST)
    whole, first, second = (PartitionState(MANIFEST, tiles) for _ in range(3))
    for state, taken in ((whole, (True, False)), (first, (True,)), (second, (False,))):
        rows = [row for row, part in log if part in taken]
        if rows:
            state.take(to_table(rows).to_batches(max_chunksize=9))
    merge(first, load_into(dump(second), MANIFEST, tiles, tiles))
    found, expected = first.finalize(0), whole.finalize(0)
    assert checksum(found) == checksum(expected), different(found, expected)


DAYS = (
    aggregation(None, "events", "active_days", "silent_days", "gap_mean", "gap_std", windows=[1, 4], name="e"),
    aggregation("amount", "sum", "skew", "last", windows=[2, {"days": 3, "before": 2}, "lifetime"], name="n"),
)


@given(logs)
@settings(max_examples=8, deadline=None)
def test_windows_of_days_have_the_same_bits_beside_windows_of_hours(log: list[tuple[dict[str, Any], bool]]) -> None:
    rows = [row for row, _ in log]
    more = aggregation("amount", "max", windows=["6h", {"days": 1, "before": "3h"}])
    plain, mixed = (make_manifest("long", [3, 10], [AMOUNT], ["mcc"], [*DAYS, *f]) for f in ((), (more,)))
    alone, beside = full(rows, plain, AS_OF), full(rows, mixed, AS_OF)
    assert (alone.tiles.unit_hours, beside.tiles.unit_hours) == (24, 1)
    assert checksum(beside.finalize(0).select([c.name for c in plain.columns])) == checksum(alone.finalize(0))


def test_active_days_of_a_window_inside_a_day_are_none_or_one_by_hand() -> None:
    ages = [3 * HOUR_US, 5 * HOUR_US, 26 * HOUR_US, 49 * HOUR_US]
    manifest = make_manifest("long", ["6h", "25h", "50h"], [AMOUNT], ["mcc"], [])
    rows = [{"user_id": 1, "age_us": age, "amount": 100, "mcc": 3} for age in ages]
    [row] = full(rows, manifest, AS_OF).finalize(0).to_pylist()
    assert [row[f"active_days_{w}"] for w in ("6h", "25h", "50h")] == [1, 1, 3]
    assert row["recency_days"] == 3 / 24


def test_a_trend_divides_rates_per_day_by_hand() -> None:
    feature = aggregation("amount", "sum", windows=["6h", 1], trends=[["6h", 1]], name="pace")
    manifest = make_manifest("long", [1], [AMOUNT], ["mcc"], [feature])
    rows = [{"user_id": 1, "age_us": h * HOUR_US, "amount": 100, "mcc": 3} for h in (1, 5, 7, 20)]
    [row] = full(rows, manifest, AS_OF).finalize(0).to_pylist()
    # 2 in a quarter of a day are 8 per day; 4 in a day are 4 per day.
    assert row["pace_amount_sum_6h_rate_over_1d"] == 2.0
    meaning = next(c.meaning for c in manifest.columns if c.name == "pace_amount_sum_6h_rate_over_1d")
    assert meaning == "(pace_amount_sum_6h / 0.25) / (pace_amount_sum_1d)"


def test_a_part_of_a_day_has_the_weight_of_the_day_by_hand() -> None:
    manifest = make_manifest("long", ["30h", 3], [AMOUNT], ["mcc"], [aggregation("amount", {"decayed_sum": 1})])
    rows = [{"user_id": 1, "age_us": h * HOUR_US, "amount": 400, "mcc": 3} for h in (2, 29, 31, 60)]
    [row] = full(rows, manifest, AS_OF).finalize(0).to_pylist()
    assert row["amount_decayed_sum_1_30h"] == 4 + 4 / 2
    assert row["amount_decayed_sum_1_3d"] == 4 + 4 / 2 + 4 / 2 + 4 / 4


def test_names_and_meanings_say_hours_and_days() -> None:
    columns = {c.name: c for c in MANIFEST.columns}
    assert columns["amount_mean_6h"].meaning == "mean of amount in the 6 hours before as_of"
    assert columns["n_amount_sum_7h_before_40h"].meaning == "sum of amount in the 7 hours before 40 hours before as_of"
    assert columns["amount_mean_6h"].window == Window.of("6h")
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert MANIFEST.windows == ("6h", 1, "30h", 10)
    assert "mcc_counts_30h" in MANIFEST.inputs


@pytest.mark.parametrize(
    ("value", "length", "name"),
    [(7, 7, "7d"), ("7d", 7, "7d"), ("24h", 1, "1d"), ("6h", "6h", "6h"), ("36h", "36h", "36h"), ("48h", 2, "2d")],
)
def test_a_length_has_one_form_however_it_is_given(value: Any, length: Any, name: str) -> None:
    assert TypeAdapter(Length).validate_python(value) == length
    window = Window.model_validate(value)
    assert (window, window.name) == (Window.of(length), name)
    assert Window.model_validate(window.model_dump()) == window
    assert ("hours" in window.model_dump()) == isinstance(length, str)
    assert Window.model_validate({"hours": window.length}) == window
    assert Window.model_validate({"days": length}) == Window.model_validate({"hours": name}) == window
    assert Window.model_validate({"days": 9, "before": name}).gap == window.length


def test_both_keys_of_a_long_form_count_together() -> None:
    assert Window.model_validate({"days": "1d", "hours": 30, "before": 1, "before_hours": "6h"}) == Window.of(
        "54h", "30h"
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"before": "6h"}, r"expected a length: \{days: 7\}, \{hours: 6\}, or \{days: null\}"),
        ({"days": "7 days"}, "days: expected days such as 7 or '7d', or hours such as '6h', got '7 days'"),
        ({"hours": -6}, "hours: expected days such as .* got '-6h'"),
        ({"hours": True}, "hours: expected days such as .* got True"),
        ({"days": 7, "before": 1.5}, "before: expected days such as .* got 1.5"),
        ({"days": 7, "befor": 1}, "befor"),
        (7.5, "expected days such as 7 or '7d', or hours such as '6h', got 7.5"),
    ],
)
def test_another_window_is_refused_with_the_forms_that_there_are(value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Window.model_validate(value)


@pytest.mark.parametrize("value", ["6", "6m", "0h", 0, -1, "h", "1.5h", 3651, "3651d", True, 1.5, None])
def test_another_text_or_number_is_no_length(value: Any) -> None:
    with pytest.raises(ValidationError, match="expected"):
        TypeAdapter(Length).validate_python(value)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"operations": ["silent_days"], "windows": ["6h"]}, "'silent_days' takes windows of whole days"),
        ({"field": "amount", "operations": ["sum"], "windows": ["24h", "1d"]}, "window '1d' is given twice"),
        (
            {"operations": ["events"], "windows": [1, 7], "trends": [["6h", 7]], "name": "x"},
            "window 6h of .*'1d', '7d'",
        ),
        ({"field": "amount", "operations": ["sum"], "windows": [{"hours": 0}]}, "greater than or equal to 1 hour"),
        (
            {"operations": ["events"], "windows": [{"days": None, "hours": 3}]},
            "hours: a window from the first event on",
        ),
    ],
)
def test_windows_that_do_not_fit_are_refused(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_manifest("long", [3, 10], [AMOUNT], ["mcc"], [Aggregation.model_validate(feature)])


def test_a_manifest_of_whole_days_without_pivots_has_the_keys_that_it_always_had() -> None:
    """Its hash must stay, because models and snapshots hold it."""
    manifest = make_manifest("long", [3, 10], [AMOUNT], ["mcc"], DAYS)
    keys = {key for column in manifest.model_dump()["columns"] for key in column}
    assert keys == {"name", "dtype", "unit", "meaning", "statistic", "field", "window_days", "before_days", "where",
                    "by", "null"}  # fmt: skip
    assert manifest.model_dump()["features"][0]["windows"][0] == {"days": 1, "before": 0}
    assert manifest.hash == "3604e6d8d0246852"


def test_a_table_of_hours_has_the_types_of_the_manifest() -> None:
    empty = PartitionState(MANIFEST, Tiles.of([AS_OF], MANIFEST.windows, MANIFEST.declared_windows, OLDEST)).finalize(0)
    row = with_derived({"user_id": 1, "age_us": 1, "amount": 1, "mcc": 3})
    one: pa.Table = full([row], MANIFEST, AS_OF).finalize(0)
    assert empty.schema.equals(one.schema)
