"""Windows with hours from YAML to Parquet: plain Python's rows by every route; sequences, interactions, the model."""

import random
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gur_spark import schema
from gur_spark.batches.aggregates import to_batch
from gur_spark.batches.layout import Layout
from gur_spark.errors import ConfigError, SnapshotError
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.reconstruction import RSquared
from gur_spark.models.gur.settings import GurModel
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.explanation import explain
from gur_spark.snapshots.interactions import interaction_snapshots
from gur_spark.snapshots.sequences import sequence_snapshots
from gur_spark.snapshots.stale import stale_snapshots
from gur_spark.tables.delta import Tables
from tests.oracles import DAY_US, aggregate_rows, same_rows
from tests.test_incremental import land
from tests.test_snapshots import AS_OF, MIDNIGHT, Event, event, run_id, write

pytestmark = [pytest.mark.both_engines, pytest.mark.usefixtures("vocabulary")]

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FEATURES = [
    {"operations": ["active_days", "gap_std"], "windows": ["30h", {"hours": 6, "before": "20h"}], "name": "e"},
    {"field": "amount", "operations": ["sum"], "windows": ["6h", 3], "trends": [["6h", 3]], "name": "pace"},
    {"field": "amount", "operations": [{"decayed_sum": 1}, "last"], "windows": ["50h", "lifetime"]},
]
AGGREGATES = {"windows": ["6h", "24h", "36h", 7], "incremental_days": 3, "features": FEATURES}


def short_log(seed: int = 1, days: int = 9, first: int = 0) -> list[Event]:
    """Events of the days before AS_OF + ``first``, many of them at the edges of windows."""
    rng = random.Random(seed)
    ages = [timedelta(microseconds=rng.randrange(1, days * DAY_US)) for _ in range(250)]
    ages += [h * HOUR + timedelta(microseconds=us) for h in (6, 24, 36, 168) for us in (0, 1)]
    return [
        event(rng.randrange(6), age - first * DAY, rng.choice([None, "a", "b", "c"]), rng.randrange(-50, 900))
        for age in ages
    ]


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config({"vocabulary": {"min_count": 1}, "aggregates": AGGREGATES})


def rows_of(data: str) -> dict[Any, dict[str, Any]]:
    return {row.pop("user_id"): row for row in pq.read_table(data).to_pylist()}


