"""Logs of items: ingested into a table of their own, and the attributes that hold of an item at a date."""

import itertools
import random
from argparse import Namespace
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from gur_spark.errors import ConfigError, TableError
from gur_spark.events.ingest import ingest
from gur_spark.events.items import items_as_of
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.stale import stale_snapshots
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account, record
from jobs import ingest as job
from tests.test_snapshots import run_id

pytestmark = pytest.mark.both_engines

AS_OF = date(2024, 7, 1)
MIDNIGHT = datetime(2024, 7, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HEADER = "sku,since,brand,price\n"

ITEMS = pa.schema(
    [
        *[("item", pa.string()), ("valid_from", pa.timestamp("us", "UTC")), ("landed_on", pa.date32())],
        *[(name, pa.string()) for name in ("source", "brand", "shelf")],
        ("price", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Row:
    """Row of the log ``catalogue`` on an item from a moment on."""

    item: str
    since: datetime
    landed: date
    brand: str | None
    price: int | None
    """In steps of 0.25."""


def item_log(folder: Path, **changes: Any) -> dict[str, Any]:
    fields = {
        "item": {"column": "sku"},
        "event_time": {"column": "since", "format": "iso8601"},
        "categorical": [{"name": "brand", "column": "brand"}],
        "numeric": [{"name": "price", "column": "price", "step": 0.25}],
    }
    return {"kind": "items", "source": {"path": str(folder), "max_bad_share": 1}, "fields": fields, **changes}


@pytest.fixture
def landed(tmp_path: Path) -> Path:
    for name in ("main", "catalogue"):
        (tmp_path / "landed" / name).mkdir(parents=True)
    return tmp_path / "landed"


@pytest.fixture
def configure(make_config: Any, landed: Path) -> Any:
    def configured(logs: dict[str, Any] | None = None, **changes: Any) -> Any:
        main = {key: changes.pop(key) for key in ("fields", "join", "dedupe") if key in changes and logs}
        logs = logs or {"catalogue": item_log(landed / "catalogue", **changes)}
        source = {"path": str(landed / "main")}
        return make_config({"source": source, "vocabulary": {"min_count": 1}, "logs": logs, **main})

    return configured


@pytest.fixture
def config(configure: Any) -> Any:
    return configure()


def ingested(tables: Tables, config: Any, **options: Any) -> Account:
    return ingest(tables, config, run_id(), name="catalogue", **options)


def stored(tables: Tables, *columns: str) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, tables.read("items").selectExpr(*columns).collect()), key=str)


def write(tables: Tables, rows: list[Row]) -> None:
    """Ingest these rows."""
    dicts = [
        {"item": r.item, "valid_from": r.since, "landed_on": r.landed, "brand": r.brand, "price": r.price} for r in rows
    ]
    named = [row | {"source": "catalogue", "shelf": None} for row in dicts]
    write_deltalake(tables.folder("items"), pa.Table.from_pylist(named, ITEMS), mode="overwrite")


def held(tables: Tables, config: Any, as_of: date = AS_OF, known_at: datetime = MIDNIGHT) -> dict[str, tuple[Any, ...]]:
    """Brand and price of each item."""
    rows = items_as_of(tables, config.item_logs, as_of, known_at).collect()
    assert len({row["item"] for row in rows}) == len(rows)
    return {row["item"]: (row["brand"], row["price"]) for row in rows}


def plain(rows: list[Row], as_of: date, known_at: datetime) -> dict[str, tuple[Any, ...]]:
    """The naive way: sort the rows that held and were known, and keep the last of each item."""
    midnight = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)
    known = [r for r in rows if r.since < midnight and datetime(*r.landed.timetuple()[:3], tzinfo=UTC) < known_at]

    def order(row: Row) -> tuple[Any, ...]:
        # Null is less than any value.
        values = [(value is not None, value) if value is not None else (False,) for value in (row.brand, row.price)]
        return (row.since, row.landed, *values)

    return {r.item: (r.brand, None if r.price is None else r.price / 4) for r in sorted(known, key=order)}


@pytest.mark.any_engine
def test_rows_are_typed_counted_and_replaced_by_landing(tables: Tables, config: Any, landed: Path) -> None:
    folder = landed / "catalogue"
    good = "a,2023-12-01,acme,1.25\n b,2023-12-01T10:00:00Z,,\n"
    bad = ",2023-12-01,x,1\na,never,x,1\na,2023-12-02,x,dear\n"
    (folder / "2024-01-01.csv").write_text(HEADER + good + bad)
    (folder / "2024-01-02.csv").write_text(HEADER + "a,2024-01-02,acme,2\n")
    run = ingested(tables, config)
    fates = ("rows_read", "accepted", "deduplicated", "filtered", "quarantined")
    assert [run.counts[f"catalogue {fate}"] for fate in fates] == [6, 3, 0, 0, 3]
    assert stored(tables, "item", "unix_seconds(valid_from) - 1701388800", "landed_on", "source", "brand", "price") == [
        (" b", 36_000, date(2024, 1, 1), "catalogue", None, None),
        ("a", 0, date(2024, 1, 1), "catalogue", "acme", 5),
        ("a", 32 * 86_400, date(2024, 1, 2), "catalogue", "acme", 8),
    ]
    found = tables.read("quarantine").select("source", "reason", "field").collect()
    assert sorted(map(tuple, found)) == [
        ("catalogue", "bad_time", "event_time"),
        ("catalogue", "not_a_number", "price"),
        ("catalogue", "null_item", "item"),
    ]
    (folder / "2024-01-01.csv").write_text(HEADER + "c,2023-12-01,acme,1\n")
    ingested(tables, config, landings=[date(2024, 1, 1)])
    assert stored(tables, "item") == [("a",), ("c",)]
    assert [row["source"] for row in tables.read("quarantine").collect()] == []
    assert not tables.exists("events")


@pytest.mark.any_engine
def test_rows_that_are_equal_are_stored_once_where_the_log_says_so(
    tables: Tables, configure: Any, landed: Path
) -> None:
    for day in ("2024-01-01", "2024-01-02"):
        (landed / "catalogue" / f"{day}.csv").write_text(HEADER + "a,2023-12-01,acme,1\na,2023-12-01,acme,1\n")
    run = ingested(tables, configure(dedupe={"policy": "exact"}))
    assert run.counts["deduplicated"] == 3
    assert stored(tables, "item", "landed_on") == [("a", date(2024, 1, 1))]


def test_an_item_has_the_newest_row_that_held_and_had_landed(tables: Tables, config: Any) -> None:
    rng = random.Random(3)
    rows = []
    for _ in range(400):
        # Few moments, so that some items have several rows at one.
        since = MIDNIGHT - 10 * rng.randrange(-1, 9) * DAY - timedelta(microseconds=rng.choice([0, 1]))
        landing = since.date() + rng.choice([0, 0, 1, 30]) * DAY
        brand, price = rng.choice(["x", "y", "Z", "é", None]), rng.choice([1, 2, -3, None])
        rows.append(Row(f"item {rng.randrange(30)}", since, landing, brand, price))
    write(tables, rows)
    for as_of in (AS_OF, AS_OF - 40 * DAY):
        midnight = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)
        for known_at in (midnight, midnight + timedelta(hours=1), midnight + 20 * DAY):
            expected = plain(rows, as_of, known_at)
            assert held(tables, config, as_of, known_at) == expected
            assert 10 < len(expected) <= 30


