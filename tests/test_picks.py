"""Sets of categories that are known of users, such as genres picked at sign-up: as of each date, on every route."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from gur_spark import explain
from gur_spark.batches.aggregates import to_batch
from gur_spark.batches.layout import Layout
from gur_spark.events.vocabulary import fit_vocabulary, read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.tables.delta import Tables
from tests.test_snapshots import run_id

pytestmark = pytest.mark.any_engine

AS_OF = date(2024, 7, 1)
MIDNIGHT = datetime(2024, 7, 1, tzinfo=UTC)
SCHEMA = pa.schema(
    [
        *[("user_id", pa.int64()), ("event_time", pa.timestamp("us", "UTC")), ("landed_on", pa.date32())],
        *[(name, pa.string()) for name in ("source", "mcc", "country", "genres")],
    ]
)


def row(user: int, days: float, landed: int, source: str = "signup", **values: str) -> dict[str, Any]:
    """So many days before AS_OF; landed is in days before it, too."""
    time = MIDNIGHT - timedelta(days=days)
    return {"user_id": user, "event_time": time, "landed_on": AS_OF - timedelta(landed), "source": source, **values}


PICKS = [
    # Blanks around and between are none; another set later takes the place of the first.
    row(1, 300, 300, country="de", genres="rock| jazz ||rock"),
    row(1, 20, 20, country="de", genres="folk"),
    # One row per pick of a moment; a correction of the moment that landed later takes their place.
    row(2, 50, 50, country="fr", genres="jazz"),
    row(2, 50, 50, country="fr", genres="rock"),
    row(3, 50, 50, country="fr", genres="jazz|folk"),
    row(3, 50, 1, country="it", genres="rock"),
    # Nothing picked, a value that nobody knows, picks of the day after.
    row(4, 50, 50, country="it"),
    row(5, 40, 40, country="de", genres="polka|rock"),
    row(6, -0.5, 2, country="de", genres="rock"),
]
EVENTS = [row(user, 3, 3, "main", mcc="a") for user in (1, 2, 3, 4, 5, 6, 7)]
EXPECTED = {
    AS_OF - timedelta(1): {1: {"folk"}, 2: {"jazz", "rock"}, 3: {"jazz", "folk"}, 5: {"", "rock"}},
    AS_OF: {1: {"folk"}, 2: {"jazz", "rock"}, 3: {"rock"}, 5: {"", "rock"}},
    AS_OF + timedelta(1): {1: {"folk"}, 2: {"jazz", "rock"}, 3: {"rock"}, 5: {"", "rock"}, 6: {"rock"}},
}


@pytest.fixture
def config(make_config: Any) -> Any:
    fields = {"user_id": {"column": "user"}, "event_time": {"column": "time", "format": "iso8601"}}
    categories = [
        {"name": "country", "column": "country"},
        {"name": "genres", "column": "genres", "separator": "|"},
    ]
    log = {"kind": "attributes", "source": {"path": "unused"}, "fields": {**fields, "categorical": categories}}
    main = {"categorical": [{"name": "mcc", "column": "mcc"}], "numeric": []}
    aggregates = {"windows": [7, 30], "incremental_days": 2}
    return make_config(
        {"fields": main, "logs": {"signup": log}, "vocabulary": {"min_count": 2}, "aggregates": aggregates}
    )


def write(tables: Tables, rows: Sequence[dict[str, Any]]) -> None:
    exists = tables.exists("events")
    table = pa.Table.from_pylist(list(rows), SCHEMA)
    write_deltalake(tables.folder("events"), table, mode="overwrite" if exists else "append")


def test_a_set_is_that_of_the_newest_moment_on_every_route_and_date(tables: Tables, config: Any) -> None:
    write(tables, [*PICKS, *EVENTS])
    fit_vocabulary(tables, config)
    vocabulary = read_vocabulary(tables)
    counts = {r["value"]: r["count"] for r in tables.read("vocabulary").collect() if r["field"] == "genres"}
    # Each member counts; polka is rare. The missing one is of the blank member and the row without any.
    assert counts == {"rock": 6, "jazz": 3, "folk": 2, None: 2}
    ids = {r["value"]: r["id"] for r in vocabulary.frame.collect() if r["field"] == "genres"} | {"": 1}
    found = {
        made.as_of: made
        for made in aggregate_snapshots(tables, config, [*EXPECTED][1:], run_id(), again=True).snapshots
    }  # in one pass
    [alone] = aggregate_snapshots(tables, config, [AS_OF - timedelta(1)], run_id()).snapshots
    next_day = aggregate_snapshots(tables, config, [AS_OF + timedelta(1)], run_id(), again=True)
    [after] = next_day.snapshots
    assert next_day.inputs["route 2024-07-02"].startswith("incremental")
    assert after.checksum == found[after.as_of].checksum
    for day, made in {**found, alone.as_of: alone}.items():
        rows = {r["user_id"]: r["genres"] for r in pq.read_table(made.data).to_pylist()}
        assert rows == {user: sorted(ids[v] for v in EXPECTED[day].get(user, ())) for user in range(1, 8)}
    for user in (1, 2, 3, 4, 5, 7):
        assert explain(tables.spark, config, user, AS_OF, "genres").agrees
    layout = Layout.of(after.manifest(Manifest), vocabulary.sizes)
    batch = to_batch(pq.read_table(found[AS_OF].data).sort_by("user_id").combine_chunks().to_batches()[0], layout)
    histogram = batch.histograms["genres"]
    assert histogram.filled_M.tolist() == [True, True, True, False, True, False, False]
    assert histogram.shares_N.tolist() == [1.0, 0.5, 0.5, 1.0, 0.5, 0.5]


def test_of_a_users_list_who_has_picks_alone_has_a_row(tables: Tables, config: Any, tmp_path: Path) -> None:
    write(tables, [*PICKS, *EVENTS[3:]])
    fit_vocabulary(tables, config)
    (tmp_path / "users").mkdir()
    pq.write_table(pa.table({"user_id": [1, 99]}), tmp_path / "users" / "list.parquet")
    listed = config.model_copy(
        update={"aggregates": config.aggregates.model_copy(update={"users": str(tmp_path / "users")})}
    )
    [made] = aggregate_snapshots(tables, listed, [AS_OF], run_id()).snapshots
    rows = {r["user_id"]: r for r in pq.read_table(made.data).to_pylist()}
    assert set(rows) == {1, 4, 5, 6, 7, 99}
    assert (rows[1]["events_30d"], len(rows[1]["genres"]), rows[99]["genres"]) == (0, 1, [])
