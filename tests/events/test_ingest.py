"""Fate of every kind of raw row and file, and the guarantees of killed and repeated runs."""

import gzip
from argparse import Namespace
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gur_spark import schema
from gur_spark.config.file import load_config
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError, SourceError, TooManyBadRows
from gur_spark.events import staging
from gur_spark.events.blocks import raw_blocks
from gur_spark.events.ingest import FATES, ingest
from gur_spark.events.json_rows import MetKeys
from gur_spark.events.ranges import Range
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account, Run, record
from jobs import ingest as job
from tests.beside import Begun, Ended
from tests.conftest import BASE

pytestmark = pytest.mark.both_engines

FIELDS = BASE["fields"]
HEADER = "user,time,mcc,amount\n"
D1, D2, D3 = "2024-01-01", "2024-01-02", "2024-01-03"


@pytest.fixture
def landed(tmp_path: Path) -> Path:
    """The source's folder."""
    folder = tmp_path / "landed"
    folder.mkdir()
    return folder


@pytest.fixture
def configure(make_config: Any, landed: Path) -> Any:
    """``configure({"dedupe": {"policy": "exact"}})``: a config over the source's folder."""

    def make(changes: dict[str, Any] | None = None, **source: Any) -> Config:
        values = {"source": {"path": str(landed), **source}, **(changes or {})}
        made: Config = make_config(values)
        return made

    return make


