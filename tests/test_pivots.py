"""Pivots from YAML to Parquet: the columns of features with a condition, by every route; the vocabulary's values."""

from datetime import timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest

from gur_spark.consumers.point_in_time import training_set
from gur_spark.errors import ConfigError, SnapshotError
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.models.kind import Form
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.explanation import explain
from gur_spark.snapshots.sequences import sequence_snapshots
from gur_spark.snapshots.stale import stale_snapshots
from gur_spark.snapshots.visible import Snapshot
from gur_spark.snapshots.wanted import find_snapshot, wanted_manifest
from gur_spark.tables.delta import Tables
from tests.test_incremental import LATER, land
from tests.test_snapshots import AS_OF, event, log, run_id, snapshot, write

pytestmark = [pytest.mark.both_engines, pytest.mark.usefixtures("vocabulary")]

DAY = timedelta(days=1)
WINDOWS = [7, "lifetime"]
PIVOT = {"by": "mcc", "of": "amount", "operations": ["mean", "last", "count"], "top": 3, "windows": WINDOWS}
CONDITIONS = [
    {"field": "amount", "operations": PIVOT["operations"], "where": f"mcc = '{v}'", "name": v, "windows": WINDOWS}
    for v in "abc"
]
AGGREGATES = {"incremental_days": 3, "windows": [7, 30], "features": CONDITIONS, "pivots": [PIVOT]}


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config({"vocabulary": {"min_count": 1}, "aggregates": AGGREGATES})


def check(made: Snapshot) -> None:
    """The pivot's columns equal those of the features with a condition, bit for bit."""
    table = pq.read_table(made.data)
    for value in "abc":
        for name in (f"{operation}_{window}" for operation in PIVOT["operations"] for window in ("7d", "lifetime")):
            operation, window = name.split("_")
            pivoted = table[f"amount_{operation}_{value}_{window}"]
            assert pivoted.equals(table[f"{value}_amount_{name}"]), (value, name)
            assert pivoted.null_count < len(pivoted)


def test_a_pivot_equals_features_with_a_condition_by_every_route(tables: Tables, config: Any) -> None:
    write(tables, [e for e in log() if e[2] < AS_OF])
    [base] = aggregate_snapshots(tables, config, [AS_OF], run_id()).snapshots
    check(base)
    land(tables, LATER)
    days = [AS_OF + DAY, AS_OF + 2 * DAY]
    [grown] = aggregate_snapshots(tables, config, days[1:], run_id(), route="incremental").snapshots
    together = aggregate_snapshots(tables, config, days, run_id(), again=True)
    assert {together.inputs[f"route {day}"] for day in days} == {"full"}
    assert grown.checksum == together.snapshots[1].checksum
    for made in together.snapshots:
        check(made)


@pytest.mark.any_engine
def test_a_refit_keeps_the_columns_and_another_pivot_has_another_manifest(
    tables: Tables, config: Any, make_config: Any
) -> None:
    made = snapshot(tables, config, log())
    write(tables, [*log(), *[event(1, DAY, "new", 5)] * 500])
    assert fit_vocabulary(tables, config).version == 2
    assert find_snapshot(tables, config, AS_OF).path == made.path
    labels = tables.spark.createDataFrame([(3, AS_OF)], "user_id BIGINT, label_time DATE")
    assert "amount_mean_c_7d" in training_set(tables.spark, config, labels, max_age_days=1).columns
    two = make_config({"vocabulary": {"min_count": 1}, "aggregates": AGGREGATES | {"pivots": [PIVOT | {"top": 2}]}})
    with pytest.raises(SnapshotError, match=r"differ in .*amount_mean_c_7d"):
        find_snapshot(tables, two, AS_OF)
    named = [PIVOT | {"top": None, "values": ["a", "b", "c"]}]
    same = make_config({"vocabulary": {"min_count": 1}, "aggregates": AGGREGATES | {"pivots": named}})
    assert wanted_manifest(tables, same, Form.AGGREGATES).hash == made.manifest_hash


@pytest.mark.any_engine
def test_a_value_of_a_pivot_can_be_explained(spark: Any, tables: Tables, config: Any) -> None:
    snapshot(tables, config, log())
    found = explain(spark, config, 3, AS_OF, "amount_mean_b_lifetime")
    mine = [a for u, t, _, mcc, a in log() if u == 3 and mcc == "b" and t.date() < AS_OF]
    assert (found.count, found.agrees) == (len(mine), True)
    assert found.feature.meaning == "mean of amount before as_of where mcc is 'b'"


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("pivot", "message"),
    [
        ({"top": 9}, r"aggregates.pivots.0.top: expected at most 3, the values of 'mcc' in the vocabulary"),
        ({"top": None, "values": ["a", "bb"]}, r"aggregates.pivots.0.values: the vocabulary has no 'bb' .* 'b'\?"),
        ({"operations": ["mean", "mean"]}, r"aggregates.pivots.0: two aggregate columns .* name the .*pivot"),
    ],
)
def test_a_pivot_that_does_not_fit_the_vocabulary_is_refused_for_aggregates_alone(
    tables: Tables, make_config: Any, pivot: dict[str, Any], message: str
) -> None:
    config = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"pivots": [PIVOT | pivot]}})
    with pytest.raises(ConfigError, match=message):
        snapshot(tables, config, log())
    assert sequence_snapshots(tables, config, [AS_OF], run_id()).snapshots
    # An ingest must not fail because of a pivot.
    assert [s.form for s in stale_snapshots(tables, config, [str(AS_OF - DAY)])] == [Form.SEQUENCES]


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("pivots", "message"),
    [
        ([PIVOT, PIVOT], "aggregates.pivots: the same pivot is given twice"),
        ([PIVOT | {"of": "amout"}], "aggregates.pivots.0: of: no numeric field 'amout'.*did you mean 'amount'"),
        ([PIVOT | {"tops": 3}], "aggregates.pivots.0.tops: unknown key; .*did you mean 'top'"),
        ([PIVOT | {"operations": ["last", "men"]}], "aggregates.pivots.0: no operation 'men' .*did you mean 'mean'"),
    ],
)
def test_a_pivot_that_does_not_fit_is_refused_before_spark_starts(
    make_config: Any, pivots: list[Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config({"aggregates": {"pivots": pivots}})
