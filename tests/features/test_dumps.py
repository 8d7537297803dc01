"""A later date that is made from an earlier state has the same bits as one that is made from all rows."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gur_spark.errors import AggregateOverflow
from gur_spark.features.checksum import checksum
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.spec import aggregation
from gur_spark.features.declare.windows import Window
from gur_spark.features.kernel.dumps import dump, load
from gur_spark.features.kernel.partition import PartitionState
from gur_spark.features.states.base import State
from gur_spark.features.states.tiles import Tiles
from tests.features import test_operations
from tests.features.test_kernel import AMOUNT, AS_OF
from tests.features.test_operations import DAY_US, different, to_table, with_derived

HORIZON = 3
MANIFEST = test_operations.MANIFEST
"""All operations, windows with and without an end."""
FINITE = make_manifest(
    "long",
    [1, 3, 10],
    [AMOUNT],
    ["mcc"],
    [aggregation("amount", "sum", {"decayed_sum": 2}, "last", windows=[2, {"days": 3, "before": 2}], name="n")],
)

SMALL = make_manifest("long", [10], [AMOUNT], ["mcc"])

ages = st.one_of(
    st.integers(1, 40 * DAY_US), st.sampled_from([1, *(DAY_US * n + s for n in (1, 3, 10) for s in (0, 1))])
)
events = st.builds(
    lambda user, age, amount, mcc: {"user_id": user, "age_us": age, "amount": amount, "mcc": mcc},
    st.sampled_from([1, 2, 3, 2**60]),
    ages,
    st.one_of(st.none(), st.integers(-300, 300), st.just(2**43)),
    st.integers(1, 4),
)
logs = st.lists(st.tuples(events.map(with_derived), st.booleans()), min_size=1, max_size=40)
"""Events by their age at the later date, and whether each of them lands after the earlier one."""


def full(rows: Sequence[dict[str, Any]], manifest: Manifest, as_of: date, horizon: int = 0) -> PartitionState:
    oldest = as_of - timedelta(days=max((-(-r["age_us"] // DAY_US) for r in rows), default=1))
    tiles = Tiles.of([as_of], manifest.windows, manifest.declared_windows, oldest, horizon)
    state = PartitionState(manifest, tiles)
    fill(state, rows)
    return state


def fill(state: PartitionState, rows: Sequence[dict[str, Any]]) -> None:
    reach = state.manifest.reach or timedelta(10**6)
    within = [r for r in rows if 0 < r["age_us"] <= reach // timedelta(microseconds=1)]
    if within:
        state.take(to_table(within).to_batches(max_chunksize=9))


def older(row: dict[str, Any], days: int) -> dict[str, Any]:
    """Age of a row so many days earlier."""
    return row | {"age_us": row["age_us"] - days * DAY_US}


def continued(log: Sequence[tuple[dict[str, Any], bool]], manifest: Manifest, days: int) -> pa.Table:
    """State so many days after a base of the rows that had landed, with the other rows."""
    base_rows = [older(row, days) for row, late in log if not late and row["age_us"] > days * DAY_US]
    rest = [row for row, late in log if late or row["age_us"] <= days * DAY_US]
    base = full(base_rows, manifest, AS_OF, HORIZON)
    oldest = AS_OF + timedelta(days=days) - timedelta(days=max((-(-r["age_us"] // DAY_US) for r in rest), default=1))
    state = load(dump(base), manifest, base.tiles, AS_OF + timedelta(days=days), oldest)
    fill(state, rest)
    return state.finalize(0)


@pytest.mark.parametrize("windows", ["endless", "finite"])
@given(log=logs, days=st.integers(1, HORIZON))
@settings(max_examples=30, deadline=None)
def test_a_later_date_has_the_bits_it_has_alone(
    windows: str, log: list[tuple[dict[str, Any], bool]], days: int
) -> None:
    """Users come and fall silent, and events land late, even the first event of all."""
    manifest = MANIFEST if windows == "endless" else FINITE
    expected = full([row for row, _ in log], manifest, AS_OF + timedelta(days=days)).finalize(0)
    found = continued(log, manifest, days)
    assert checksum(found) == checksum(expected), different(found, expected)


def test_the_base_itself_has_the_bits_it_has_without_a_horizon() -> None:
    rows = [with_derived({"user_id": u, "age_us": 5 * DAY_US + u, "amount": u, "mcc": u}) for u in (1, 2, 3)]
    alone, base = (full(rows, MANIFEST, AS_OF, horizon) for horizon in (0, HORIZON))
    assert checksum(alone.finalize(0)) == checksum(base.finalize(0))
    assert len(base.tiles) > len(alone.tiles)


def test_a_state_without_users_can_be_loaded_and_goes_on() -> None:
    row = with_derived({"user_id": 7, "age_us": 1, "amount": 1, "mcc": 3})
    assert continued([(row, False)], MANIFEST, 1).column("user_id").to_pylist() == [7]


def test_sums_of_tiles_that_become_one_are_refused_where_they_would_wrap() -> None:
    half = {"user_id": 1, "amount": 2**39, "mcc": 3}
    with patch("gur_spark.features.states.exact._ROOM", 2**39 * 40):
        base = full([half | {"age_us": DAY_US * day} for day in (6, 9) for _ in range(30)], SMALL, AS_OF, HORIZON)
        with pytest.raises(AggregateOverflow, match="field 'amount' of user 1"):
            load(dump(base), SMALL, base.tiles, AS_OF + timedelta(days=1))


def test_users_may_be_strings() -> None:
    manifest = make_manifest("string", [1, 3], [AMOUNT], ["mcc"])
    tiles = Tiles.of([AS_OF], manifest.windows, horizon=1)
    state = PartitionState(manifest, tiles)
    columns = {"user_id": ["é", "b"], "_age_us": [1, DAY_US + 1], "amount": [1, None], "mcc": [3, 4]}
    state.update(pa.table(columns))
    later = load(dump(state), manifest, tiles, AS_OF + timedelta(days=1)).finalize(0)
    assert later.column("user_id").to_pylist() == ["b", "é"]
    assert later.column("events_3d").to_pylist() == [1, 1]
    assert later.column("events_1d").to_pylist() == [0, 0]


def test_only_days_within_the_horizon_can_go_on_from_a_state() -> None:
    tiles = Tiles.of([AS_OF], [1, 3], [Window(days=None)], AS_OF - timedelta(days=9), horizon=2)
    assert tiles.advanced(AS_OF + timedelta(days=2)).days == 11
    for days in (0, 3, -1):
        with pytest.raises(ValueError, match="is not one of the 2 days after 2024-07-01"):
            tiles.advanced(AS_OF + timedelta(days=days))


def test_a_file_of_another_date_or_of_another_kind_is_refused() -> None:
    base = full([], FINITE, AS_OF, HORIZON)
    later = AS_OF + timedelta(days=1)
    other = Tiles.of([later], FINITE.windows, FINITE.declared_windows, horizon=HORIZON)
    with pytest.raises(ValueError, match="2024-07-01"):
        load(dump(base), FINITE, other, later + timedelta(days=1))
    for content in (b"", b"x" * 100):
        with pytest.raises(ValueError, match="expected a dumped state of the kernel"):
            load(pa.py_buffer(content), FINITE, base.tiles, later)


def test_a_state_without_stored_arrays_is_refused() -> None:
    class Forgetful(State):
        def _add(self, rows: Any) -> None: ...

        def _view(self, windows: Any) -> Any: ...

    base = full([], FINITE, AS_OF, HORIZON)
    with pytest.raises(TypeError, match="Forgetful names no arrays in 'stored'"):
        Forgetful(base.users, base.tiles, base.activity.value).dump()
