"""The incremental route: the content of the full route, from an earlier snapshot and later landings; or why not."""

import json
import shutil
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from gur_spark.errors import BaseSnapshotError, SnapshotError
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.features.kernel.state_files import part_of
from gur_spark.features.spark.writer import part_of_user
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.base_snapshots import written_landings
from gur_spark.snapshots.routes import Route
from gur_spark.snapshots.visible import Snapshot, visible_snapshots
from gur_spark.tables.cleaning import clean
from gur_spark.tables.delta import Commit, Tables
from gur_spark.tables.open import open_tables
from tests.conftest import config_over
from tests.test_snapshots import AS_OF, EVENTS, Event, event, log, run_id, write

pytestmark = pytest.mark.both_engines

DAY = timedelta(days=1)


def land(tables: Tables, events: Sequence[Event]) -> None:
    """Replace the landings of these events, one commit each, as ``ingest`` does."""
    for day, of_day in groupby(sorted(events, key=lambda e: e[2]), key=lambda e: e[2]):
        rows = pa.Table.from_pylist([dict(zip(EVENTS.names, e, strict=True)) for e in of_day], schema=EVENTS)
        write_deltalake(tables.folder("events"), rows, mode="overwrite", predicate=f"landed_on = '{day}'")


def make(tables: Tables, config: Any, days: int, route: Route = "auto", **more: Any) -> tuple[Snapshot, str]:
    """The snapshot so many days after AS_OF, and the route that the run's row names."""
    found = aggregate_snapshots(tables, config, [AS_OF + days * DAY], run_id(), route=route, **more)
    [made] = found.snapshots
    return made, found.inputs.get(f"route {made.as_of}", "")


def checksum_in_full(tables: Tables, config: Any, days: int) -> str:
    return make(tables, config, days, "full", again=True)[0].checksum


LATER = [
    event(3, timedelta(hours=-5), "a", 700),
    event(4, timedelta(hours=-30), "new", None),
    event(77, timedelta(hours=-31), "b", 5),  # a new user
    event(1, timedelta(days=20), "c", -50, landed=AS_OF + DAY),  # late
    event(78, timedelta(days=150), "a", 9, landed=AS_OF + 2 * DAY),  # a late one of a user nobody knew
    event(5, timedelta(hours=-80), "a", 1),  # in the future of them all
]
ONCE = event(99, timedelta(days=178, hours=12), "b", 3)
"""The only event of a user, who leaves the longest window two days after AS_OF."""


CHANGES = {
    "vocabulary": {"min_count": 1},
    "aggregates": {
        "incremental_days": 3,
        "features": [{"operations": ["gap_std", "events"], "windows": [3, "lifetime"], "name": "e"}],
    },
}


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config(CHANGES)


