"""Several logs of the same users: one table of events, each log on its own; attributes of a user at a date."""

import random
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from gur_spark import explain, schema
from gur_spark.errors import ConfigError, EvaluationError, TableError, TrainingError
from gur_spark.evaluate import labels
from gur_spark.events.ingest import ingest
from gur_spark.events.vocabulary import fit_vocabulary, read_vocabulary
from gur_spark.features.spark.selection import event_rows
from gur_spark.models.gur.pairs import check_horizon, write_pairs
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.horizon import check_complete, events_ahead
from gur_spark.snapshots.sequences import sequence_snapshots
from gur_spark.snapshots.stale import stale_snapshots
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run
from jobs import ingest as job

pytestmark = pytest.mark.both_engines

AS_OF = date(2024, 7, 1)
DAY = timedelta(days=1)
TIME = {"column": "time", "format": "iso8601"}


FIELDS = {"main": ("mcc", "amount"), "web": ("page", "amount"), "profile": ("country", "age")}


@dataclass(frozen=True)
class Row:
    """A raw row: mcc of cards, page of the web, country and age of profiles; cards and the web have amounts."""

    log: str
    user: int
    time: datetime
    landed: date
    text: str
    number: str


def rows_of(seed: int, count: int = 400, users: int = 9) -> list[Row]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        log = rng.choice(["main", "main", "web", "web", "profile"])
        # Profiles are older than any window, and say that something holds from a day in the future on.
        before = timedelta(minutes=rng.randrange(-8 * 1440, (900 if log == "profile" else 220) * 1440))
        time = datetime(2024, 7, 1, tzinfo=UTC) - before
        late = rng.choice([0, 0, 0, 1, 3])
        landed = max(time.date(), date(2023, 12, 1)) if before > timedelta(0) or log != "profile" else date(2024, 6, 20)
        text = rng.choice(["a", "b", "c", ""])
        made.append(
            Row(log, rng.randrange(users), time, landed + late * DAY, text, rng.choice(["", "1.25", "7", "-3"]))
        )
    return made


def land(folder: Path, rows: Sequence[Row]) -> None:
    """One CSV file a day for each log."""
    for log, names in FIELDS.items():
        (folder / log).mkdir(parents=True, exist_ok=True)
        for day in {row.landed for row in rows if row.log == log}:
            lines = [
                f"{r.user},{r.time.isoformat()},{r.text},{r.number}" for r in rows if (r.log, r.landed) == (log, day)
            ]
            (folder / log / f"{day}.csv").write_text(f"user,time,{','.join(names)}\n" + "\n".join(lines) + "\n")


@pytest.fixture
def landed(tmp_path: Path) -> Path:
    return tmp_path / "landed"


@pytest.fixture
def configure(make_config: Any, landed: Path) -> Any:
    def log(name: str, text: str, number: dict[str, Any], **more: Any) -> dict[str, Any]:
        fields = {"user_id": {"column": "user"}, "event_time": TIME, "categorical": [{"name": text, "column": text}]}
        return {
            "source": {"path": str(landed / name), "max_bad_share": 1},
            "fields": {**fields, "numeric": [number]},
            **more,
        }

    amount = {"name": "amount", "column": "amount", "step": 0.01}
    web = log("web", "page", amount)
    profile = log("profile", "country", {"name": "age", "column": "age", "step": 0.25}, kind="attributes")

    def make(**aggregates: Any) -> Any:
        features = [
            {"name": "visits", "operations": ["events"], "where": "source = 'web'", "windows": [30]},
            {"field": "amount", "operations": ["sum"], "by": "mcc", "windows": [30]},
        ]
        return make_config(
            {
                "source": {"path": str(landed / "main"), "max_bad_share": 1},
                "logs": {"web": web, "profile": profile},
                "vocabulary": {"min_count": 1},
                "aggregates": {"windows": [7, 30, 180], "features": features, **aggregates},
            }
        )

    return make


@pytest.fixture
def config(configure: Any) -> Any:
    return configure()


