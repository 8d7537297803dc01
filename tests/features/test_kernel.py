"""The kernel against the naive oracle, and the properties that make a snapshot trustworthy."""

import math
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gur_spark.errors import AggregateOverflow
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest, NumericField
from gur_spark.features.kernel import partition
from gur_spark.features.kernel.partition import AGE, KNOWN, aggregate_partition
from gur_spark.features.states import base as states
from gur_spark.features.states.base import DAY_US
from gur_spark.features.states.counts import Histogram
from gur_spark.features.states.exact import SquareSum, exact_sums, std_steps
from gur_spark.features.states.tiles import Tiles
from gur_spark.schema import MAX_STEPS
from tests.oracles import aggregate_rows, same_rows

AMOUNT = NumericField(name="amount", step=Decimal("0.01"), transform="none")
AS_OF = date(2024, 7, 1)
MANIFEST = make_manifest("long", [1, 3, 10], [AMOUNT], ["mcc"])

ages = st.one_of(
    st.integers(1, 10 * DAY_US),
    # The edges, where an off-by-one would show.
    st.sampled_from([1, DAY_US - 1, DAY_US, DAY_US + 1, 3 * DAY_US, 3 * DAY_US + 1, 10 * DAY_US]),
)
events = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from([-5, 1, 2, 2**60]),
        "age_us": ages,
        "amount": st.one_of(st.none(), st.integers(-10_000, 10_000), st.integers(-MAX_STEPS, MAX_STEPS)),
        "mcc": st.integers(1, 9),
    }
)
names_a_user = st.fixed_dictionaries(
    {"user_id": st.integers(1, 5), "age_us": st.none(), "amount": st.none(), "mcc": st.none()}
)
logs = st.lists(st.one_of(events, names_a_user), min_size=1, max_size=60)


def run(rows: Sequence[dict[str, Any]], manifest: Manifest = MANIFEST, batch: int = 7, chunk: int = 1 << 20) -> Any:
    """The kernel's rows, by user."""
    user = pa.int64() if manifest.user_id_type == "long" else pa.string()
    types = {"user_id": user, "age_us": pa.int64(), "amount": pa.int64(), "mcc": pa.int32()}
    columns = {name: pa.array([r[name] for r in rows], type) for name, type in types.items()}
    table = pa.table({AGE if name == "age_us" else name: column for name, column in columns.items()})
    with patch.object(partition, "CHUNK_ROWS", chunk):
        made = aggregate_partition(table.to_batches(max_chunksize=batch), manifest, Tiles.of([AS_OF], manifest.windows))
        return dict(map(by_user, made))[AS_OF]


def by_user(made: tuple[date, pa.Table]) -> tuple[date, dict[Any, dict[str, Any]]]:
    """A date's rows."""
    as_of, table = made
    rows = table.to_pylist()
    assert {row.pop("as_of") for row in rows} <= {as_of}
    return as_of, {row.pop("user_id"): row for row in rows}


@given(logs)
@settings(max_examples=150, deadline=None)
def test_every_column_equals_the_naive_oracle(rows: list[dict[str, Any]]) -> None:
    assert same_rows(run(rows), aggregate_rows(rows, MANIFEST))


