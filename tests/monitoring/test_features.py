"""Drift of inputs: changed inputs are named and others are not; shares equal those of plain Python."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gur_spark.config.file import base_file
from gur_spark.config.monitoring import Monitor
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import AttributeField, Manifest
from gur_spark.monitoring.features import OTHERS, Distribution, compare, measured_columns
from gur_spark.monitoring.findings import Finding, judge
from gur_spark.statistics.measures import psi
from tests.aggregate_data import SIZES, random_events, tiny_manifest, to_rows

USERS = 400
MANIFEST = tiny_manifest()
BEFORE = random_events(USERS, SIZES, ["amount"], seed=1, longest=30)
AGAIN = random_events(USERS, SIZES, ["amount"], seed=2, longest=30)


def settings(**changes: Any) -> Monitor:
    from omegaconf import OmegaConf

    return Monitor(**{**OmegaConf.to_container(OmegaConf.load(base_file()).monitor), **changes})  # type: ignore[dict-item]


def table(events: Any) -> pa.Table:
    return pa.Table.from_batches([to_rows(events, MANIFEST)]).select(measured_columns(MANIFEST))


def findings(before: Any, after: Any) -> list[Finding]:
    distributions = compare(table(before), table(after), MANIFEST, SIZES)
    return judge([one for d in distributions for one in d.measured("before")], settings())


def changed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Other users of the same distribution, with changed events."""
    return [[event | change(event) for event in user] for user in AGAIN]


def alerts(found: list[Finding]) -> set[tuple[str, str]]:
    return {(f.subject, f.measure) for f in found if f.status == "alert"}


def test_other_users_of_the_same_kind_are_no_drift() -> None:
    found = findings(BEFORE, AGAIN)
    assert {f.status for f in found} == {"ok"}, found[0]
    assert {f.subject for f in found} == {c for c in measured_columns(MANIFEST) if not c.endswith("_ids")}
    assert all(f.value == 0 for f in findings(BEFORE, BEFORE))


def test_amounts_times_three_are_found_in_features_of_amounts_and_nowhere_else() -> None:
    found = alerts(findings(BEFORE, changed(lambda e: {"amount": e["amount"] and e["amount"] * 3})))
    assert {("amount_mean_7d", "psi"), ("amount_mean_30d", "psi"), ("amount_max_30d", "psi")} <= found
    assert {subject.split("_")[0] for subject, _ in found} == {"amount"}


@pytest.mark.parametrize("new", [1, SIZES["channel"]], ids=["unknown", "an id of a newer vocabulary"])
def test_a_new_category_is_found_in_its_field_and_nowhere_else(new: int) -> None:
    after = changed(lambda e: {"channel": new if e["age"] % 0.1 < 0.04 else e["channel"]})
    found = alerts(findings(BEFORE, after))
    assert {("channel_counts_7d", "new_share"), ("channel_counts_30d", "new_share")} <= found
    assert {subject.split("_")[0] for subject, _ in found} == {"channel"}


def test_numbers_that_are_missing_and_windows_that_are_empty_are_found() -> None:
    gone = alerts(findings(BEFORE, changed(lambda e: {"amount": None})))
    assert {("amount_mean_30d", "null_share"), ("amount_count_30d", "psi")} <= gone
    assert {subject.split("_")[0] for subject, _ in gone} == {"amount"}
    silent = alerts(findings(BEFORE, changed(lambda e: {"age": 8 + e["age"] * 20 / 30})))
    assert {("mcc_counts_7d", "null_share"), ("amount_mean_7d", "null_share"), ("recency_days", "psi")} <= silent


def by_name(before: pa.Table, after: pa.Table, manifest: Manifest = MANIFEST) -> dict[str, Distribution]:
    return {d.column: d for d in compare(before, after, manifest, SIZES)}