def run_id() -> str:
    return uuid4().hex


def new_run() -> Run:
    return Run(id=run_id(), job="test", parameters={})


EVENTS = pa.schema(
    [
        *[("user_id", pa.int64()), ("event_time", pa.timestamp("us", "UTC")), ("landed_on", pa.date32())],
        *[(name, pa.string()) for name in ("source", "mcc", "page", "country")],
        *[(name, pa.int64()) for name in ("amount", "age")],
    ]
)
STEPS = {"amount": 0.01, "age": 0.25}


def write(tables: Tables, rows: Sequence[Row]) -> None:
    """Ingest these landings, in a commit for each log."""
    for name, (text, number) in FIELDS.items():
        mine = [row for row in rows if row.log == name]
        events = [
            {"user_id": r.user, "event_time": r.time, "landed_on": r.landed, "source": name, text: r.text or None}
            | {number: round(float(r.number) / STEPS[number]) if r.number else None}
            for r in mine
        ]
        days = ", ".join(f"'{day}'" for day in sorted({row.landed for row in mine}))
        replaced = {"predicate": f"source = '{name}' AND landed_on IN ({days})"} if tables.exists("events") else {}
        if mine:
            table = pa.Table.from_pylist(events, EVENTS)
            write_deltalake(tables.folder("events"), table, mode="overwrite", **replaced)


def ingest_all(tables: Tables, config: Any) -> Run:
    run = new_run()
    for name in config.all_logs:
        run.add(ingest(tables, config, run.id, name=name))
    return run


def snapshots(tables: Tables, config: Any, *dates: date, **options: Any) -> list[dict[int, dict[str, Any]]]:
    made = aggregate_snapshots(tables, config, dates, run_id(), **options).snapshots
    return [{row["user_id"]: row for row in pq.read_table(one.data).to_pylist()} for one in made]


def test_each_landing_of_each_log_is_counted_and_replaced_on_its_own(tables: Tables, config: Any, landed: Path) -> None:
    rows = rows_of(1, 40)
    land(landed, rows)
    (landed / "web" / "2024-05-01.csv").write_text("user,time,page,amount\n1,2024-05-01T00:00:00,a,x\n")
    run = ingest_all(tables, config)
    others = [row for row in rows if (row.log, row.landed) != ("web", date(2024, 5, 1))]
    per_log = Counter(row.log for row in others)
    assert {name: run.counts[f"{name} accepted"] for name in config.all_logs} == per_log
    assert (run.counts["accepted"], run.counts["quarantined"], run.counts["web quarantined"]) == (len(others), 1, 1)
    assert {row["source"]: row["n"] for row in _count(tables)} == per_log
    # The same day of another log is another landing, in both tables.
    ingest(tables, config, run_id(), [day := min(row.landed for row in rows if row.log == "main")], name="main")
    assert {row["source"]: row["n"] for row in _count(tables)} == per_log
    (landed / "main" / f"{day}.csv").write_text("user,time,mcc,amount\n1,x,a,1\n")
    (landed / "main" / "2024-05-01.csv").write_text("user,time,mcc,amount\n1,x,a,1\n")
    again = ingest(tables, config, run_id(), [day, date(2024, 5, 1)], name="main")
    assert again.counts["main quarantined"] == again.counts["quarantined"] == 2
    gone = Counter(row.log for row in others if row.log == "main" and row.landed in (day, date(2024, 5, 1)))
    assert {row["source"]: row["n"] for row in _count(tables)} == per_log - gone
    found = tables.read("quarantine").select("source", "reason", "field").collect()
    assert sorted(map(tuple, found)) == [("main", "bad_time", "event_time")] * 2 + [("web", "not_a_number", "amount")]


def _count(tables: Tables) -> list[Any]:
    return tables.spark.sql(f"SELECT source, count(1) AS n FROM {tables.sql_name('events')} GROUP BY 1").collect()