@pytest.fixture(scope="module")
def kept(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables with the snapshot of AS_OF, made in full, and then three days of landings; to be copied."""
    root = tmp_path_factory.mktemp("base") / "tables"
    config = config_over(root, **CHANGES)
    tables = open_tables(spark, config.tables)
    write(tables, [e for e in log() if e[2] < AS_OF] + [ONCE])
    fit_vocabulary(tables, config)
    _, route = make(tables, config, 0)
    assert route.startswith("full: no snapshot before 2024-07-01 can be the base: none has a saved state")
    land(tables, LATER)
    return root


@pytest.fixture
def base(tables: Tables, kept: Path) -> Snapshot:
    """The snapshot of AS_OF in ``tables``, which are a copy of ``kept``."""
    shutil.copytree(kept, str(tables.root))
    rows = DeltaTable(tables.folder("snapshots")).to_pyarrow_table().to_pylist()
    moved = [row | {"path": row["path"].replace(str(kept), str(tables.root))} for row in rows]
    schema = DeltaTable(tables.folder("snapshots")).schema().to_arrow()
    write_deltalake(tables.folder("snapshots"), pa.Table.from_pylist(moved, pa.schema(schema)), mode="overwrite")
    [made] = visible_snapshots(tables)
    return made


def test_days_after_have_the_content_that_they_have_in_full(tables: Tables, config: Any, base: Snapshot) -> None:
    made = [make(tables, config, days) for days in (1, 3)]
    assert [route for _, route in made] == [f"incremental from {base.path}"] * 2
    users = [set(pq.read_table(s.data)["user_id"].to_pylist()) for s, _ in made]
    assert [99 in users[0], 78 in users[0], 99 in users[1], 78 in users[1]] == [True, False, False, True]
    assert [checksum_in_full(tables, config, days) for days in (1, 3)] == [s.checksum for s, _ in made]
    # At the same commit of the events, one route need not make again what the other made.
    again, route = make(tables, config, 1, "full")
    assert (again.lineage, route) == (made[0][0].lineage, "")


@pytest.mark.any_engine
def test_a_state_is_neither_read_nor_cleaned_as_data(tables: Tables, config: Any, base: Snapshot) -> None:
    from datetime import UTC, datetime

    assert clean(tables, datetime.now(UTC) + DAY) == []
    assert sorted(p.name for p in Path(base.path).iterdir()) == ["data", "manifest.json", "state"]
    made, _ = make(tables, config, 1, "incremental")
    assert sorted(p.name for p in Path(made.path).iterdir()) == ["data", "manifest.json"]
    # A day beyond the horizon is made in full, and others go on from it.
    beyond, route = make(tables, config, 4)
    assert "2024-07-01 (known at 2024-07-01 00:00): its state is for the 3 days after it" in route
    assert make(tables, config, 5)[1] == f"incremental from {beyond.path}"


def test_a_landing_that_the_base_knew_and_that_came_again_needs_all_events(
    tables: Tables, config: Any, base: Snapshot
) -> None:
    land(tables, [event(2, timedelta(days=3), "a", 1)])
    with pytest.raises(BaseSnapshotError, match="landing 2024-06-28, which it counted, was replaced in events version"):
        make(tables, config, 1, "incremental")
    made, route = make(tables, config, 1)
    assert "landing 2024-06-28, which it counted" in route
    assert made.checksum == checksum_in_full(tables, config, 1)


def test_a_commit_that_may_have_changed_any_row_needs_all_events(tables: Tables, config: Any, base: Snapshot) -> None:
    DeltaTable(tables.folder("events")).optimize.compact()
    assert make(tables, config, 1)[1].startswith("incremental")
    tables.spark.sql(f"DELETE FROM {tables.sql_name('events')} WHERE user_id = 3")
    assert r"(DELETE) may have changed any row" in make(tables, config, 2)[1]


@pytest.mark.any_engine
def test_another_vocabulary_manifest_or_table_needs_all_events(
    tables: Tables, config: Any, make_config: Any, base: Snapshot
) -> None:
    other = make_config({"vocabulary": {"min_count": 1}, "aggregates": {"incremental_days": 3, "windows": [7, 30]}})
    with pytest.raises(BaseSnapshotError, match=r"its manifest is \w+, expected"):
        make(tables, other, 1, "incremental")
    with pytest.raises(BaseSnapshotError, match="it counts landings that are not known at 2024-06-30 00:00"):
        make(tables, config, 1, "incremental", known_at=base.known_at - DAY)
    fit_vocabulary(tables, config)
    with pytest.raises(BaseSnapshotError, match="its vocabulary is version 1, expected 2"):
        make(tables, config, 1, "incremental")
    make(tables, config, 0)
    shutil.rmtree(tables.folder("events"))
    write(tables, log())
    with pytest.raises(BaseSnapshotError, match="it was made from another events table"):
        make(tables, config, 1, "incremental")


@pytest.mark.any_engine
def test_without_a_base_the_incremental_route_says_what_there_is_not(tables: Tables, make_config: Any) -> None:
    config = make_config({"vocabulary": {"min_count": 1}})
    write(tables, log())
    fit_vocabulary(tables, config)
    made, route = make(tables, config, 0)
    assert route == "full"
    assert not (Path(made.path) / "state").exists()
    with pytest.raises(SnapshotError, match=r"none has a saved state \(a full run with aggregates.incremental_days"):
        make(tables, config, 1, "incremental")


@pytest.mark.any_engine
@pytest.mark.parametrize("damage", ["altered", "shorter", "missing", "data"])
def test_a_damaged_base_is_not_used(tables: Tables, config: Any, base: Snapshot, damage: str) -> None:
    file = sorted((Path(base.path) / "state").glob("*.arrow"))[0]
    content = bytearray(file.read_bytes())
    if damage == "altered":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "shorter":
        file.write_bytes(content[:-1])
    elif damage == "missing":
        file.unlink()
    else:
        next(Path(base.data).glob("*.parquet")).unlink()
    said = {
        "altered": "it was altered",
        "shorter": "bytes, expected",
        "missing": "has 0 bytes",
        "data": "its files are",
    }
    with pytest.raises(BaseSnapshotError, match=said[damage]):
        make(tables, config, 1, "incremental")
    assert [s.as_of for s in visible_snapshots(tables)] == [AS_OF]
    made, route = make(tables, config, 1)
    assert route.startswith("full: ")
    assert said[damage] in route
    assert json.loads((Path(made.path) / "state" / "state.json").read_text())["as_of"] == "2024-07-02"


@pytest.mark.any_engine
def test_a_list_of_users_needs_all_events(tables: Tables, make_config: Any, config: Any, base: Snapshot) -> None:
    folder = str(Path(tables.root) / "users")
    tables.spark.createDataFrame([(1,), (500,)], "user_id BIGINT").write.parquet(folder)
    aggregates = {**config.aggregates.model_dump(mode="json"), "users": folder}
    listed = make_config({"vocabulary": {"min_count": 1}, "aggregates": aggregates})
    made, route = make(tables, listed, 1)
    assert route == "full: aggregates.users is given: a list of users needs all events"
    assert not (Path(made.path) / "state").exists()


@pytest.mark.parametrize(("kind", "users"), [("BIGINT", [-5, 0, 2**60]), ("STRING", ["", "b", "Zoé", "17850"])])
def test_spark_and_python_agree_on_the_part_of_a_user(spark: Any, kind: str, users: list[Any]) -> None:
    frame = spark.createDataFrame([(user,) for user in users], f"user_id {kind}")
    found = {row[0]: row[1] for row in frame.select("user_id", part_of_user()).collect()}
    assert found == {user: part_of(user) for user in users}


@pytest.mark.parametrize(
    ("predicate", "landings"),
    [
        ("landed_on IN (DATE'2024-07-01', DATE'2024-07-02')", [date(2024, 7, 1), date(2024, 7, 2)]),
        ("landed_on = '2024-07-01'::date", [date(2024, 7, 1)]),
        ("landed_on = '2024-07-01'::date OR landed_on = '2024-07-02'::date", [date(2024, 7, 1), date(2024, 7, 2)]),
        (
            "source = 'web' AND (landed_on = '2024-07-01'::date OR landed_on = '2024-07-02'::date)",
            [date(2024, 7, 1), date(2024, 7, 2)],
        ),
        ("source = 'web' AND landed_on IN (DATE'2024-07-01')", [date(2024, 7, 1)]),
        ("source = 'web'", None),
        ("source = 'web' OR landed_on = '2024-07-01'::date", None),
        ("landed_on IS NOT NULL", None),
        ("landed_on IN (DATE'2024-07-01') OR user_id = 3", None),
        (None, None),
    ],
)
def test_only_commits_of_landings_are_known_to_be_some(predicate: str | None, landings: list[date] | None) -> None:
    assert written_landings(Commit(3, "WRITE", predicate)) == landings
    assert written_landings(Commit(3, "MERGE", predicate)) is None
