"""Declared features against naive oracles, and the properties that every one of them keeps."""

import math
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gur_spark.features.checksum import checksum
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.plan import plan_of
from gur_spark.features.declare.spec import Aggregation, aggregation
from gur_spark.features.kernel import partition
from gur_spark.features.kernel.partition import AGE, KNOWN, aggregate_partition
from gur_spark.features.operations import REGISTRY, Operation, OutputColumn, operation
from gur_spark.features.states.numbers import NumericState
from gur_spark.features.states.tiles import Tiles
from gur_spark.schema import MAX_STEPS
from tests.features import operation_oracles as oracles
from tests.features.test_kernel import AMOUNT, AS_OF

DAY_US = oracles.DAY_US
OLDEST = AS_OF - timedelta(days=40)
WINDOWS = [1, {"days": 3, "before": 2}, 10, "lifetime", {"days": None, "before": 5}]
ENDING = [1, 4, {"days": 12, "before": 3}]

FEATURES: tuple[Aggregation, ...] = (
    aggregation(None, "events", "active_days", "gap_mean", "gap_std", "hours", "weekdays", windows=WINDOWS, name="e"),
    aggregation(None, "silent_days", windows=ENDING, name="e"),
    aggregation(None, "recency", "tenure", windows=[2, "lifetime"], name="since"),
    aggregation(
        "amount",
        *("count", "sum", "mean", "std", "min", "max", "range", "skew", "kurtosis", "share_zero", "share_negative"),
        *("first", "last", {"last_k": 2}, {"bins": [-1, 0, 0.015, 2.5]}),
        {"quantiles": [0, 0.5, 0.9]},
        {"decayed_sum": 2.5},
        windows=WINDOWS,
        name="n",
    ),
    aggregation(
        "mcc",
        *("distinct", {"top_k": 2}, "mode", "mode_share", "entropy", "first", "last", {"last_k": 2}, "approx_distinct"),
        windows=WINDOWS,
        name="c",
    ),
    aggregation("mcc", "ids", "histogram", "new", windows=[2, 5, "lifetime"], name="h"),
    aggregation("amount", "sum", "std", windows=[2, 10], where="amount > 0", name="above", trends=[[2, 10]]),
    aggregation("amount", "count", "sum", "mean", "max", windows=WINDOWS, by="mcc"),
    aggregation("amount", "sum", where="amount > 0", name="above", by="mcc"),
    aggregation("amount", "sum", "mean", windows=[1, 4], name="q", ratios=[[1, 4]], trends=[[1, 4], [4, 1]]),
)
MANIFEST = make_manifest("long", [3, 10], [AMOUNT], ["mcc"], FEATURES)

events = st.builds(
    lambda user, age, amount, mcc: {"user_id": user, "age_us": age, "amount": amount, "mcc": mcc},
    st.sampled_from([1, 2, 2**60]),
    st.one_of(st.integers(1, 40 * DAY_US), st.sampled_from([1, DAY_US, DAY_US + 1, 5 * DAY_US, 5 * DAY_US + 1])),
    st.one_of(st.none(), st.integers(-300, 300), st.integers(-MAX_STEPS, MAX_STEPS)),
    st.integers(1, 4),
)