@pytest.mark.any_engine
def test_sequences_have_the_events_of_all_logs_and_a_log_without_a_field_has_padding(
    tables: Tables, config: Any
) -> None:
    rows = rows_of(2)
    write(tables, rows)
    fit_vocabulary(tables, config)
    ids = {(row.field, row.value): row.id for row in read_vocabulary(tables).frame.collect()}
    [snapshot] = sequence_snapshots(tables, config, [AS_OF], run_id()).snapshots
    known = (AS_OF - DAY, datetime(2024, 7, 1, tzinfo=UTC))
    inside = [
        r for r in rows if r.log != "profile" and r.landed <= known[0] and DAY * 0 < known[1] - r.time <= DAY * 180
    ]

    def value(row: Row, log: str, field: str) -> int:
        return ids.get((field, row.text or None), schema.MISSING_ID) if row.log == log else schema.PADDING_ID

    expected = Counter(
        (
            *(r.user, int(r.time.timestamp()), 1 if r.log == "main" else 2),
            *(value(r, "main", "mcc"), value(r, "web", "page"), float(r.number or 0), 1 if r.number else 2),
        )
        for r in inside
    )
    names = ("event_time", "source", "mcc", "page", "amount", "amount_missing")
    assert [c.name for c in snapshot.manifest().columns] == ["user_id", "as_of", *names]
    assert expected == Counter(
        (row["user_id"], *event)
        for file in Path(snapshot.data).glob("*.parquet")
        for row in pq.read_table(file).to_pylist()
        for event in zip(*(row[name] for name in names), strict=True)
    )


@pytest.mark.any_engine
def test_fields_count_the_events_of_their_logs_and_attributes_hold_at_the_date(tables: Tables, config: Any) -> None:
    rows = rows_of(2)
    write(tables, rows)
    fit_vocabulary(tables, config)
    ids = {(row.field, row.value): row.id for row in read_vocabulary(tables).frame.collect()}
    dates = [AS_OF - 40 * DAY, AS_OF, AS_OF + 2 * DAY]
    found = snapshots(tables, config, *dates)
    assert [_expected(rows, day, ids) for day in dates] == [
        {user: {name: row[name] for name in _NAMES} for user, row in of_date.items()} for of_date in found
    ]
    for user in (0, 4, 8):
        for name in ("country", "age", "page_counts_30d", "visits_events_30d"):
            assert explain(tables.spark, config, user, AS_OF, name).agrees
    # A date alone says the same of users as one of many.
    assert snapshots(tables, config, dates[0], again=True) == found[:1]


_NAMES = (
    *("events_30d", "mcc_counts_30d", "page_counts_30d", "amount_count_30d", "visits_events_30d"),
    *("amount_by_mcc_sum_30d", "country", "age"),
)


def _expected(rows: Sequence[Row], as_of: date, ids: Any) -> dict[int, dict[str, Any]]:
    midnight = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)
    known = [row for row in rows if row.landed < as_of and row.time < midnight]
    events = [row for row in known if row.log != "profile" and row.time >= midnight - 180 * DAY]
    expected = {}
    for user in {row.user for row in events}:
        mine = [row for row in events if row.user == user]
        last = [row for row in mine if row.time >= midnight - 30 * DAY]
        mcc, page = ([r for r in mine if r.log == log] for log in ("main", "web"))
        counts = {
            f"{name}_counts_30d": [
                sum(r in last and ids[name, r.text or None] == id for r in of_log)
                for id in sorted({ids[name, r.text or None] for r in of_log})
            ]
            for name, of_log in (("mcc", mcc), ("page", page))
        }
        sums = [
            sum(float(r.number or 0) for r in mcc if r in last and ids["mcc", r.text or None] == id)
            for id in sorted({ids["mcc", r.text or None] for r in mcc})
        ]
        held = [row for row in known if row.log == "profile" and row.user == user]
        newest = max(held, key=lambda r: (r.time, r.landed, ids["country", r.text or None], r.number), default=None)
        expected[user] = counts | {
            "events_30d": len(last),
            "amount_count_30d": sum(r.number != "" for r in last),
            "visits_events_30d": sum(r.log == "web" for r in last),
            "amount_by_mcc_sum_30d": sums,
            "country": ids["country", newest.text or None] if newest else schema.MISSING_ID,
            "age": float(newest.number) if newest and newest.number else None,
        }
    return expected


