"""States of parts of the rows, merged in any order, have the bits of the state of all rows."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gur_spark.errors import AggregateOverflow
from gur_spark.features.checksum import checksum
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import AttributeField, Manifest
from gur_spark.features.kernel.dumps import dump, load_into
from gur_spark.features.kernel.merging import can_merge, merge
from gur_spark.features.kernel.partition import KNOWN, PartitionState
from gur_spark.features.states import base as states
from gur_spark.features.states.sequence import LastValues
from gur_spark.features.states.tiles import Tiles
from tests.features.test_kernel import AMOUNT, AS_OF, names_a_user
from tests.features.test_operations import DAY_US, MANIFEST, OLDEST, different, events, to_table, with_derived

ROWS = st.one_of(events, names_a_user).map(lambda row: with_derived({**row, "mcc": row["mcc"] or 0}))
"""Events with and without values, and rows that only name a user."""
SMALL = make_manifest("long", [10], [AMOUNT], ["mcc"])
ATTRIBUTES = (("country", "a", None), ("plan", "b", "|"))


def tiles_of(manifest: Manifest, dates: int = 1, horizon: int = 0) -> Tiles:
    days = [AS_OF - timedelta(days=7 * n) for n in range(dates)]
    return Tiles.of(days, manifest.windows, manifest.declared_windows, OLDEST, horizon)


def state_of(rows: Sequence[dict[str, Any]], tiles: Tiles, manifest: Manifest = MANIFEST) -> PartitionState:
    state = PartitionState(manifest, tiles)
    if rows:
        state.take(to_table(rows).to_batches(max_chunksize=9))
    return state


def tables(state: PartitionState) -> list[pa.Table]:
    return [table for _, table in state.tables()]


def same(found: PartitionState, whole: PartitionState) -> None:
    for a, b in zip(tables(found), tables(whole), strict=True):
        assert checksum(a) == checksum(b), different(a, b)


def in_any_order(parts: list[PartitionState], rng: random.Random) -> PartitionState:
    """Merge two by two until one is left."""
    while len(parts) > 1:
        first, second = rng.sample(range(len(parts)), 2)
        merge(parts[first], parts[second])
        del parts[second]
    return parts[0]


@given(st.lists(st.tuples(ROWS, st.integers(0, 2)), max_size=30), st.booleans(), st.integers(0, 2), st.randoms())
@settings(max_examples=20, deadline=None)
def test_parts_of_a_log_merged_in_any_order_have_the_bits_of_the_whole(
    log: list[tuple[dict[str, Any], int]], as_bytes: bool, horizon: int, rng: random.Random
) -> None:
    """Some parts may be empty; users are in one part or in many."""
    # A dump does not hold users that rows only name.
    log = [(row, part) for row, part in log if row["age_us"] is not None or not as_bytes]
    tiles = tiles_of(MANIFEST, horizon=horizon)
    with patch.object(states, "MERGE_ROWS", 5):
        parts = [state_of([row for row, part in log if part == number], tiles) for number in range(3)]
        if as_bytes:
            parts = [load_into(dump(part), MANIFEST, tiles, tiles) for part in parts]
        same(in_any_order(parts, rng), state_of([row for row, _ in log], tiles))


late = st.fixed_dictionaries({KNOWN: st.integers(0, 2)})


@given(st.lists(st.tuples(events.map(with_derived), late, st.booleans()), min_size=1, max_size=30))
@settings(max_examples=5, deadline=None)
def test_rows_that_wait_for_later_dates_go_on_waiting(log: list[tuple[dict[str, Any], dict[str, Any], bool]]) -> None:
    tiles = tiles_of(MANIFEST, dates=3)
    rows = [(row | known, first) for row, known, first in log if row["age_us"] <= tiles.units * tiles.unit_us]
    parts = [state_of([row for row, first in rows if first is side], tiles) for side in (True, False)]
    merge(*parts)
    same(parts[0], state_of([row for row, _ in rows], tiles))


def test_a_state_with_waiting_rows_is_not_dumped() -> None:
    row = with_derived({"user_id": 1, "age_us": 12 * DAY_US, "amount": 1, "mcc": 3}) | {KNOWN: 2}
    with pytest.raises(ValueError, match="some rows wait for the dates that know them"):
        dump(state_of([row], tiles_of(MANIFEST, dates=3)))


held = st.fixed_dictionaries(
    {
        "user_id": st.integers(1, 3),
        "_held_us": st.integers(1, 3),
        "_held_log": st.integers(0, 1),
        "_held_landed": st.integers(1, 2),
        "_held_known_from": st.just(0),
        "country": st.integers(1, 3),
        "plan": st.one_of(st.none(), st.integers(1, 3)),
    }
)


@given(st.lists(st.tuples(held, st.booleans()), min_size=1, max_size=20), st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_newest_attributes_of_two_parts_count(log: list[tuple[dict[str, Any], bool]], keep: bool) -> None:
    fields = [AttributeField(name=n, log=log_name, separator=s) for n, log_name, s in ATTRIBUTES]
    manifest = make_manifest("long", [10], [], [], attributes=fields)
    tiles = tiles_of(manifest, horizon=int(keep))
    named = [{"user_id": user, "_age_us": None} for user in (1, 2, 3)]

    def state(rows: Sequence[dict[str, Any]]) -> PartitionState:
        made = PartitionState(manifest, tiles)
        schema = pa.schema([(name, pa.int64()) for name in ("_age_us", *held_names)])
        made.update(pa.Table.from_pylist([*rows, *named], schema))
        return made

    held_names = list(log[0][0])
    parts = [state([row for row, first in log if first is side]) for side in (True, False)]
    merge(*parts)
    same(parts[0], state([row for row, _ in log]))


def test_a_sum_of_two_parts_that_leaves_the_exact_range_names_field_and_user() -> None:
    """The user has another code in each part."""
    rows = [with_derived({"user_id": user, "age_us": 5, "amount": 2**40, "mcc": 3}) for user in (7, 8)]
    tiles = tiles_of(SMALL)
    with patch("gur_spark.features.states.exact._ROOM", 2**41):
        first, second = state_of([rows[1], rows[0]], tiles, SMALL), state_of([rows[0]], tiles, SMALL)
        with pytest.raises(AggregateOverflow, match="field 'amount' of user 7"):
            merge(first, second)


def test_states_with_other_tiles_or_without_rules_are_refused() -> None:
    state = state_of([], tiles_of(SMALL), SMALL)
    with pytest.raises(ValueError, match="expected a state with the columns and tiles of"):
        merge(state, state_of([], tiles_of(SMALL, dates=2), SMALL))
    assert can_merge(state)
    with patch.object(type(state.activity), "stored", {}):
        assert not can_merge(state)
        with pytest.raises(TypeError, match="Activity: 'stored' has no rule to combine the arrays of two states"):
            merge(state, state_of([], tiles_of(SMALL), SMALL))
    assert LastValues.can_merge()