def test_of_two_rows_at_one_moment_the_later_landing_and_then_the_greater_values_count(
    tables: Tables, config: Any
) -> None:
    since, early, late = MIDNIGHT - 9 * DAY, date(2024, 6, 20), date(2024, 6, 25)
    rows = [
        Row("landed later", since, early, "z", 9), Row("landed later", since, late, "a", 1),
        Row("greater brand", since, late, "a", 9), Row("greater brand", since, late, "b", 1),
        Row("greater price", since, late, "a", 1), Row("greater price", since, late, "a", 2),
        Row("null is least", since, late, None, 9), Row("null is least", since, late, "a", None),
        Row("null price", since, late, "a", None), Row("null price", since, late, "a", -8),
    ]  # fmt: skip
    for ordered in (rows, rows[::-1]):
        write(tables, ordered)
        assert held(tables, config) == {
            "landed later": ("a", 0.25),
            "greater brand": ("b", 0.25),
            "greater price": ("a", 0.5),
            "null is least": ("a", None),
            "null price": ("a", -2.0),
        }


@pytest.mark.any_engine
def test_an_item_without_attributes_has_no_row(tables: Tables, config: Any) -> None:
    with pytest.raises(TableError, match="run the ingest job first"):
        held(tables, config)
    write(tables, [Row("known", MIDNIGHT - DAY, date(2024, 6, 30), "x", 1), Row("to come", MIDNIGHT, AS_OF, "x", 1)])
    seen = tables.spark.createDataFrame([("known",), ("to come",), ("only seen",)], "item STRING")
    joined = seen.join(items_as_of(tables, config.item_logs, AS_OF, MIDNIGHT), "item", "left").collect()
    assert {row["item"]: row["brand"] for row in joined} == {"known": "x", "to come": None, "only seen": None}