def land(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def go(tables: Tables, config: Config, **options: Any) -> Account:
    """A run without a row in ``runs``, so the next run takes every landing for a new one."""
    return ingest(tables, config, uuid4().hex, **options)


def go_on_record(tables: Tables, config: Config, **options: Any) -> Run:
    with record(tables, "ingest", {}) as run:
        run.add(ingest(tables, config, run.id, **options))
    return run


def fates(run: Any) -> tuple[int, ...]:
    """Counts (rows read, accepted, deduplicated, filtered, quarantined)."""
    return tuple(run.counts[f] for f in ("rows_read", "accepted", "deduplicated", "filtered", "quarantined"))


def events(tables: Tables, *columns: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in tables.read("events").select(*columns or ("*",)).collect())


def quarantine(tables: Tables) -> list[tuple[Any, ...]]:
    rows = tables.read("quarantine").collect()
    return sorted(
        ((str(r["landed_on"]), Path(r["source_file"]).name, r["reason"], r["field"], r["raw"]) for r in rows), key=str
    )


BAD_ROWS = [
    # raw row, reason, field
    ("1,2024-01-01 10:00,a", "ragged_row", None),
    ("1,2024-01-01 10:00,a,1,2,3", "ragged_row", None),
    ('1,2024-01-01 10:00,"a,1,x', "unbalanced_quote", None),
    (b"1,2024-01-01 10:00,\xff,1,x", "invalid_utf8", None),
    ("1,2024-01-01 10:00,a\0b,1,x", "nul_byte", None),
    (",2024-01-01 10:00,a,1,x", "null_user", "user_id"),
    ("  ,2024-01-01 10:00,a,1,x", "null_user", "user_id"),
    ("1.5,2024-01-01 10:00,a,1,x", "bad_user_id", "user_id"),
    ("NaN,2024-01-01 10:00,a,1,x", "bad_user_id", "user_id"),
    ("9223372036854775808,2024-01-01 10:00,a,1,x", "bad_user_id", "user_id"),
    ("1" * 60 + ",2024-01-01 10:00,a,1,x", "too_long", "user_id"),
    ("1,,a,1,x", "bad_time", "event_time"),
    ("1,12:30,a,1,x", "bad_time", "event_time"),
    ("1,2024-02-30 10:00,a,1,x", "bad_time", "event_time"),
    ("1,1704067200,a,1,x", "bad_time", "event_time"),
    ("1,2024-03-31T01:30:00,a,1,x", "dst_gap", "event_time"),
    ("1,0001-01-01,a,1,x", "time_out_of_bounds", "event_time"),
    ("1,9999-12-31T23:59:59Z,a,1,x", "time_out_of_bounds", "event_time"),
    ("1,1959-12-31 23:59,a,1,x", "time_out_of_bounds", "event_time"),
    ("1,2024-01-01 10:00," + "m" * 51 + ",1,x", "too_long", "mcc"),
    ("1,2024-01-01 10:00,a,NaN,x", "not_a_number", "amount"),
    ("1,2024-01-01 10:00,a,-Infinity,x", "not_a_number", "amount"),
    ("1,2024-01-01 10:00,a,5d,x", "not_a_number", "amount"),
    ('1,2024-01-01 10:00,a,"1,000",x', "not_a_number", "amount"),
    ("1,2024-01-01 10:00,a,1e400,x", "number_out_of_range", "amount"),
    ("1,2024-01-01 10:00,a,-1e15,x", "number_out_of_range", "amount"),
    # The first reason wins: the user comes before the time and the amount.
    ("x,y,z,w,v", "bad_user_id", "user_id"),
]
GOOD_ROWS = [
    # raw row, user, event time, mcc, amount in steps of 0.01
    ("1,2024-01-01 10:00,a,1,x", 1, "2024-01-01 10:00:00", "a", 100),
    ('17850.0,2024-07-01T10:00:00,"a ""b"", c",-1.50,x', 17850, "2024-07-01 09:00:00", 'a "b", c', -150),
    ("2,2024-07-01T10:00:00.123456+02:00,, ,x", 2, "2024-07-01 08:00:00.123456", None, None),
    ("-3,1960-02-01, é ,1e2,x", -3, "1960-02-01 00:00:00", " é ", 10000),
    # Half to even, also a hair beside the half.
    ("4,2024-01-01,a,0.005,x", 4, "2024-01-01 00:00:00", "a", 0),
    ("5,2024-01-01,a,0.015,x", 5, "2024-01-01 00:00:00", "a", 2),
    ("6,2024-01-01,a,0.00500000000000001,x", 6, "2024-01-01 00:00:00", "a", 1),
    ("7,2024-01-01,a,-0.025,x", 7, "2024-01-01 00:00:00", "a", -2),
]


def test_every_bad_row_is_quarantined_with_its_reason_and_every_good_row_is_read(
    tables: Tables, configure: Any, landed: Path
) -> None:
    lines = [row if isinstance(row, bytes) else row.encode() for row, *_ in (*BAD_ROWS, *GOOD_ROWS)]
    # A byte order mark, Windows line ends, a blank line at the end, an extra column, megabytes in one value.
    huge = b"1,2024-01-01 10:00," + b"m" * 1_000_000 + b"," + b"9" * 1_000_000 + b",x"
    content = b"\r\n".join([b"\xef\xbb\xbfuser,time,mcc,amount,extra", *lines, huge, b"", b""])
    land(landed, f"{D1}.csv", content)
    time = {"column": "time", "format": "iso8601", "time_zone": "Europe/London", "min": "1960-01-01"}
    config = configure(
        {"fields": {**FIELDS, "event_time": time}}, max_bad_share=1, max_value_chars=50, max_future_days=400
    )
    run = go(tables, config)
    found = quarantine(tables)
    assert all(row[:2] == (D1, f"{D1}.csv") for row in found)
    expected = [(r.decode(errors="replace") if isinstance(r, bytes) else r, *why) for r, *why in BAD_ROWS]
    short = [(raw, reason, field) for *_, reason, field, raw in found if len(raw) < 1000]
    assert sorted(short, key=str) == sorted(expected, key=str)
    assert [(len(raw), reason, field) for *_, reason, field, raw in found if len(raw) >= 1000] == [
        (len(huge), "too_long", "mcc")
    ]
    good = [(user, datetime.fromisoformat(time), mcc, amount) for _, user, time, mcc, amount in GOOD_ROWS]
    assert events(tables, "user_id", "event_time", "mcc", "amount") == sorted(good)
    assert fates(run) == (len(lines) + 1, len(GOOD_ROWS), 0, 0, len(BAD_ROWS) + 1)
    assert run.counts["rounded_amount"] == 4


@pytest.mark.parametrize("delimiter", [",", "|", "\t", "^"])
def test_a_line_reads_the_same_with_and_without_quotes(delimiter: str, configure: Any, landed: Path) -> None:
    config = configure(delimiter=delimiter)
    rows = [["1", "b", "a", "1"], ["2", "", "", ""], [" 3 ", " b", "a ", "1"], ["4", "b", "a"], [*"5bacd"], ["6"]]

    def read(name: str, lines: list[str]) -> list[Any]:
        file = land(landed, name, "\n".join([HEADER.strip().replace(",", delimiter), *lines]))
        return split(file, config)

    plain = read(f"{D1}.csv", [delimiter.join(row) for row in rows])
    quoted = read(f"{D2}.csv", [delimiter.join([f'"{row[0]}"', *row[1:]]) for row in rows])
    assert len(plain) == len(rows)
    assert plain == quoted


def split(file: Path, config: Config) -> list[tuple[str | None, ...]]:
    """Problem and texts of each line."""
    whole, found = Range(file=0, start=0, end=None), []
    for rows in raw_blocks(str(file), whole, config, MetKeys()):
        columns = [rows.problem, *rows.texts.values()]
        found += zip(*(column.to_pylist() for column in columns), strict=True)
    return found


QUOTED = [
    # line, its three values (empty is null), or None: ragged
    ('"1",b,c', ("1", "b", "c")),
    ('2,"",c', ("2", None, "c")),
    ('3,"b""c",d', ("3", 'b"c', "d")),
    ('4,"b,c",d', ("4", "b,c", "d")),
    ('5, "b" ,c', ("5", ' "b" ', "c")),
    ('6,b"c"d,e', ("6", 'b"c"d', "e")),
    ('7,"b" ,c', ("7", "b", "c")),
    ('8,"b"x,c', ("8", '"b"x', "c")),
    ('9,"""",c', ("9", '"', "c")),
    ('10,""b"",c', ("10", '""b""', "c")),
    ('11,"  ","c"', ("11", "  ", "c")),
    ('"12","b"', None),
    ('"13",b,c,d', None),
]


def test_a_line_with_quotes_is_split_as_spark_splits_it(configure: Any, landed: Path) -> None:
    file = land(landed, f"{D1}.csv", "\n".join(["user,time,mcc", *(line for line, _ in QUOTED)]))
    fields = {"categorical": [{"name": "mcc", "column": "mcc"}], "numeric": []}
    config = configure({"fields": {**FIELDS, **fields}})
    found = [None if problem else tuple(texts) for problem, *texts in split(file, config)]
    assert found == [values for _, values in QUOTED]


@pytest.mark.any_engine
def test_a_job_names_the_snapshots_that_its_landings_make_stale(
    tables: Tables, make_config: Any, landed: Path, tmp_path: Path, caplog: Any
) -> None:
    make_config({"source": {"path": str(landed)}})
    config = load_config(tmp_path / "pipeline.yaml")
    for landing in (D1, D2):
        land(landed, f"{landing}.csv", f"{HEADER}1,{landing},a,1\n")
    go_on_record(tables, config)
    fit_vocabulary(tables, config)
    later = datetime(2024, 1, 3, 12, tzinfo=UTC)
    for known_at in (None, later):
        aggregate_snapshot(tables, config, date(2024, 1, 2), f"a{known_at is None}", known_at=known_at)
    tables.create("published", schema.PUBLISHED)
    switch = (config.name, "gur-1", date(2024, 1, 2), ["embeddings"], later, "test", "test")
    tables.append(tables.spark.createDataFrame([switch], schema.PUBLISHED), "published")

    def stale(landing: str) -> tuple[str | None, str | None]:
        land(landed, f"{landing}.csv", f"{HEADER}1,{landing},b,2\n")
        with record(tables, "ingest", {}) as run:
            job.stage(tables, config, Namespace(landing=[], all=False, log=[]), run)
        return run.outputs.get("stale snapshots"), run.outputs.get("stale published")

    again = "aggregate --as-of 2024-01-02 --known-at 2024-01-03T12:00:00.000000"
    assert stale(D3) == (again, None)
    assert stale(D1) == (f"aggregate --as-of 2024-01-02; {again}", "gur-1 at 2024-01-02")
    assert any("aggregate --as-of 2024-01-02" in message for message in caplog.messages)


def test_files_are_read_by_column_name_and_a_broken_file_is_quarantined_as_a_file(
    tables: Tables, configure: Any, landed: Path
) -> None:
    land(landed, f"{D1}/a.csv", HEADER + f"1,{D1},a,1\n")
    land(landed, f"{D1}/reordered.csv", f"amount,extra,mcc,time,user\n2,z,b,{D1},2\n")
    land(landed, f"{D1}/empty.csv", "")
    land(landed, f"{D1}/header_only.csv", HEADER)
    land(landed, f"{D1}/lacks_mcc.csv", f"user,time,amount\n1,{D1},1\n")
    land(landed, f"{D1}/_hidden.csv", "not,a,log\n")
    whole = gzip.compress(HEADER.encode() + b"".join(f"{n},{D2},c,{n}\n".encode() for n in range(20_000)))
    land(landed, f"{D2}.csv.gz", gzip.compress(f"{HEADER}3,{D2},c,3\n".encode()))
    land(landed, f"truncated {D2} [1].csv.gz", whole[: len(whole) // 2])
    with pytest.raises(TooManyBadRows, match=r"2 of 7 files cannot be used, 99.\d% of the bytes.*\n.*lacks_mcc"):
        go(tables, configure())
    assert not tables.exists("events")
    run = go_on_record(tables, configure(max_bad_share=1))
    assert events(tables, "user_id", "landed_on", "mcc", "amount") == [
        (1, date(2024, 1, 1), "a", 100),
        (2, date(2024, 1, 1), "b", 200),
        (3, date(2024, 1, 2), "c", 300),
    ]
    lacks = "column 'mcc' is not there; available: ['user', 'time', 'amount']"
    found = quarantine(tables)
    assert found[:2] == [
        (D1, "empty.csv", "empty_file", None, None),
        (D1, "lacks_mcc.csv", "missing_column", "mcc", lacks),
    ]
    assert found[2][:4] == (D2, f"truncated {D2} [1].csv.gz", "broken_file", None)
    [row] = tables.read("runs").where("status != 'failed'").collect()
    assert row.status == "succeeded with losses"
    assert "lacks_mcc.csv was not read: missing_column" in row.error
    assert fates(run) == (3, 3, 0, 0, 0)
    assert (run.counts["files"], run.counts["files_quarantined"]) == (7, 3)


def test_a_landing_that_vanishes_after_the_listing_leaves_its_events_and_comes_back(
    tables: Tables, configure: Any, landed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(landed, f"{D1}.csv", f"{HEADER}1,{D1},a,1\n")
    second = land(landed, f"{D2}.csv", f"{HEADER}2,{D2},b,2\n")
    go(tables, configure())
    content = second.read_bytes()
    read = staging.read_files

    def vanish(*args: Any) -> Any:
        second.unlink(missing_ok=True)
        return read(*args)

    monkeypatch.setattr(staging, "read_files", vanish)
    before = events(tables)
    with pytest.raises(SourceError, match=rf"no file of landing {D2} can be used.*\n.*{D2}.csv was not read: vanished"):
        go(tables, configure(), everything=True)
    assert (events(tables), quarantine(tables)) == (before, [])
    monkeypatch.setattr(staging, "read_files", read)
    second.write_bytes(content)
    go(tables, configure(), everything=True)
    assert (events(tables), quarantine(tables)) == (before, [])


@pytest.mark.any_engine
def test_only_new_or_changed_landings_are_read_and_a_landing_is_replaced_whole(
    tables: Tables, configure: Any, landed: Path
) -> None:
    config = configure({"dedupe": {"policy": "exact"}})
    land(landed, f"{D1}.csv", f"{HEADER}1,{D1},a,1\n1,{D1},a,1\nx,{D1},a,1\n" + f"9,{D1},a,9\n" * 30)
    assert fates(go_on_record(tables, config)) == (33, 2, 30, 0, 1)
    assert fates(go_on_record(tables, config)) == (0, 0, 0, 0, 0)
    # The same file under the next date, with one more event: only that one is added.
    land(landed, f"{D2}.csv", f"{HEADER}1,{D1},a,1\n2,{D2},b,2\n9,{D1},a,9\n")
    assert fates(go_on_record(tables, config)) == (3, 1, 2, 0, 0)
    both = events(tables, "user_id", "landed_on", "amount")
    assert both == [(1, date(2024, 1, 1), 100), (2, date(2024, 1, 2), 200), (9, date(2024, 1, 1), 900)]
    # Each landing gives again exactly what it gave.
    for again in (1, 2):
        go_on_record(tables, config, landings=[date(2024, 1, again)])
        assert events(tables, "user_id", "landed_on", "amount") == both
    # Delivered again with other content: the rows of that landing are the new ones, good and bad.
    land(landed, f"{D1}.csv", f"{HEADER}1,{D1},a,7\n")
    assert fates(go_on_record(tables, config)) == (1, 1, 0, 0, 0)
    assert events(tables, "user_id", "landed_on", "amount") == [(1, date(2024, 1, 1), 700), (2, date(2024, 1, 2), 200)]
    assert quarantine(tables) == []


@pytest.mark.any_engine
def test_among_equal_keys_the_first_landing_wins_and_then_the_least_row(
    tables: Tables, configure: Any, landed: Path
) -> None:
    config = configure({"dedupe": {"policy": "key", "key": ["user_id", "event_time"]}})
    land(landed, f"{D2}.csv", f"{HEADER}1,{D1},z,9\n1,{D1},b,5\n1,{D1},b,4\n1,{D2},,\n")
    assert fates(go_on_record(tables, config)) == (4, 2, 2, 0, 0)
    land(landed, f"{D3}.csv", f"{HEADER}1,{D1},a,1\n2,{D3},a,1\n")
    assert fates(go_on_record(tables, config)) == (2, 1, 1, 0, 0)
    columns = ("user_id", "landed_on", "mcc", "amount")
    expected = {(1, date(2024, 1, 2), "b", 400), (1, date(2024, 1, 2), None, None), (2, date(2024, 1, 3), "a", 100)}
    assert set(tables.read("events").select(*columns).collect()) == expected
    assert tables.version("quarantine") == 0, "nothing to quarantine: no commit after its creation"


@pytest.mark.any_engine
def test_above_the_allowed_share_of_bad_rows_nothing_is_visible_and_the_message_helps(
    tables: Tables, configure: Any, landed: Path
) -> None:
    seconds = {"fields": {**FIELDS, "event_time": {"column": "time", "format": "epoch_s"}}}
    land(landed, f"{D1}.csv", HEADER + "1,1704103200000,a,1\n" * 9 + "1,x,a,1\n")
    with pytest.raises(TooManyBadRows) as refused:
        go_on_record(tables, configure(seconds))
    assert str(refused.value).splitlines() == [
        "10 of 10 rows are bad (100.0%); source.max_bad_share allows 5.0%; nothing was written",
        "  9 x time_out_of_bounds in event_time, such as: '1,1704103200000,a,1'; "
        "accepted from fields.event_time.min, 1990-01-01, until fields.event_time.max, 2100-01-01",
        "  the values of 'time' look like epoch_ms; fields.event_time.format is epoch_s",
        "  1 x bad_time in event_time, such as: '1,x,a,1'; 'time' is read by fields.event_time.format epoch_s",
    ]
    assert not tables.exists("events")
    assert not tables.exists("quarantine")
    assert not Path(tables.folder("_staging")).exists() or not list(Path(tables.folder("_staging")).iterdir())
    [row] = tables.read("runs").collect()
    assert (row.status, row.counts) == ("failed", {**dict.fromkeys(FATES, 0), "files": 1, "files_quarantined": 0})
    milliseconds = {"fields": {**FIELDS, "event_time": {"column": "time", "format": "epoch_ms"}}}
    go_on_record(tables, configure(milliseconds, max_bad_share=0.1))
    assert events(tables, "event_time")[0] == (datetime(2024, 1, 1, 10),)  # noqa: DTZ001 (Spark's naive UTC)


def test_a_run_killed_between_its_two_commits_and_made_again_loses_and_doubles_nothing(
    tables: Tables, configure: Any, landed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(max_bad_share=1)
    land(landed, f"{D1}.csv", f"{HEADER}1,{D1},a,1\nx,{D1},a,1\n")
    go(tables, config)
    land(landed, f"{D1}.csv", f"{HEADER}2,{D1},a,1\ny,{D1},a,1\nz,{D1},a,1\n")
    kind = type(tables)
    really = kind.replace

    def killed(self: Tables, frame: Any, table: str, predicate: str) -> None:
        if table == "events":
            raise KeyboardInterrupt
        really(self, frame, table, predicate)

    monkeypatch.setattr(kind, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        go(tables, config)
    assert events(tables, "user_id") == [(1,)]
    monkeypatch.setattr(kind, "replace", really)
    assert fates(go(tables, config)) == (3, 1, 0, 0, 2)
    assert events(tables, "user_id") == [(2,)]
    assert [raw for *_, raw in quarantine(tables)] == [f"y,{D1},a,1", f"z,{D1},a,1"]


DERIVED = {
    "user_id": {"column": "customer", "type": "string"},
    "event_time": {"column": "when", "format": "dd/MM/yyyy HH:mm"},
    "categorical": [
        {"name": "direction", "column": "quantity", "sign": True},
        {"name": "kind", "column": "invoice", "prefixes": {"C": "cancellation"}, "otherwise": "sale"},
    ],
    "numeric": [
        {"name": "amount", "column": "quantity", "times": "price", "step": 0.25},
        {"name": "log_price", "column": "price", "step": 0.001, "transform": "signed_log1p"},
        {"name": "thousands", "column": "price", "step": 1000},
    ],
}


def test_filters_derived_categories_products_and_transforms_of_a_headerless_latin_1_bulk_load(
    tables: Tables, configure: Any, landed: Path
) -> None:
    filters = [
        {"column": "customer", "keep": "not_blank"},
        {"column": "invoice", "keep": "not_in", "values": ["test"]},
        {"column": "country", "keep": "in", "values": ["fr", "dé"]},
    ]
    rows = [
        "ann;24/12/2023 18:30;C1;-3;1.3;fr",
        "bob;24/12/2023 18:30;1;0;-2500;dé",
        "cid;24/12/2023 18:30;C1;-3;;fr",
        ";24/12/2023 18:30;1;1;1;fr",
        "dan;24/12/2023 18:30;test;x;1;fr",
        "eve;24/12/2023 18:30;1;1;1;uk",
        "fay;24/12/2023 18:30;1;x;1;fr",
    ]
    land(landed, "log.csv", "\n".join(rows).encode("latin-1"))
    config = configure(
        {"fields": DERIVED, "filters": filters},
        layout="bulk",
        delimiter=";",
        encoding="latin-1",
        max_bad_share=1,
        columns=["customer", "when", "invoice", "quantity", "price", "country"],
    )
    for _ in range(2):
        run = go(tables, config, everything=True)
        # -3.9 is 15.6 steps of 0.25; ln(2.3) is 0.833; -2.5 thousands round to the even -2.
        time, day = datetime(2023, 12, 24, 18, 30), date(2023, 12, 24)  # noqa: DTZ001 (Spark's naive UTC)
        assert tables.read("events").orderBy("user_id").collect() == [
            ("ann", time, day, "negative", "cancellation", -16, 833, 0),
            ("bob", time, day, "zero", "sale", 0, -7824, -2),
            ("cid", time, day, "negative", "cancellation", None, None, None),
        ]
        assert quarantine(tables) == [("None", "log.csv", "not_a_number", "direction", rows[-1])]
        assert fates(run) == (7, 3, 0, 3, 1)
        assert [run.counts[f"rounded_{n}"] for n in ("amount", "log_price", "thousands")] == [1, 0, 2]


def test_json_lines_parquet_and_delta_give_the_events_that_csv_gives(
    tables: Tables, configure: Any, tmp_path: Path, spark: Any
) -> None:
    folders = {name: tmp_path / name for name in ("csv", "jsonl", "parquet", "delta")}
    land(folders["csv"], f"{D1}.csv", f'{HEADER}1,{D1}T10:00:00Z,"a",1.25\n2,{D1}T11:30:00Z,,\nx,{D1},b,1\n')
    land(
        folders["jsonl"],
        f"{D1}.jsonl",
        f'{{"user": 1, "time": "{D1}T10:00:00Z", "mcc": "a", "amount": 1.25, "other": [1]}}\n'
        f'{{"time": "{D1}T11:30:00Z", "user": "2", "mcc": null}}\n{{"user": "x", "time": "{D1}"}}\n{{"user": \n',
    )
    typed = spark.createDataFrame(
        [
            ("1", datetime(2024, 1, 1, 10, tzinfo=UTC), "a", 1.25),
            ("2", datetime(2024, 1, 1, 11, 30, tzinfo=UTC), None, None),
            ("x", datetime(2024, 1, 1, tzinfo=UTC), "b", 1.0),
        ],
        "user STRING, time TIMESTAMP, mcc STRING, amount DOUBLE",
    )
    typed.write.parquet(str(folders["parquet"] / D1))
    typed.write.format("delta").save(str(folders["delta"]))
    made, bad = {}, {}
    for name, folder in folders.items():
        layout = "bulk" if name == "delta" else "daily"
        config = configure(path=str(folder), format=name, layout=layout, max_bad_share=1)
        into = replace(tables, root=str(tmp_path / f"tables_{name}"))
        go(into, config)
        made[name] = events(into)
        bad[name] = [(reason, raw) for *_, reason, _, raw in quarantine(into)]
    assert made["csv"] == made["jsonl"] == made["parquet"] == made["delta"]
    assert [row[0] for row in made["csv"]] == [1, 2]
    typed_raw = '{"user": "x", "time": "2024-01-01T00:00:00.000000Z", "mcc": "b", "amount": "1"}'
    assert bad == {
        "csv": [("bad_user_id", f"x,{D1},b,1")],
        "jsonl": [("bad_user_id", f'{{"user": "x", "time": "{D1}"}}'), ("malformed_json", '{"user": ')],
        "parquet": [("bad_user_id", typed_raw)],
        "delta": [("bad_user_id", typed_raw)],
    }


@pytest.mark.any_engine
def test_a_mapping_that_fits_no_file_is_explained(tables: Tables, configure: Any, landed: Path) -> None:
    with pytest.raises(SourceError, match="expected csv files, found none"):
        go(tables, configure())
    file = land(landed, f"{D1}.csv", f"user,time,mccs,amount\n1,{D1},a,1\n")
    with pytest.raises(SourceError, match=r"column 'mcc' is not there; available: \['user', .*did you mean 'mccs'"):
        go(tables, configure())
    file.write_text(f"{HEADER}1,{D1},a,1\n")
    with pytest.raises(SourceError, match="landing 2024-01-02 is not in the source"):
        go(tables, configure(), landings=[date(2024, 1, 2)])
    odd = {"fields": {**FIELDS, "event_time": {"column": "time", "format": "jj/QQQ"}}}
    with pytest.raises(ConfigError, match=r"fields.event_time.*format: .* got 'jj/QQQ': 'jj' is no known part"):
        configure(odd)
    land(landed, "undated.csv", HEADER)
    with pytest.raises(SourceError, match=r"undated.csv' has no landing date"):
        go(tables, configure())


@pytest.mark.slow
def test_every_line_of_online_retail_is_accounted_for(
    spark: Any, real_data: Path, online_retail: "Begun[Ended]"
) -> None:
    root, ended = online_retail
    assert ended.result().returncode == 0, ended.result().stderr[-3000:]
    tables = Tables(spark=spark, root=str(root))
    [run] = tables.read("runs").collect()
    lines = sum(
        gzip.decompress(f.read_bytes()).count(b"\n") - 1 for f in (real_data / "online_retail").glob("*.csv.gz")
    )
    assert run.counts["rows_read"] == lines == 541_909
    assert sum(fates(run)[1:]) == lines
    assert tables.read("events").select("user_id").distinct().count() == 4_372