@given(logs, st.randoms(use_true_random=False), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_row_order_batches_and_chunks_change_no_bit(
    rows: list[dict[str, Any]], random: Any, batch: int, chunk: int
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert run(shuffled, batch=batch, chunk=chunk) == run(rows)


STEPS = st.lists(st.integers(1, MANIFEST.windows[-1]), max_size=5)
"""Days between neighbouring dates."""


@given(st.data(), STEPS, st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_each_date_of_many_has_the_bits_it_has_alone(data: Any, steps: list[int], batch: int, chunk: int) -> None:
    """Any of the dates may be the first that knows a row."""
    lags = list(accumulate(steps, initial=0))
    dates = sorted(AS_OF - timedelta(days=lag) for lag in lags)
    late = st.fixed_dictionaries({"known_from": st.integers(0, len(dates) - 1)})
    row = st.one_of(events.map(lambda e: e | {"age_us": e["age_us"] + DAY_US * (max(lags) - min(lags)) // 2}), events)
    rows = [{**e, **k} for e, k in data.draw(st.lists(st.tuples(row, late), min_size=1, max_size=40))]
    rows += [{"user_id": 3, "age_us": None, "amount": None, "mcc": None, "known_from": None}]
    tiles = Tiles.of(dates, MANIFEST.windows)
    rows = [r for r in rows if r["age_us"] is None or r["age_us"] <= tiles.units * tiles.unit_us]
    names = {"user_id": "user_id", AGE: "age_us", "amount": "amount", "mcc": "mcc", KNOWN: "known_from"}
    table = pa.table({name: pa.array([r[key] for r in rows], pa.int64()) for name, key in names.items()})
    with patch.object(partition, "CHUNK_ROWS", chunk):
        made = dict(map(by_user, aggregate_partition(table.to_batches(max_chunksize=batch), MANIFEST, tiles)))
    assert list(made) == dates
    for number, day in enumerate(dates):
        assert made[day] == run(alone(rows, number, (dates[-1] - day).days))


def alone(rows: list[dict[str, Any]], number: int, lag: int) -> list[dict[str, Any]]:
    """Rows that the date of this number knows, so many days before the newest."""
    shifted = [r | {"age_us": r["age_us"] and r["age_us"] - lag * DAY_US} for r in rows]
    return [
        r
        for r in shifted
        if r["age_us"] is None or (0 < r["age_us"] <= MANIFEST.windows[-1] * DAY_US and r["known_from"] <= number)
    ]


def two_dates(lag: int, rows: list[tuple[int, int, int]]) -> dict[date, dict[Any, dict[str, Any]]]:
    """The kernel's rows at AS_OF and so many days before, of one user's (age in days, amount, known from)."""
    days, amounts, known = zip(*rows, strict=True)
    columns = {AGE: [d * DAY_US for d in days], "amount": amounts, "mcc": [3] * len(rows), KNOWN: known}
    table = pa.table({"user_id": [1] * len(rows), **columns})
    tiles = Tiles.of([AS_OF, AS_OF - timedelta(days=lag)], MANIFEST.windows)
    return dict(map(by_user, aggregate_partition(table.to_batches(), MANIFEST, tiles)))


def test_a_sum_over_several_tiles_is_refused_where_it_would_wrap() -> None:
    # At a lag of 5, days 4 to 10 are four tiles. Each sum just fits; together they are 2^64.
    rows = [(day, MAX_STEPS, 0) for day in (4, 6, 7, 9) for _ in range(2**16 - 1)]
    with pytest.raises(AggregateOverflow, match="field 'amount' of user 1"):
        two_dates(5, rows)


def test_a_late_row_that_is_too_old_for_all_dates_that_know_it_is_dropped() -> None:
    made = two_dates(9, [(15, 2**22, 1), (15, 2**22, 1), (1, 5, 0)])
    assert [list(rows) for rows in made.values()] == [[], [1]]
    assert made[AS_OF][1]["events_10d"] == 1
    with patch("gur_spark.features.states.exact._ROOM", 2**23):
        assert two_dates(9, [(15, 2**22, 1), (15, 2**22, 1), (1, 5, 0)]) == made


def test_dates_whose_windows_leave_a_gap_are_two_passes() -> None:
    with pytest.raises(ValueError, match="the windows of 2024-06-20 and 2024-07-01 leave a gap"):
        Tiles.of([AS_OF, AS_OF - timedelta(days=11)], MANIFEST.windows)


def test_users_may_be_strings() -> None:
    manifest = make_manifest("string", [1], [AMOUNT], ["mcc"])
    rows = [{"user_id": u, "age_us": 5, "amount": 100, "mcc": 3} for u in ("b", "a", "b", "é")]
    assert same_rows(run(rows, manifest), aggregate_rows(rows, manifest))


def test_rows_come_in_the_order_of_user_ids() -> None:
    rows = [{"user_id": u, "age_us": 5, "amount": 100, "mcc": 3} for u in (9, 2, 5)]
    assert list(run(rows)) == [2, 5, 9]


def test_an_empty_partition_gives_no_rows() -> None:
    [(as_of, table)] = aggregate_partition([], MANIFEST, Tiles.of([AS_OF], MANIFEST.windows))
    assert (as_of, table.num_rows) == (AS_OF, 0)
    assert table.column_names == [c.name for c in MANIFEST.columns]


def test_a_user_without_events_has_zero_counts_and_null_statistics() -> None:
    found = run([{"user_id": 1, "age_us": None, "amount": None, "mcc": None}])[1]
    assert (found["events_10d"], found["amount_sum_10d"], found["mcc_ids"]) == (0, 0.0, [])
    assert [found[k] for k in ("recency_days", "amount_mean_10d", "amount_std_1d", "amount_min_3d")] == [None] * 4


def test_the_standard_deviation_does_not_cancel_where_the_mean_is_large() -> None:
    rows = [{"user_id": 1, "age_us": 5, "amount": MAX_STEPS - d, "mcc": 3} for d in (0, 1, 2)]
    assert run(rows)[1]["amount_std_1d"] == pytest.approx(0.01 * (2 / 3) ** 0.5, rel=1e-14)


def test_a_sum_that_leaves_the_exact_range_names_field_and_user() -> None:
    rows = [{"user_id": 7, "age_us": 5, "amount": MAX_STEPS, "mcc": 3}] * 8
    with (
        patch("gur_spark.features.states.exact._ROOM", 2**45),
        pytest.raises(AggregateOverflow, match="field 'amount' of user 7"),
    ):
        run(rows, chunk=2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-(2**58), 2**58)), min_size=1, max_size=15))
def test_grouped_sums_are_exact_beyond_what_a_float_holds(pairs: list[tuple[int, int]]) -> None:
    slot, x = (np.array(v, np.int64) for v in zip(*pairs, strict=True))
    counts = np.bincount(slot, minlength=4)
    naive = [sum(v for s, v in pairs if s == k) for k in range(4)]
    assert exact_sums(slot, x, counts).tolist() == naive


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-MAX_STEPS, MAX_STEPS)), min_size=1, max_size=30),
    st.integers(0, 30),
)
def test_sums_of_squares_merge_to_the_same_limbs(pairs: list[tuple[int, int]], cut: int) -> None:
    merged = SquareSum(np.zeros(3, np.int64), np.zeros(3, np.int64))
    for part in (pairs[:cut], pairs[cut:]):
        if part:
            slot, x = (np.array(v, np.int64) for v in zip(*part, strict=True))
            merged.add(SquareSum.of(slot, x, np.bincount(slot, minlength=3)))
    naive = [sum(v * v for s, v in pairs if s == k) for k in range(3)]
    assert [int(h) * 2**40 + int(low) for h, low in zip(merged.high, merged.low, strict=True)] == naive
    assert ((merged.low >= 0) & (merged.low < 2**40)).all()


