"""Columns of pivots: the bits of features with a condition, on every route; names; declarations that are refused."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.pivots import Pivot
from gur_spark.features.declare.plan import plan_of
from gur_spark.features.declare.spec import aggregation
from gur_spark.features.kernel.dumps import dump, load_into
from gur_spark.features.kernel.merging import merge
from gur_spark.features.kernel.partition import KNOWN, PartitionState, aggregate_partition
from gur_spark.features.spark.writer import partitions_for
from gur_spark.features.states.numbers import NumericState
from gur_spark.features.states.tiles import Tiles
from tests.features import operation_oracles as oracles
from tests.features.test_dumps import HORIZON, continued, full
from tests.features.test_kernel import AMOUNT, AS_OF
from tests.features.test_operations import DAY_US, OLDEST, same, to_table

IDS = {"Heart Rate": 3, "SpO2": 4, "unseen": 5, "rare": 6}
WINDOWS = [2, {"days": 3, "before": 1}, 10, "lifetime"]
OPERATIONS = (
    *("count", "sum", "mean", "std", "min", "max", "range", "skew", "kurtosis", "share_zero", "share_negative"),
    *("first", "last", {"quantiles": [0.5, 0.9]}, {"decayed_sum": 2.5}),
)
PIVOT = Pivot.model_validate(
    {"by": "mcc", "of": "amount", "operations": list(OPERATIONS), "top": 3, "windows": WINDOWS, "name": "p"}
)
CONDITIONS = {"heart_rate": "mcc = 3", "spo2": "mcc = 4", "unseen": "mcc = 5"}
FEATURES = [aggregation("amount", *OPERATIONS, where=w, name=f"w_{n}", windows=WINDOWS) for n, w in CONDITIONS.items()]
MANIFEST = make_manifest("long", [3, 10], [AMOUNT], ["mcc"], [*FEATURES, PIVOT.pivoted(IDS)])
"""A pivot, and beside it one feature with a condition per value."""

ages = st.one_of(st.integers(1, 30 * DAY_US), st.sampled_from([d * DAY_US + s for d in (1, 2, 4, 10) for s in (0, 1)]))
events = st.builds(
    lambda user, age, amount, mcc: (
        {"user_id": user, "age_us": age, "amount": amount, "mcc": mcc}
        | {f"_where_{n}": int(mcc == n + 3) for n in range(3)}
    ),
    st.sampled_from([1, 2, 2**60]),
    ages,
    st.one_of(st.none(), st.integers(-300, 300)),
    st.sampled_from([1, 2, 3, 3, 4, 6]),
)
logs = st.lists(st.tuples(events, st.booleans()), min_size=1, max_size=30)


def check(table: pa.Table, manifest: Manifest = MANIFEST) -> None:
    """Columns of the pivot equal those of the features with conditions, bit for bit."""
    pivoted = [c for c in manifest.columns if c.value]
    assert len(pivoted) == 3 * (len(OPERATIONS) + 1) * len(WINDOWS)
    for column in pivoted:
        [name] = [n for n, condition in CONDITIONS.items() if IDS[column.value or ""] == int(condition[-1])]
        twin = "w_" + name + column.name.removeprefix("p").replace(f"_{name}_", "_")
        assert table[column.name].equals(table[twin]), (column.name, twin)


@given(logs, st.integers(1, HORIZON))
@settings(max_examples=8, deadline=None)
def test_a_pivot_has_the_bits_of_features_with_a_condition_in_full_and_from_an_earlier_state(
    log: list[tuple[dict[str, Any], bool]], days: int
) -> None:
    check(full([row for row, _ in log], MANIFEST, AS_OF).finalize(0))
    check(continued(log, MANIFEST, days))


@given(logs, st.lists(st.integers(1, 10), min_size=1, max_size=3))
@settings(max_examples=8, deadline=None)
def test_a_pivot_has_them_at_each_date_of_many_with_late_rows(
    log: list[tuple[dict[str, Any], bool]], steps: list[int]
) -> None:
    dates = [AS_OF - timedelta(days=sum(steps[:n])) for n in range(len(steps) + 1)]
    tiles = Tiles.of(dates, MANIFEST.windows, MANIFEST.declared_windows, OLDEST)
    rows = to_table([row for row, _ in log], **{KNOWN: [int(late) for _, late in log]})
    made = dict(aggregate_partition(rows.to_batches(max_chunksize=4), MANIFEST, tiles))
    for table in made.values():
        check(table)


@given(logs)
@settings(max_examples=8, deadline=None)
def test_a_pivot_has_them_after_a_merge_of_parts(log: list[tuple[dict[str, Any], bool]]) -> None:
    tiles = Tiles.of([AS_OF], MANIFEST.windows, MANIFEST.declared_windows, OLDEST)
    first, second = (PartitionState(MANIFEST, tiles) for _ in range(2))
    for state, part in ((first, False), (second, True)):
        rows = [row for row, late in log if late == part]
        if rows:
            state.take(to_table(rows).to_batches())
    merge(first, load_into(dump(second), MANIFEST, tiles, tiles))
    check(first.finalize(0))


@given(logs)
@settings(max_examples=8, deadline=None)
def test_a_pivot_equals_the_naive_oracle(log: list[tuple[dict[str, Any], bool]]) -> None:
    rows = [row for row, _ in log]
    alone = make_manifest("long", [3, 10], [AMOUNT], ["mcc"], [PIVOT.pivoted(IDS)])
    for found in full(rows, alone, AS_OF).finalize(0).to_pylist():
        for name, condition in CONDITIONS.items():
            mine = [r for r in rows if r["user_id"] == found["user_id"] and r["mcc"] == int(condition[-1])]
            for column, expected in oracles.declared(mine, FEATURES[0].model_copy(update={"name": "x"})).items():
                stem, window = next((column[: -len(w) - 1], w) for w in ENDS if column.endswith(f"_{w}"))
                value = found[f"p{stem[1:]}_{name}_{window}"]
                assert same(value, expected, relative=0.0101 if "_p" in stem else 1e-9), (column, name)


ENDS = ("2d", "3d_before_1d", "10d", "lifetime")


def test_all_pivots_and_lists_of_a_category_share_one_state_per_field() -> None:
    one = {"by": "mcc", "of": "amount", "top": 2}
    pivots = [Pivot.model_validate(one | {"operations": [name]}).pivoted(IDS) for name in ("mean", "max")]
    by = aggregation("amount", "sum", by="mcc")
    manifest = make_manifest("long", [3], [AMOUNT], ["mcc"], [*pivots, by])
    state = PartitionState(manifest, Tiles.of([AS_OF], manifest.windows))
    assert [key for key in state.states if key[1]] == [(None, "mcc", NumericState, "amount", ())]
    plan = plan_of(manifest)
    assert plan.ids_counted(None, "mcc") is None
    # Without the lists, events of other values begin no pair.
    alone = plan_of(make_manifest("long", [3], [AMOUNT], ["mcc"], pivots))
    assert alone.ids_counted(None, "mcc") == [3, 4]


def test_the_columns_of_pivots_count_as_memory_so_more_of_them_take_more_partitions() -> None:
    def manifest(top: int) -> Manifest:
        pivot = Pivot.model_validate({"by": "mcc", "of": "amount", "operations": ["mean"], "top": top})
        return make_manifest("long", [3, 10], [AMOUNT], ["mcc"], [pivot.pivoted({str(n): n for n in range(3, 103)})])

    rows = [{"user_id": user, "age_us": 1, "amount": 1, "mcc": 3} for user in range(50)]
    state = full(rows, manifest(100), AS_OF)
    per_user, per_event = state.bytes_per_user_and_event()
    assert state.finalize(0).nbytes < 50 * per_user + 50 * per_event < 2 * state.finalize(0).nbytes
    few, many = (partitions_for(manifest(top), state.tiles, 10**6, 10**6) for top in (10, 100))
    assert many > 2 * few


def names(values: Sequence[str]) -> list[str]:
    return column_names(values)[: len(values)]


def column_names(*pivots: Sequence[str], **declared: Any) -> list[str]:
    """The parts that values have in the names of columns of pivots, each with ids from 3 on."""
    made = []
    for values in pivots:
        given = {"by": "mcc", "of": "amount", "operations": ["mean"], "values": list(values)} | declared
        made.append(Pivot.model_validate(given).pivoted({value: n for n, value in enumerate(values, 3)}))
    manifest = make_manifest("long", [3], [AMOUNT], ["mcc", "amount_mean"], made)
    return [c.name.removeprefix("amount_mean_").removesuffix("_3d") for c in manifest.columns if c.value]


def test_names_of_columns_are_plain_and_different() -> None:
    assert names(["Heart Rate", "SpO₂ (%)", "été"]) == ["heart_rate", "spo2", "ete"]
    assert names(["-1", "1", "пульс", "x" * 50]) == ["1_3", "1_4", "5", "x" * 40 + "_6"]


def test_a_name_takes_its_id_until_it_is_no_other_columns_name() -> None:
    assert names(["A", "a", "a 3"]) == ["a_3", "a_4", "a_3_5"]
    assert column_names(["a", "b"], ["c", "a"]) == ["a_3", "b", "c", "a_4"]
    # The histogram of the category amount_mean has a column amount_mean_counts_3d.
    assert column_names(["counts", "b"]) == ["counts_3", "b"]


def test_columns_that_ids_cannot_tell_apart_are_refused_by_the_place_of_the_pivot() -> None:
    with pytest.raises(
        ValueError, match=r"pivots\.1: two aggregate columns .* 'amount_mean_a_3_3d'; .* name the .*pivot"
    ):
        column_names(["a"], ["a"])


def test_the_manifest_says_which_value_a_column_is_about() -> None:
    column = next(c for c in MANIFEST.columns if c.name == "p_amount_mean_heart_rate_2d")
    assert column.meaning == "mean of amount in the 2 days before as_of where mcc is 'Heart Rate'"
    assert (column.by, column.value, column.dtype, column.window_days) == ("mcc", "Heart Rate", "double", 2)
    assert column in MANIFEST.dense
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    count = next(c for c in MANIFEST.columns if c.name == "p_amount_count_spo2_10d")
    assert (count.dtype, count.null) == ("long", "never")


def test_values_that_follow_in_a_refit_change_neither_columns_nor_hash() -> None:
    grown = PIVOT.pivoted(IDS | {"new": 7})
    assert make_manifest("long", [3, 10], [AMOUNT], ["mcc"], [*FEATURES, grown]).hash == MANIFEST.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": ["a"]}, "expected either 'top' .* or 'values'"),
        ({"top": None}, "expected either 'top' .* or 'values'"),
        ({"top": 0}, "greater than or equal to 1"),
        ({"top": 5}, "top: expected at most 4, the values of 'mcc' in the vocabulary"),
        ({"top": None, "values": ["SpO2", "SpO2"]}, "value 'SpO2' is given twice"),
        (
            {"top": None, "values": ["Hart Rate"]},
            "values: the vocabulary has no 'Hart Rate' of 'mcc'; did you mean 'He",
        ),
        ({"by": "mc"}, "pivots.0: by: no categorical field 'mc'; .*did you mean 'mcc'"),
        ({"of": "mcc"}, r"pivots.0: of: no numeric field 'mcc'; available: \['amount'\]"),
        ({"of": "amout"}, "of: no numeric field 'amout'; .*did you mean 'amount'"),
        ({"operations": [{"last_k": 2}]}, "'last_k' is not one number per window: it cannot take a pivot"),
        ({"operations": ["meen"]}, "pivots.0: no operation 'meen' on a numeric field; .*'mean'"),
        ({"where": "amount > 0"}, "'where' needs a name"),
        ({"windows": [3, 3]}, "window '3d' is given twice"),
        ({"operations": ["mean", "mean"]}, "two aggregate columns would be named 'amount_mean_heart_rate_3_3d'"),
    ],
)
def test_a_pivot_that_does_not_fit_is_refused_with_a_hint(change: dict[str, Any], message: str) -> None:
    def declare() -> Manifest:
        pivot = Pivot.model_validate({"by": "mcc", "of": "amount", "operations": ["mean"], "top": 3, **change})
        return make_manifest("long", [3, 10], [AMOUNT], ["mcc"], [pivot.pivoted(IDS)])

    with pytest.raises(ValueError, match=message):
        declare()