@pytest.mark.any_engine
def test_attributes_of_several_logs_of_items_are_those_of_each(tables: Tables, configure: Any, landed: Path) -> None:
    shelves = {
        "item": {"column": "sku"},
        "event_time": {"column": "since", "format": "iso8601"},
        "categorical": [{"name": "shelf", "column": "shelf"}],
    }
    (landed / "shelves").mkdir()
    config = configure(
        {"catalogue": item_log(landed / "catalogue"), "shelves": item_log(landed / "shelves", fields=shelves)}
    )
    (landed / "catalogue" / "2024-01-01.csv").write_text(HEADER + "a,2023-12-01,acme,1.25\nb,2023-12-01,acme,2\n")
    (landed / "shelves" / "2024-01-01.csv").write_text("sku,since,shelf\na,2023-12-05,top\nc,2023-12-01,low\n")
    with record(tables, "ingest", {}) as run:
        for name in config.item_logs:
            run.add(ingest(tables, config, run.id, name=name))
    assert run.counts["shelves accepted"] == 2
    rows = items_as_of(tables, config.item_logs, AS_OF, MIDNIGHT).select("item", "brand", "price", "shelf").collect()
    assert sorted(map(tuple, rows)) == [("a", "acme", 1.25, "top"), ("b", "acme", 2.0, None), ("c", None, None, "low")]
    # A landing that is there already is not ingested again.
    again = ingest(tables, config, "again", name="shelves")
    assert again.counts["rows_read"] == 0


@pytest.mark.any_engine
def test_items_leave_events_and_snapshots_as_they_are(tables: Tables, config: Any, landed: Path) -> None:
    lines = [f"{user},2024-06-{day}T00:00:00,a,1" for user, day in itertools.product((1, 2), (10, 20))]
    (landed / "main" / "2024-06-21.csv").write_text("user,time,mcc,amount\n" + "\n".join(lines) + "\n")
    (landed / "catalogue" / "2024-06-01.csv").write_text(HEADER + "a,2024-05-01,acme,1\n")
    options = Namespace(landing=[], all=False, log=[])
    with record(tables, "ingest", {}) as run:
        job.stage(tables, config, options, run)
    assert (run.counts["main accepted"], run.counts["catalogue accepted"]) == (4, 1)
    assert "source" not in tables.read("events").columns
    vocabulary = fit_vocabulary(tables, config)
    assert list(vocabulary.sizes) == ["mcc"]
    aggregate_snapshot(tables, config, AS_OF, run_id())
    assert stale_snapshots(tables, config, ["catalogue 2024-06-01", "catalogue bulk"]) == []
    assert [s.as_of for s in stale_snapshots(tables, config, ["2024-06-21"])] == [AS_OF]