def test_all_routes_give_plain_pythons_rows(tables: Tables, config: Any) -> None:
    early, late = short_log(), [*short_log(2, days=2, first=2), event(1, 5 * HOUR, "a", 7, landed=AS_OF + DAY)]
    write(tables, early)
    aggregate_snapshots(tables, config, [AS_OF], run_id())
    land(tables, [e for e in late if e[2] >= AS_OF])
    days = [AS_OF + DAY, AS_OF + 2 * DAY]
    [grown] = aggregate_snapshots(tables, config, days[1:], run_id(), route="incremental").snapshots
    together = aggregate_snapshots(tables, config, days, run_id(), again=True).snapshots
    assert grown.checksum == together[1].checksum
    ids = {row.value: row.id for row in read_vocabulary(tables).frame.collect()} | {None: schema.MISSING_ID}
    for number, (day, made) in enumerate(zip(days, together, strict=True), 1):
        midnight, log = MIDNIGHT + number * DAY, [*early, *(e for e in late if e[2] >= AS_OF)]
        rows = [
            {"user_id": u, "age_us": (midnight - t) // timedelta(microseconds=1), "amount": amount, "mcc": ids[mcc]}
            for u, t, landed, mcc, amount in log
            if t < midnight and landed < day
        ]
        expected = aggregate_rows([r for r in rows if r["age_us"] <= 7 * DAY_US], config.manifest())
        found = rows_of(made.data)
        assert same_rows({u: {k: row[k] for k in expected[u]} for u, row in found.items()}, expected)
        assert sum(row["events_6h"] for row in found.values()) > 0


@pytest.mark.any_engine
def test_numbers_of_hours_can_be_explained(spark: Any, tables: Tables, config: Any) -> None:
    write(tables, short_log())
    aggregate_snapshots(tables, config, [AS_OF], run_id())
    for feature in (
        "amount_sum_6h",
        "amount_std_36h",
        "active_days_36h",
        "mcc_counts_1d",
        "e_active_days_6h_before_20h",
    ):
        found = explain(spark, config, 3, AS_OF, feature)
        assert found.agrees, feature
    assert "2024-06-29 22:00 <= event_time < 2024-06-30 04:00 (UTC)" in str(found)


@pytest.mark.any_engine
def test_sequences_and_interactions_take_windows_of_hours(tables: Tables, make_config: Any) -> None:
    window = {"hours": 6, "before": "18h"}
    forms = {"sequences": {"window": window}, "interactions": {"field": "mcc", "window": "6h"}}
    config = make_config({"vocabulary": {"min_count": 1}, **forms})
    write(tables, short_log())
    [sequences] = sequence_snapshots(tables, config, [AS_OF], run_id()).snapshots
    inside = [e for e in short_log() if 18 * HOUR < MIDNIGHT - e[1] <= 24 * HOUR]
    found = rows_of(sequences.data)
    assert {u: len(row["event_time"]) for u, row in found.items()} == {
        u: sum(e[0] == u for e in inside) for u in {e[0] for e in inside}
    }
    [interactions] = interaction_snapshots(tables, config, [AS_OF], run_id()).snapshots
    recent = [e for e in short_log() if MIDNIGHT - e[1] <= 6 * HOUR and e[3] is not None]
    assert sum(pq.read_table(interactions.data)["count"].to_pylist()) == len(recent)
    assert [s.form for s in stale_snapshots(tables, config, ["2024-06-28"])] == ["interactions", "sequences"]
    assert stale_snapshots(tables, config, ["2024-06-27"]) == []


@pytest.mark.any_engine
def test_dates_with_windows_of_hours_alone_are_passes_of_their_own(tables: Tables, make_config: Any) -> None:
    config = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"windows": ["6h"], "delay_days": 1}})
    write(tables, short_log())
    made = aggregate_snapshots(tables, config, [AS_OF - DAY, AS_OF], run_id()).snapshots
    ages = [(user, MIDNIGHT - time) for user, time, *_ in short_log()]
    recent = [{user for user, age in ages if timedelta(0) < age - days * DAY <= 6 * HOUR} for days in (1, 0)]
    assert [s.rows for s in made] == [len(users) for users in recent]
    nobody = [event(1, 7 * HOUR, "a", 5)]
    write(tables, nobody)
    with pytest.raises(SnapshotError, match="no event in the 6 hours before 2024-07-01 that had landed before"):
        aggregate_snapshots(tables, config, [AS_OF], run_id(), again=True)


@pytest.mark.any_engine
def test_the_model_takes_windows_of_hours(tables: Tables, config: Any) -> None:
    write(tables, short_log())
    [made] = aggregate_snapshots(tables, config, [AS_OF], run_id()).snapshots
    layout = Layout.of(made.manifest(Manifest), read_vocabulary(tables).sizes)
    rows = pq.read_table(made.data, columns=layout.columns).combine_chunks()
    batch = to_batch(pa.RecordBatch.from_struct_array(rows.to_struct_array().combine_chunks()), layout)
    torch.manual_seed(0)
    module = GUR(layout, GurModel(latent_dim=4, loss={"likelihood": 1.0}, tables="trained")).eval()
    found = RSquared(module.target_blocks, layout.windows_of)
    with torch.inference_mode():
        found.update(module(batch), batch)
    assert {"r2_amount_6h", "r2_amount_1d", "r2_mcc_36h", "r2_7d"} <= found.result().keys()


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("aggregates", "message"),
    [
        ({"windows": ["24h", "1d"]}, r"aggregates.windows: expected ascending windows, each once"),
        ({"windows": ["1d", "6h"]}, r"aggregates.windows: expected ascending windows, each once"),
        ({"windows": ["6hours"]}, r"aggregates.windows.0: expected days such as 7 or '7d', or hours such as '6h'"),
        (
            {"features": [{"operations": ["silent_days"], "windows": ["6h"]}]},
            "'silent_days' takes windows of whole days",
        ),
    ],
)
def test_windows_that_do_not_fit_are_refused(make_config: Any, aggregates: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config({"aggregates": aggregates})