@pytest.mark.any_engine
def test_a_day_after_goes_on_with_what_was_known_of_users(tables: Tables, configure: Any) -> None:
    config = configure(incremental_days=3)
    rows = rows_of(3)
    write(tables, [row for row in rows if row.landed < AS_OF])
    fit_vocabulary(tables, config)
    snapshots(tables, config, AS_OF)
    write(tables, [row for row in rows if row.landed >= AS_OF])
    after = aggregate_snapshots(tables, config, [AS_OF + 3 * DAY], run_id())
    [made] = after.snapshots
    assert after.inputs["route 2024-07-04"].startswith("incremental from")
    [full] = aggregate_snapshots(tables, config, [AS_OF + 3 * DAY], run_id(), route="full", again=True).snapshots
    assert made.checksum == full.checksum
    # A profile may change every date after it landed, however old it is.
    assert [s.as_of for s in stale_snapshots(tables, config, ["profile 2023-12-01"])] == [AS_OF, AS_OF + 3 * DAY]
    assert stale_snapshots(tables, config, ["web 2023-12-01"]) == []


@pytest.mark.any_engine
def test_a_vocabulary_counts_the_rows_of_the_logs_that_have_the_field(tables: Tables, config: Any) -> None:
    rows = rows_of(4)
    write(tables, rows)
    fit_vocabulary(tables, config)
    found = {(r["field"], r["value"]): r["count"] for r in tables.read("vocabulary").collect()}
    logs = {"main": "mcc", "web": "page", "profile": "country"}
    assert found == Counter((logs[row.log], row.text or None) for row in rows)


@pytest.mark.any_engine
def test_attributes_are_no_events_to_churn_and_the_log_that_ends_first_bounds_it(tables: Tables, config: Any) -> None:
    def row(log: str, user: int, days: int) -> Row:
        time = datetime(2024, 7, 1, tzinfo=UTC) + days * DAY
        return Row(log, user, time, time.date(), "a", "1")

    write(tables, [row("main", 1, -3), row("web", 2, -3), row("main", 9, 6), row("web", 9, 4), row("profile", 1, 2)])
    events = event_rows(tables.read("events"), config.manifest())
    active = tables.spark.createDataFrame([(1,), (2,)], "user_id BIGINT")
    ahead = events_ahead(events, AS_OF, 5, config.aggregates.delay_days)
    assert sorted(map(tuple, labels.churn(active, ahead).collect())) == [(1, "churned"), (2, "churned")]
    check_complete(events, config, [AS_OF], 5, EvaluationError)
    with pytest.raises(EvaluationError, match="the log ends on 2024-07-05"):
        check_complete(events, config, [AS_OF], 6, EvaluationError)


@pytest.mark.any_engine
def test_a_table_of_several_logs_is_not_taken_for_one_of_one(
    tables: Tables, config: Any, make_config: Any, landed: Path
) -> None:
    land(landed, rows_of(5, 20))
    ingest(tables, config, run_id(), name="web")
    before, alone = tables.version("events"), make_config({"source": {"path": str(landed / "main")}})
    with pytest.raises(TableError, match="has the events of several logs, and the configuration declares one"):
        ingest(tables, alone, run_id())
    with pytest.raises(TableError, match="has the events of several logs"):
        aggregate_snapshots(tables, alone, [AS_OF], run_id())
    assert tables.version("events") == before


@pytest.mark.any_engine
def test_rows_of_a_log_that_is_no_longer_declared_are_no_events(tables: Tables, config: Any) -> None:
    write(tables, rows_of(6, 60))
    fewer = config.model_copy(update={"logs": {"web": config.logs["web"]}})
    found = event_rows(tables.read("events"), fewer.manifest())
    assert {row["source"] for row in found.select("source").distinct().collect()} == {"main", "web"}