def test_what_a_log_of_items_cannot_say_is_refused(configure: Any, landed: Path) -> None:
    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(ConfigError, match=message):
            configure(**changes)

    fields = item_log(landed)["fields"]
    refused(r"logs\.catalogue: unknown kind 'item'; .*did you mean 'items'", kind="item")
    refused(
        r"logs\.catalogue\.fields\.user_id: unknown key; expected one of .*'item'",
        fields=fields | {"user_id": {"column": "user", "type": "string"}},
    )
    refused(r"logs\.catalogue\.fields\.item: required", fields={k: v for k, v in fields.items() if k != "item"})
    refused(r"attributes of no field", fields=fields | {"categorical": [], "numeric": []})
    own = fields | {"categorical": [{"name": "valid_from", "column": "x"}]}
    refused(r"'valid_from' is a name of gur_spark's own", fields=own)
    refused(r"has a separator", fields=fields | {"categorical": [{"name": "brand", "column": "b", "separator": "|"}]})
    refused(r"logs\.catalogue\.dedupe\.key: 'sku' is not a column", dedupe={"policy": "key", "key": ["sku"]})
    with pytest.raises(ConfigError, match=r"'brand' is a field of catalogue, too"):
        configure({"catalogue": item_log(landed), "other": item_log(landed)})


@pytest.mark.any_engine
def test_a_table_without_a_declared_attribute_is_refused(tables: Tables, configure: Any, landed: Path) -> None:
    write(tables, [Row("a", MIDNIGHT - DAY, date(2024, 6, 30), "x", 1)])
    (landed / "catalogue" / "2024-01-01.csv").write_text("sku,since,colour\na,2023-12-01,red\n")
    fields = item_log(landed)["fields"] | {"categorical": [{"name": "colour", "column": "colour"}], "numeric": []}
    with pytest.raises(TableError, match="has no column colour: it was made before"):
        ingested(tables, configure(fields=fields))


def joined(configure: Any, landed: Path, **changes: Any) -> Any:
    """The pipeline whose events have a field ``sku`` and take the item's brand and price."""
    more = {key: changes.pop(key) for key in ("dedupe",) if key in changes}
    join = {"log": "catalogue", "on": "sku", "take": ["price", "brand"], **changes}
    fields = {"categorical": [{"name": "sku", "column": "sku"}]}
    return configure({"catalogue": item_log(landed / "catalogue")}, fields=fields, join=join, **more)


def test_events_take_what_held_of_their_item_at_their_time(tables: Tables, configure: Any, landed: Path) -> None:
    rng = random.Random(5)
    catalogue, events = ["sku,since,brand,price"], ["user,time,sku,amount"]
    rows = []
    for _ in range(60):
        day, brand, price = rng.randrange(1, 29), rng.choice(["x", "y", ""]), rng.choice(["1", "2.5", ""])
        rows.append((f"s{rng.randrange(8)}", f"2024-02-{day:02d}", brand, price))
        catalogue.append(",".join(rows[-1]))
    expected = []
    for user in range(80):
        sku, time = rng.choice(["s0", "s1", "s2", "unheard of", ""]), f"2024-02-{rng.randrange(1, 29):02d}"
        events.append(f"{user},{time},{sku},{user}")
        # Two rows may be valid from one moment: the greater values count, and null is the least.
        held = sorted(
            (since, brand, float(price or "-inf"))
            for item, since, brand, price in rows
            if item == sku and since <= time
        )
        brand, price = held[-1][1:] if held else ("", float("-inf"))
        expected.append((user, sku or None, brand or None, None if price < 0 else round(price * 4), user * 100))
    (landed / "catalogue" / "2024-03-01.csv").write_text("\n".join(catalogue))
    (landed / "main" / "2024-03-01.csv").write_text("\n".join(events))
    config = joined(configure, landed)
    assert config.categorical == ["sku", "brand"]
    assert config.ingest_order == ["catalogue", "main"]
    with pytest.raises(TableError, match="there is no table items yet: run ingest --log catalogue"):
        ingest(tables, config, run_id())
    ingested(tables, config)
    run = ingest(tables, config, run_id())
    found = tables.read("events").select("user_id", "sku", "brand", "price", "amount").collect()
    assert sorted(map(tuple, found)) == expected
    without = sum(1 for _, sku, brand, price, _ in expected if sku and brand is None and price is None)
    assert run.counts["rows_without_catalogue"] == without
    assert 0 < without < 80