def test_a_histogram_is_each_users_shares_of_ids() -> None:
    found = by_name(table(BEFORE), table(AGAIN))["mcc_counts_30d"]
    for events, side, null in ((BEFORE, found.before_B, found.before_null), (AGAIN, found.after_B, found.after_null)):
        weights: Counter[Any] = Counter()
        active = [[e["mcc"] for e in user if e["age"] <= 30] for user in events]
        for ids in active:
            for id in ids:
                weights[id if id in found.bins else OTHERS] += 1 / len(ids)
        assert dict(zip(found.bins, side, strict=True)) == pytest.approx({bin: weights[bin] for bin in found.bins})
        assert null == pytest.approx(sum(not ids for ids in active) / USERS)
    # One id per hundred users with events has a bin, beside unknown and missing ones.
    assert found.bins[:2] == (1, 2)
    assert (len(found.bins), found.bins[-1]) == (2 + 3 + 1, OTHERS)


def test_numbers_are_counted_in_ranges_that_are_named() -> None:
    manifest = tiny_manifest(windows=(7,), categorical=())
    rows = to_rows([[]] * 1000, manifest).select(measured_columns(manifest))
    counted = pa.Table.from_batches([rows]).set_column(
        rows.schema.get_field_index("events_7d"), "events_7d", pa.array([0] * 500 + [1] * 300 + [9] * 200)
    )
    found = by_name(counted, counted, manifest)["events_7d"]
    shares = {bin: n for bin, n in zip(found.bins, found.before_B.tolist(), strict=True) if n}
    assert shares == {"0": 500, "1": 300, "9": 200}
    assert found.bins[0] == "< 0"


def test_a_column_of_one_id_is_counted_by_user() -> None:
    manifest = make_manifest("long", (7,), [], [], attributes=[AttributeField(name="channel", log="customers")])
    rows = pa.Table.from_batches([to_rows([[]] * 300, tiny_manifest(windows=(7,), numeric=(), categorical=()))])
    before = rows.append_column("channel", pa.array([3] * 200 + [1] * 50 + [None] * 50, pa.int64()))
    after = rows.append_column("channel", pa.array([3] * 100 + [1] * 100 + [4] * 100, pa.int64()))
    found = by_name(before, after, manifest)["channel"]
    assert found.bins == (1, 2, 3, OTHERS)
    assert (found.before_B.tolist(), found.after_B.tolist()) == ([50, 0, 200, 0], [100, 0, 100, 100])
    measured = {m.measure: m.value for m in found.measured("before")}
    assert measured["null_share"] == pytest.approx(50 / 300)
    assert measured["new_share"] == pytest.approx(100 / 300 - 50 / 250)
    assert measured["psi"] == psi(found.before_B, found.after_B)


def test_a_set_is_each_users_shares_of_its_members() -> None:
    picks = AttributeField(name="channel", log="customers", separator=",")
    manifest = make_manifest("long", (7,), [], [], attributes=[picks])
    assert "channel" in measured_columns(manifest)
    rows = pa.Table.from_batches([to_rows([[]] * 300, tiny_manifest(windows=(7,), numeric=(), categorical=()))])
    kind = pa.list_(pa.int32())
    before = rows.append_column("channel", pa.array([[3]] * 200 + [[1, 3]] * 50 + [[]] * 50, kind))
    after = rows.append_column("channel", pa.array([[3, 4]] * 200 + [[1]] * 50 + [None] * 50, kind))
    found = by_name(before, after, manifest)["channel"]
    assert found.bins == (1, 2, 3, OTHERS)
    assert (found.before_B.tolist(), found.after_B.tolist()) == ([25, 0, 225, 0], [50, 0, 100, 100])
    assert (found.before_null, found.after_null) == pytest.approx((50 / 300, 50 / 300))
    assert (found.before_unknown, found.after_unknown) == pytest.approx((25 / 250, 50 / 250))


def test_a_column_without_values_on_a_side_and_few_users_are_no_error() -> None:
    rows = table(BEFORE)
    empty = rows.set_column(
        rows.schema.get_field_index("amount_mean_7d"), "amount_mean_7d", pa.nulls(USERS, pa.float64())
    )
    for before, after in ((empty, rows), (rows, empty), (empty, empty), (rows.slice(0, 3), rows.slice(0, 0))):
        for distribution in by_name(before, after).values():
            assert all(np.isfinite(one.value) for one in distribution.measured("before"))
    named = by_name(empty, rows)["amount_mean_7d"]
    assert [m.measure for m in named.measured("before")] == ["null_share"]