def with_derived(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the columns that Spark derives from each event."""
    age = row["age_us"] or 0
    made = {"_hours_utc": age // 3_600_000_000 % 24, "_weekdays_utc": age // DAY_US % 7}
    made |= {"_hash_mcc": row["mcc"] * 2_654_435_761 % 2**31, "_where_0": int((row["amount"] or 0) > 0)}
    return row | made


logs = st.lists(events.map(with_derived), min_size=1, max_size=40)


def to_table(rows: Sequence[dict[str, Any]], **more: Any) -> pa.Table:
    columns = {AGE if name == "age_us" else name: [r[name] for r in rows] for name in rows[0]}
    return pa.table({name: pa.array(values, pa.int64()) for name, values in (columns | more).items()})


def run(
    rows: Sequence[dict[str, Any]], manifest: Manifest = MANIFEST, batch: int = 7, chunk: int = 1 << 20
) -> pa.Table:
    tiles = Tiles.of([AS_OF], manifest.windows, manifest.declared_windows, OLDEST)
    with patch.object(partition, "CHUNK_ROWS", chunk):
        [(_, table)] = aggregate_partition(to_table(rows).to_batches(max_chunksize=batch), manifest, tiles)
    return table


def by_user(table: pa.Table) -> dict[Any, dict[str, Any]]:
    return {row["user_id"]: row for row in table.to_pylist()}


def test_every_operation_has_an_oracle() -> None:
    known = {("events", n) for n in oracles.EVENTS} | {("numeric", n) for n in oracles.NUMERIC}
    known |= {("categorical", n) for n in oracles.CATEGORICAL}
    assert {key for key in REGISTRY if key[1] not in oracles.SPECIAL} == known
    used = {((f.field and ("numeric" if f.field == "amount" else "categorical")) or "events", o.name)
            for f in FEATURES for o in f.operations}  # fmt: skip
    assert used == set(REGISTRY)


@given(logs)
@settings(max_examples=25, deadline=None)
def test_every_declared_column_equals_the_naive_oracle(rows: list[dict[str, Any]]) -> None:
    found = by_user(run(rows))
    for user, row in found.items():
        of_user = [r for r in rows if r["user_id"] == user]
        for feature in MANIFEST.features:
            whole = feature if feature.windows else feature.model_copy(update={"windows": MANIFEST_WINDOWS})
            kept = of_user if not feature.where else [r for r in of_user if (r["amount"] or 0) > 0]
            for name, expected in oracles.declared(kept, whole, row["mcc_ids"]).items():
                assert same(row[name], expected, relative=0.0101 if "_p" in name else 1e-9), (name, row[name], expected)


MANIFEST_WINDOWS = plan_of(MANIFEST).planned[0].aggregation.windows


def test_only_users_active_in_the_longest_standard_window_have_a_row() -> None:
    rows = [{"user_id": u, "age_us": a * DAY_US, "amount": 1, "mcc": 3} for u, a in [(1, 10), (1, 30), (2, 11)]]
    found = by_user(run([with_derived(r) for r in rows]))
    assert [(u, r["e_events_lifetime"], r["events_10d"]) for u, r in found.items()] == [(1, 2, 1)]


def same(found: Any, expected: Any, relative: float) -> bool:
    if isinstance(expected, list):
        pairs = zip(found, expected, strict=False)
        return len(found) == len(expected) and all(same(a, b, relative) for a, b in pairs)
    if isinstance(expected, float):
        return isinstance(found, float) and math.isclose(found, expected, rel_tol=relative, abs_tol=1e-9)
    return type(found) is type(expected) and found == expected


@given(logs, st.randoms(use_true_random=False), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=12, deadline=None)
def test_row_order_batches_and_chunks_change_no_bit(
    rows: list[dict[str, Any]], random: Any, batch: int, chunk: int
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert checksum(run(shuffled, batch=batch, chunk=chunk)) == checksum(run(rows))


@given(st.data(), st.lists(st.integers(1, 10), min_size=1, max_size=4))
@settings(max_examples=12, deadline=None)
def test_each_date_of_many_has_the_bits_it_has_alone(data: Any, steps: list[int]) -> None:
    """Any of the dates may be the first that knows a row."""
    lags = np.cumsum([0, *steps]).tolist()
    dates = sorted(AS_OF - timedelta(days=lag) for lag in lags)
    known = st.integers(0, len(dates) - 1)
    rows = [r | {"known": k} for r, k in data.draw(st.lists(st.tuples(events, known), min_size=1, max_size=30))]
    tiles = Tiles.of(dates, MANIFEST.windows, MANIFEST.declared_windows, OLDEST)
    rows = [with_derived(r) for r in rows if r["age_us"] <= tiles.units * tiles.unit_us]
    if not rows:
        return
    many = to_table([{k: v for k, v in r.items() if k != "known"} for r in rows], **{KNOWN: [r["known"] for r in rows]})
    made = dict(aggregate_partition(many.to_batches(max_chunksize=5), MANIFEST, tiles))
    for number, day in enumerate(dates):
        lag = (AS_OF - day).days
        seen = [
            {k: v for k, v in r.items() if k != "known"} | {"age_us": r["age_us"] - lag * DAY_US}
            for r in rows
            if r["known"] <= number and r["age_us"] > lag * DAY_US
        ]
        alone = Tiles.of([day], MANIFEST.windows, MANIFEST.declared_windows, OLDEST)
        batches = to_table(seen).to_batches() if seen else []
        [(_, expected)] = aggregate_partition(batches, MANIFEST, alone)
        assert checksum(made[day]) == checksum(expected), different(made[day], expected)


def different(a: pa.Table, b: pa.Table) -> list[str]:
    return [name for name in a.column_names if a[name].to_pylist() != b[name].to_pylist()]


@pytest.mark.parametrize("size", [1, 2**20, MAX_STEPS])
def test_moments_are_exact_for_every_stored_number(size: int) -> None:
    rows = [{"user_id": 1, "age_us": 5, "amount": a, "mcc": 3} for a in (size, size - 1, size - 1, -size)]
    found = by_user(run([with_derived(r) for r in rows]))[1]
    steps = [r["amount"] for r in rows]
    assert found["n_amount_skew_1d"] == pytest.approx(oracles._skew(steps), rel=1e-12)
    assert found["n_amount_kurtosis_1d"] == pytest.approx(oracles._kurtosis(steps), rel=1e-12)


def test_a_quantile_is_within_one_percent_of_the_value_at_its_rank() -> None:
    steps = sorted(int(x) for x in np.random.default_rng(0).lognormal(8, 3, 2_000))
    rows = [{"user_id": 1, "age_us": 5, "amount": x, "mcc": 3} for x in steps]
    found = by_user(run([with_derived(r) for r in rows]))[1]
    for name, share in (("p0", 0), ("p50", 0.5), ("p90", 0.9)):
        true = steps[math.floor(share * 1_999)] / 100
        assert abs(found[f"n_amount_{name}_1d"] - true) <= 0.01 * true * (1 + 1e-9)


def test_a_sketch_of_many_values_is_near_their_number() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**31, 20_000).tolist()
    row = with_derived({"user_id": 1, "age_us": 5, "amount": 1, "mcc": 3})
    found = by_user(run([row | {"_hash_mcc": h} for h in hashes]))[1]
    assert abs(found["c_mcc_approx_distinct_1d"] / 20_000 - 1) < 3 * 1.04 / 2**4


def test_days_of_a_half_life_halve_the_weight() -> None:
    manifest = make_manifest("long", [10], [AMOUNT], ["mcc"], [aggregation("amount", {"decayed_sum": 2})])
    ages = [1, 2 * DAY_US + 1, 4 * DAY_US + 1]
    rows = [{"user_id": 1, "age_us": age, "amount": 400, "mcc": 3} for age in ages]
    # 4 + 4/2 + 4/4, by hand.
    assert by_user(run(rows, manifest))[1]["amount_decayed_sum_2_10d"] == 7.0


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"field": "amont", "operations": ["sum"]}, r"features.0: no field 'amont'; .*did you mean 'amount'"),
        ({"field": "amount", "operations": ["sume"]}, r"features.0: no operation 'sume' on a numeric field; .*'sum'\?"),
        ({"field": "mcc", "operations": ["sum"]}, "no operation 'sum' on a categorical field; available: .*'entropy'"),
        ({"field": "amount", "operations": [{"last_k": 0}]}, "'last_k' takes a whole number from 1 to 1000, got 0"),
        ({"field": "amount", "operations": [{"sum": 3}]}, "operation 'sum' takes no parameter"),
        ({"field": "amount", "operations": [{"quantiles": [2]}]}, "takes shares from 0 to 1"),
        ({"field": "amount", "operations": [{"bins": [2, 1]}]}, "takes ascending edges"),
        ({"operations": [{"hours": "Europe/Berln"}]}, "takes a time zone, .*; did you mean 'Europe/Berlin'"),
        ({"operations": ["silent_days"], "windows": ["lifetime"]}, "takes windows with an end"),
        ({"field": "mcc", "operations": ["new"], "windows": [7]}, "takes two windows or more"),
        ({"field": "amount", "operations": ["sum"], "by": "mc"}, "by: no categorical field 'mc'; .*'mcc'"),
        ({"field": "amount", "operations": [{"last_k": 2}], "by": "mcc"}, "is not one number per window"),
        ({"field": "amount", "operations": ["sum"], "name": "x", "ratios": [[1, 3]]}, r"window 1 of \[1, 3\]"),
        ({"field": "amount", "operations": ["sum"]}, "two aggregate columns would be named 'amount_sum_3d'"),
    ],
)  # fmt: skip
def test_a_declaration_that_does_not_fit_is_refused_with_a_hint(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_manifest("long", [3, 10], [AMOUNT], ["mcc"], [Aggregation.model_validate(feature)])


def test_the_manifest_says_what_each_declared_column_is() -> None:
    columns = {c.name: c for c in MANIFEST.columns}
    assert columns["above_amount_std_2d"].meaning == (
        "population standard deviation of amount in the 2 days before as_of where amount > 0"
    )
    assert columns["n_amount_sum_3d_before_2d"].meaning == "sum of amount in the 3 days before 2 days before as_of"
    assert columns["amount_by_mcc_mean_lifetime"].dtype == "array<double>"
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    with pytest.raises(ValueError, match="manifest has format 1, this version reads 4"):
        Manifest.from_json(MANIFEST.to_json().replace('"format": 4', '"format": 1'))
    assert {"c_mcc_mode_1d", "c_mcc_last_1d"}.isdisjoint(c.name for c in MANIFEST.dense)


def test_the_operation_in_the_docs_works() -> None:
    page = (Path(__file__).parents[2] / "docs" / "aggregates.md").read_text()
    [code] = re.findall(r"```python\n(@operation.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) < 15
    names = {"operation": operation, "Operation": Operation, "OutputColumn": OutputColumn, "NumericState": NumericState}
    try:
        exec(code, names | {"np": np, "pa": pa})
        manifest = make_manifest("long", [10], [AMOUNT], ["mcc"], [aggregation("amount", "variation")])
        rows = [{"user_id": 1, "age_us": 5, "amount": a, "mcc": 3} for a in (100, 300)]
        # A mean of 2 and a deviation of 1, by hand.
        assert by_user(run(rows, manifest))[1]["amount_variation_10d"] == 0.5
    finally:
        REGISTRY.pop(("numeric", "variation"), None)