@pytest.mark.any_engine
def test_rows_of_items_that_landed_after_an_event_count_only_where_the_join_says_so(
    tables: Tables, configure: Any, landed: Path
) -> None:
    (landed / "main" / "2024-01-04.csv").write_text("user,time,sku,amount\n1,2024-01-03,s,1\n")
    (landed / "catalogue" / "2024-01-10.csv").write_text(HEADER + "s,2024-01-01,acme,1.25\n")
    config = joined(configure, landed)
    ingested(tables, config)
    ingest(tables, config, run_id())
    assert [row.brand for row in tables.read("events").collect()] == [None]
    ingest(tables, joined(configure, landed, late=True), run_id())
    assert [(row.brand, row.price) for row in tables.read("events").collect()] == [("acme", 5)]


@pytest.mark.any_engine
def test_events_are_ingested_again_where_a_field_that_they_take_changed(
    tables: Tables, make_config: Any, configure: Any, landed: Path
) -> None:
    (landed / "main" / "2024-01-04.csv").write_text("user,time,sku,amount\n1,2024-01-03,s,1\n")
    (landed / "catalogue" / "2024-01-02.csv").write_text(HEADER + "s,2024-01-01,acme,1.25\n")
    config = joined(configure, landed)
    ingest_job(tables, config)
    assert ingest_job(tables, config).inputs == {}
    fields = item_log(landed / "catalogue")["fields"] | {
        "numeric": [{"name": "price", "column": "price", "step": 0.05}]
    }
    logs = {"catalogue": item_log(landed / "catalogue", fields=fields)}
    join = {"log": "catalogue", "on": "sku", "take": ["price", "brand"]}
    main = {"fields": {"categorical": [{"name": "sku", "column": "sku"}]}, "join": join}
    ingest_job(tables, configure(logs, **main))
    assert [row.price for row in tables.read("events").collect()] == [25]


def ingest_job(tables: Tables, config: Any) -> Any:
    """Run the job; returns its run."""
    with record(tables, "ingest", {}) as run:
        job.stage(tables, config, Namespace(landing=[], all=False, log=[]), run)
    return run


@pytest.mark.any_engine
def test_a_join_that_fits_no_log_is_refused(configure: Any, landed: Path) -> None:
    for changes, message in {
        "log": ({"log": "catalog"}, "join.log: no log 'catalog' of kind items.*mean 'catalogue'"),
        "on": ({"on": "skus"}, "join.on: no category 'skus'.*mean 'sku'"),
        "take": ({"take": ["brands"]}, "join.take: no field 'brands' of items.*mean 'brand'"),
        "own": ({"take": ["amount"]}, "join.take: no field 'amount'"),
        "twice": ({"take": ["brand", "brand"]}, "join.take: 'brand' is named twice"),
    }.values():
        with pytest.raises(ConfigError, match=message):
            joined(configure, landed, **changes)
    with pytest.raises(ConfigError, match=r"dedupe\.key: 'brand' is not an event column"):
        joined(configure, landed, dedupe={"policy": "key", "key": ["brand"]})