@pytest.mark.any_engine
def test_what_follows_is_counted_for_the_fields_of_each_log(tables: Tables, config: Any) -> None:
    rows = rows_of(9)
    write(tables, rows)
    fit_vocabulary(tables, config)
    day, horizon = AS_OF - timedelta(40), timedelta(config.model.future.horizon_days)
    [made] = aggregate_snapshots(tables, config, [day], run_id()).snapshots
    ahead = config.model_copy(update={"model": config.model.model_copy(update={"loss": {"future": 1.0}})})
    [folder] = write_pairs(tables, ahead, [made], read_vocabulary(tables), tables.folder("pairs"))
    ends = datetime(day.year, day.month, day.day, tzinfo=UTC) + horizon
    came = [r for r in rows if ends - horizon <= r.time < ends and r.landed < (day + horizon) and r.log != "profile"]
    for row in pq.read_table(Path(folder) / "data").to_pylist():
        mine = Counter(r.log for r in came if r.user == row["user_id"])
        found = {"main": sum(row["future_mcc_counts"]), "web": sum(row["future_page_counts"])}
        assert (row["future_events"], found) == (mine.total(), {"main": mine["main"], "web": mine["web"]})


@pytest.mark.any_engine
def test_a_log_without_events_yet_is_not_taken_for_silence(tables: Tables, config: Any) -> None:
    write(tables, [row for row in rows_of(8, 60) if row.log != "web"])
    events = event_rows(tables.read("events"), config.manifest())
    with pytest.raises(TrainingError, match="log web has no events yet"):
        check_horizon(events, config, [AS_OF - timedelta(60)])


def test_a_condition_cannot_ask_for_an_attribute(tables: Tables, configure: Any) -> None:
    config = configure(features=[{"name": "german", "operations": ["events"], "where": "country = 'a'"}])
    write(tables, rows_of(7, 60))
    fit_vocabulary(tables, config)
    with pytest.raises(ConfigError, match=r"condition .*country.* cannot be used"):
        aggregate_snapshots(tables, config, [AS_OF], run_id())


@pytest.mark.any_engine
def test_of_rows_of_one_moment_a_known_number_comes_before_a_missing_one(tables: Tables, config: Any) -> None:
    time = datetime(2024, 6, 1, tzinfo=UTC)
    profiles = [Row("profile", 1, time, date(2024, 6, 2), "a", number) for number in ("", "5", "")]
    write(
        tables,
        [*profiles, Row("main", 1, time, date(2024, 6, 2), "a", "1"), Row("web", 1, time, date(2024, 6, 28), "a", "")],
    )
    fit_vocabulary(tables, config)
    [of_date] = snapshots(tables, config, AS_OF)
    assert of_date[1]["age"] == 5
    assert explain(tables.spark, config, 1, AS_OF, "age").agrees


def test_a_landing_is_one_of_a_log(tables: Tables, config: Any) -> None:
    args = Namespace(landing=[AS_OF], all=False, log=[])
    with pytest.raises(ConfigError, match="--landing needs --log NAME where there are several logs"):
        job.stage(tables, config, args, new_run())
    with pytest.raises(ConfigError, match=r"no such log; available: .* did you mean 'web'"):
        job.stage(tables, config, Namespace(landing=[], all=False, log=["wb"]), new_run())


@pytest.mark.any_engine
def test_a_table_of_fewer_logs_is_not_written_to(tables: Tables, config: Any, make_config: Any, landed: Path) -> None:
    land(landed, rows_of(5, 20))
    alone = make_config({"source": {"path": str(landed / "main")}})
    ingest(tables, alone, run_id())
    before = tables.version("events")
    with pytest.raises(TableError, match="has no column source, country, page, age: it was made before"):
        ingest(tables, config, run_id(), name="web")
    assert tables.version("events") == before