@given(st.lists(st.integers(-MAX_STEPS, MAX_STEPS), min_size=1, max_size=20))
def test_small_and_large_standard_deviations_take_the_same_formula(values: list[int]) -> None:
    n, total, squares = len(values), sum(values), sum(v * v for v in values)
    limbs = SquareSum(np.array([squares >> 40]), np.array([squares & (2**40 - 1)]))
    assert std_steps(np.array([n]), np.array([total]), limbs)[0] == math.sqrt(n * squares - total**2)


def test_memory_does_not_grow_with_one_users_events() -> None:
    """The state of a hot user is as large after 50 chunks as after one."""
    rng = np.random.default_rng(0)
    state = partition.PartitionState(MANIFEST, Tiles.of([AS_OF], MANIFEST.windows))
    sizes = []
    for _ in range(50):
        columns = {AGE: (1, 10 * DAY_US), "amount": (0, 10_000), "mcc": (3, 9)}
        table = pa.table({"user_id": np.full(5_000, 1), **{k: rng.integers(*v, 5_000) for k, v in columns.items()}})
        with patch.object(states, "MERGE_ROWS", 1_000):
            state.update(table)
        sizes.append(sum(len(keys) for s in state.states.values() if isinstance(s, Histogram) for keys, _ in s._parts))
    assert max(sizes) <= 1_000 + 2 * 3 * 6
