"""Logs as people have them: each is read as it is meant, or refused with the cause; nothing is lost without a word."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from gur_spark.errors import ConfigError, SourceError, TooManyBadRows
from gur_spark.events import ranges, reading
from gur_spark.events.ingest import corrected_landings, ingest
from gur_spark.events.listing import list_files
from gur_spark.events.ranges import Range
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import record
from tests.conftest import BASE, config_over

pytestmark = pytest.mark.any_engine

FIELDS = BASE["fields"]
HEADER = "user,time,mcc,amount\n"
D1, D2 = "2024-03-01", "2024-03-02"


@pytest.fixture
def landed(tmp_path: Path) -> Path:
    folder = tmp_path / "landed"
    folder.mkdir()
    return folder


@pytest.fixture
def read(tables: Tables, make_config: Any, landed: Path) -> Any:
    """``read(source keys, fields=..., filters=...)``: ingest the folder; returns its events without ``landed_on``."""

    def run(source: dict[str, Any] | None = None, **more: Any) -> list[tuple[Any, ...]]:
        fields = {**FIELDS, **more.pop("fields", {})}
        config = make_config({"source": {"path": str(landed), **(source or {})}, "fields": fields, **more})
        with record(tables, "ingest", {}) as made:
            made.add(ingest(tables, config, made.id))
        run.last = made  # type: ignore[attr-defined]
        return sorted(map(tuple, tables.read("events").drop("landed_on").collect()), key=str)

    return run


def at(text: str) -> datetime:
    """A moment as Spark gives it, without a zone."""
    return datetime.fromisoformat(text)


def reasons(tables: Tables) -> list[tuple[str, str | None]]:
    return sorted((row.reason, row.field) for row in tables.read("quarantine").collect())


def jsonl(*rows: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, rows))


TYPED = {"mcc": "a", "amount": 1}


def test_a_key_that_no_row_has_is_refused_with_the_nearest_one(read: Any, landed: Path) -> None:
    rows = [{"user": n, "time": D1, "category": "a", "Amount": 1} for n in range(3)]
    (landed / f"{D1}.jsonl").write_text(jsonl(*rows))
    mistyped = {"categorical": [{"name": "mcc", "column": "categroy"}], "numeric": []}
    with pytest.raises(SourceError, match=r"no row of landing 2024-03-01 has the key 'categroy'.*mean 'category'"):
        read({"format": "jsonl"}, fields=mistyped)
    filtered = {"categorical": [{"name": "mcc", "column": "category"}], "numeric": []}
    with pytest.raises(SourceError, match="has the key 'contry'"):
        read({"format": "jsonl"}, fields=filtered, filters=[{"column": "contry", "keep": "not_blank"}])
    optional = {"categorical": [{"name": "mcc", "column": "categroy", "optional": True}], "numeric": []}
    assert [row[2] for row in read({"format": "jsonl"}, fields=optional)] == [None] * 3


def test_a_key_that_a_later_landing_lacks_is_a_loss_with_a_count(read: Any, landed: Path, tables: Tables) -> None:
    (landed / f"{D1}.jsonl").write_text(jsonl({"user": 1, "time": D1, **TYPED}))
    (landed / f"{D2}.jsonl").write_text(jsonl({"user": 2, "time": D2, "mcc": "a", "Amount": 2}))
    assert read({"format": "jsonl"}) == [(1, at(D1), "a", 100), (2, at(D2), "a", None)]
    assert read.last.counts["rows_without_amount"] == 1
    [row] = tables.read("runs").collect()
    assert row.status == "succeeded with losses"
    assert "no row of landing 2024-03-02 has the key 'amount'" in row.error
    # By itself, the day is refused, and tried again.
    (landed / f"{D2}.jsonl").write_text(jsonl({"user": 2, "time": D2, "mcc": "b", "Amount": 2}))
    with pytest.raises(SourceError, match="did you mean 'Amount'"):
        read({"format": "jsonl"})


def test_dotted_names_reach_into_objects_structs_and_maps(read: Any, landed: Path) -> None:
    dotted = {
        "user_id": {"column": "who.id", "type": "long"},
        "categorical": [{"name": "mcc", "column": "payload.shop.kind"}, {"name": "tag", "column": "tags.x"}],
        "numeric": [{"name": "amount", "column": "payload.amount", "step": 0.01}],
    }
    row = {"who.id": 5, "time": D1, "payload": {"shop": {"kind": "a"}, "amount": 1.25}, "tags": {"x": "t"}}
    (landed / f"{D1}.jsonl").write_text(jsonl(row, {"who": {"id": 6}, "time": D1, "payload": None, "tags": {}}))
    expected = [(5, at(D1), "a", "t", 125), (6, at(D1), None, None, None)]
    assert read({"format": "jsonl"}, fields=dotted) == expected
    (landed / f"{D1}.jsonl").unlink()
    columns = {
        "who.id": [5, 6],
        "time": [D1, D1],
        "payload": [row["payload"], None],
        "tags": pa.array([[("x", "t")], []], pa.map_(pa.string(), pa.string())),
    }
    pq.write_table(pa.table(columns), landed / f"{D1}.parquet")
    assert read({"format": "parquet"}, fields=dotted) == expected
    other = {**dotted, "numeric": [{"name": "amount", "column": "payload.amuont", "step": 0.01}]}
    with pytest.raises(SourceError, match=r"'payload' has no field 'amuont'.*did you mean 'amount'"):
        read({"format": "parquet"}, fields=other)


def test_several_objects_on_a_line_are_several_rows_and_half_a_character_is_none(
    read: Any, landed: Path, tables: Tables
) -> None:
    one = json.dumps({"user": 1, "time": D1, **TYPED})
    lines = [one + one.replace("1,", "2,", 1), one.replace("1,", "3,", 1), one + "{", one.replace('"a"', '"\\ud83d"')]
    (landed / f"{D1}.jsonl").write_text("\n".join(lines))
    assert [row[0] for row in read({"format": "jsonl", "max_bad_share": 0.5})] == [1, 1, 2, 3]
    assert reasons(tables) == [("lone_surrogate", None), ("malformed_json", None)]


def test_a_delta_folder_is_not_read_as_parquet(read: Any, landed: Path) -> None:
    write_deltalake(str(landed / "table"), pa.table({"user": [1]}))
    with pytest.raises(SourceError, match=r"landed/table' is a Delta table .*source.format 'delta'"):
        read({"format": "parquet", "layout": "bulk"})


def test_names_are_found_without_case_where_there_is_one_and_refused_where_there_are_two(
    read: Any, landed: Path
) -> None:
    (landed / f"{D1}.csv").write_text(f"User,TIME,mcc,Amount,MCC\n1,{D1},a,1,x\n")
    assert read() == [(1, at(D1), "a", 100)]
    (landed / f"{D1}.csv").write_text(f"User,USER,time,mcc,amount\n1,2,{D1},a,1\n")
    with pytest.raises(SourceError, match=r"column 'user' stands there 2 times: \['User', 'USER'\]"):
        read()


def test_another_delimiter_than_declared_is_named(read: Any, landed: Path) -> None:
    (landed / f"{D1}.csv").write_text(f"user;time;mcc;amount\n1;{D1};a;1\n")
    with pytest.raises(SourceError, match=r"the header is separated by ';', and source.delimiter is ','"):
        read()


def test_an_event_later_than_its_landing_is_from_the_future(read: Any, landed: Path, tables: Tables) -> None:
    rows = [f"{user},2024-03-0{user}T23:59:59Z,a,1\n" for user in (1, 2, 3, 4)]
    (landed / f"{D1}.csv").write_text(HEADER + "".join(rows))
    assert [row[0] for row in read({"max_bad_share": 0.5})] == [1, 2]
    assert reasons(tables) == [("from_the_future", "event_time")] * 2
    assert [row[0] for row in read({"max_future_days": 3})] == [1, 2, 3, 4]
    (landed / f"{D1}.csv").unlink()
    late = datetime.now(UTC).replace(year=datetime.now(UTC).year + 5)
    (landed / "all.csv").write_text(HEADER + f"1,{D1},a,1\n2,{late.isoformat()},a,1\n")
    read({"layout": "bulk", "max_bad_share": 0.5})
    assert reasons(tables) == [("from_the_future", "event_time")]


def test_any_name_works_as_a_field_and_as_a_column(read: Any, landed: Path) -> None:
    names = ["status", "raw", "uri", "reason", "problem", "file", "field"]
    fields = {
        "user_id": {"column": "landed_on", "type": "string"},
        "event_time": {"column": "source file", "format": "iso8601"},
        "categorical": [{"name": name, "column": f"ein {name}.é"} for name in names],
        "numeric": [{"name": "accepted", "column": "event_time", "step": 1}],
    }
    header = ",".join(["landed_on", "source file", *(f"ein {name}.é" for name in names), "event_time"])
    (landed / f"{D1}.csv").write_text(f"{header}\nann,{D1},{','.join(names)},7\n")
    assert read(fields=fields) == [("ann", at(D1), *names, 7)]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([UUID(int=1).bytes], pa.uuid()), str(UUID(int=1))),
        (pa.array([1], pa.time64("us")), "00:00:00.000001"),
        (pa.array([b"x"]), "x"),
        (pa.array([True]), "true"),
        (pa.array([12345678.0]), "12345678"),
        (pa.array(["001"]), "001"),
        (pa.array([["a"]]), "column 'mcc' has the type list<.*>, which is no single value"),
        (pa.array([1], pa.duration("s")), r"column 'mcc' has the type duration\[s\]; store it as a number"),
        (pa.array([b"\xff"]), "column 'mcc' has the type binary, and its values are no text"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_type_is_read_or_refused_by_name(read: Any, landed: Path, column: pa.Array, expected: str) -> None:
    pq.write_table(pa.table({"user": [1], "time": [D1], "mcc": column, "amount": [1]}), landed / f"{D1}.parquet")
    if " " not in expected:
        assert read({"format": "parquet"}) == [(1, at(D1), expected, 100)]
        return
    with pytest.raises(SourceError, match=rf"{D1}.parquet was not read: unreadable_type \({expected}"):
        read({"format": "parquet"})


def test_instants_of_the_old_parquet_type_are_read_inside_structs_too(read: Any, landed: Path) -> None:
    moment = datetime(2024, 3, 1, 4, 30, tzinfo=UTC)
    who = pa.array([{"id": 1, "at": moment}], pa.struct([("id", pa.int64()), ("at", pa.timestamp("us", "UTC"))]))
    rows = pa.table({"who": who, "mcc": ["a"], "amount": [1]})
    pq.write_table(rows, landed / f"{D1}.parquet", use_deprecated_int96_timestamps=True)
    dotted = {
        "user_id": {"column": "who.id", "type": "long"},
        "event_time": {"column": "who.at", "format": "iso8601", "time_zone": "Europe/Paris"},
    }
    assert read({"format": "parquet"}, fields=dotted) == [(1, moment.replace(tzinfo=None), "a", 100)]


def test_a_large_parquet_file_is_read_in_parts(read: Any, landed: Path, monkeypatch: Any) -> None:
    users = list(range(1000))
    rows = pa.table({"user": users, "time": [D1] * 1000, "mcc": ["a"] * 1000, "amount": users})
    pq.write_table(rows, landed / f"{D1}.parquet", row_group_size=70)
    # The session of these tests runs its workers in this process.
    monkeypatch.setattr(ranges, "RANGE_BYTES", 4096)
    source = config_over(landed, source={"path": str(landed), "format": "parquet"}).source
    assert len(ranges.ranges_of(list_files(source), source)) > 3
    assert [row[0] for row in sorted(read({"format": "parquet"}))] == users


def test_fields_of_avro_records_are_read_or_refused_by_name(read: Any, landed: Path, tables: Tables) -> None:
    inner = {"type": "record", "name": "payload", "namespace": "shop", "fields": [{"name": "sum", "type": "double"}]}
    fields = [
        {"name": "user", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "time", "type": {"type": "int", "logicalType": "date"}},
        {"name": "first", "type": inner},
        {"name": "again", "type": ["null", "shop.payload"]},
        {
            "name": "tags",
            "type": {"type": "map", "values": ["null", "boolean", {"type": "enum", "name": "e", "symbols": ["A"]}]},
        },
    ]
    rows: list[dict[str, Any]] = [
        {
            "user": UUID(int=1),
            "time": date(2024, 3, 1),
            "first": {"sum": 1},
            "again": {"sum": 2.5},
            "tags": {"x": True},
        },
        {"user": UUID(int=2), "time": date(2024, 3, 1), "first": {"sum": 1}, "again": None, "tags": {"y": "A"}},
    ]
    with (landed / f"{D1}.avro").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "event", "fields": fields}, rows)
    dotted = {
        "user_id": {"column": "user", "type": "string"},
        "categorical": [{"name": "x", "column": "tags.x"}, {"name": "y", "column": "tags.y"}],
        "numeric": [{"name": "amount", "column": "again.sum", "step": 0.01}],
    }
    source = {"format": "avro", "max_bad_share": 0.9}
    expected = [(str(UUID(int=1)), at(D1), "true", None, 250), (str(UUID(int=2)), at(D1), None, "A", None)]
    assert read(source, fields=dotted) == expected
    whole = (landed / f"{D1}.avro").read_bytes()
    (landed / f"{D2}.avro").write_bytes(whole)
    (landed / f"{D2} cut.avro").write_bytes(whole[:-9])
    (landed / f"{D2} text.avro").write_bytes(b"user,time\n" * 9)
    read(source, fields=dotted)
    causes = {Path(row.source_file).name: row.raw for row in tables.read("quarantine").collect()}
    assert causes[f"{D2} cut.avro"].startswith("a block cannot be read")
    assert causes[f"{D2} text.avro"].startswith("no Avro file: ")
    (landed / "2024-03-03.avro").write_bytes(whole)
    with pytest.raises(SourceError, match=r"column 'first' has the type struct.*map a field in it"):
        read(source, fields={**dotted, "categorical": [{"name": "x", "column": "first"}]})


def test_a_time_that_no_calendar_has_makes_one_avro_record_bad(read: Any, landed: Path, tables: Tables) -> None:
    moment = {"type": "long", "logicalType": "timestamp-millis"}
    kinds = {"user": ["string", "double"], "time": moment, "mcc": "string", "amount": ["null", "bytes", "int"]}
    fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
    millis = 1_709_251_200_000
    rows = [{"user": float(n), "time": millis * (1000 if n == 3 else 1), "mcc": "a", "amount": b"2"} for n in range(5)]
    with (landed / f"{D1}.avro").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "event", "fields": fields}, rows)
    found = read({"format": "avro", "max_bad_share": 0.5})
    assert found == [(n, at(D1), "a", 200) for n in (0, 1, 2, 4)]
    assert reasons(tables) == [("bad_time", "event_time")]


def test_null_values_and_separators_of_numbers_are_declared(read: Any, landed: Path, tables: Tables) -> None:
    numbers = ["1.234,5", "-1.234.567", "12,3", "NULL", "1.23", "1234,", "\\N"]
    lines = [f'{user},{D1},NULL,"{number}"\n' for user, number in enumerate(numbers)]
    (landed / f"{D1}.csv").write_text(HEADER + "".join(lines))
    source = {"null_values": ["NULL", "\\N"], "decimal_separator": ",", "thousands_separator": "."}
    found = read({**source, "max_bad_share": 0.5})
    assert [(row[0], row[3]) for row in found] == [
        (0, 123450),
        (1, -123456700),
        (2, 1230),
        (3, None),
        (5, 123400),
        (6, None),
    ]
    assert {row[2] for row in found} == {None}
    assert reasons(tables) == [("not_a_number", "amount")]


TIMES = {
    "2024-03-01 05:00:00": ["iso8601", "dd.MM.yyyy HH:mm", "epoch_s"],
    "01.03.2024 05:00": ["iso8601", "dd.MM.yyyy HH:mm", "epoch_s"],
    "1709265600": ["iso8601", "dd.MM.yyyy HH:mm", "epoch_s"],
    "1709269200000000000": "epoch_ns",
    "45352.166666666666667": "excel",
    "19783.166666666666667": "epoch_d",
    "240301 0400 UTC": "yyMMdd HHmm z",
    "Mar 1, 2024 5:00 AM": "MMM d, yyyy h:mm a",
    "2024-03-01 05:00:00+01": "yyyy-MM-dd HH:mm:ssX",
}


@pytest.mark.parametrize(("text", "format"), TIMES.items(), ids=TIMES)
def test_times_are_read_in_the_declared_formats(read: Any, landed: Path, text: str, format: Any) -> None:
    (landed / f"{D1}.csv").write_text(HEADER + f'1,"{text}",a,1\n')
    time = {"column": "time", "format": format, "time_zone": "Europe/Paris", "pivot_year": 1950}
    [row] = read(fields={"event_time": time})
    expected = at("2024-03-01 04:00:00") if text != "1709269200000000000" else at("2024-03-01 05:00:00")
    assert row[1] == expected


def test_an_hour_that_the_clocks_skip_is_rejected_or_moved_on(read: Any, landed: Path, tables: Tables) -> None:
    (landed / "2024-03-31.csv").write_text(HEADER + "1,2024-03-31 02:30,a,1\n2,2024-03-31 03:30,a,1\n")
    time = {"column": "time", "format": "iso8601", "time_zone": "Europe/Paris"}
    assert [row[0] for row in read({"max_bad_share": 0.5}, fields={"event_time": time})] == [2]
    assert reasons(tables) == [("dst_gap", "event_time")]
    moved = read(fields={"event_time": {**time, "dst": "shift"}})
    assert [row[1] for row in moved] == [at("2024-03-31 01:30"), at("2024-03-31 01:30")]


def test_two_digits_of_a_year_need_the_hundred_years_they_stand_for(read: Any) -> None:
    with pytest.raises(ConfigError, match=r"years of two digits .* need pivot_year"):
        read(fields={"event_time": {"column": "time", "format": "yyMMdd"}})


def test_a_quoted_value_may_hold_line_breaks(read: Any, landed: Path) -> None:
    (landed / f"{D1}.csv").write_text(f'{HEADER}1,{D1},"two\nlines, ""quoted""\n",1\n2,{D1},b,2\n')
    source = {"multiline": True}
    assert read(source) == [(1, at(D1), 'two\nlines, "quoted"\n', 100), (2, at(D1), "b", 200)]


def test_columns_may_stand_in_the_path(read: Any, landed: Path) -> None:
    for name in ("caf%C3%A9", "__HIVE_DEFAULT_PARTITION__"):
        folder = landed / f"mcc={name}" / "day=2024-03-01"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"user": [1], "time": [D1], "amount": [1]}), folder / "amount=x.parquet")
    expected = [(1, at(D1), None, 100), (1, at(D1), "café", 100)]
    assert sorted(read({"format": "parquet"}), key=str) == sorted(expected, key=str)
    for folder in landed.iterdir():
        (folder / "day=2024-03-01" / "amount=x.parquet").write_text(jsonl({"user": 1, "time": D1, "amount": 1}))
    assert sorted(read({"format": "jsonl"}), key=str) == sorted(expected, key=str)


def test_landings_may_be_folders_of_year_month_and_day(read: Any, landed: Path, tables: Tables) -> None:
    folder = landed / "year=2024" / "month=3" / "day=1"
    folder.mkdir(parents=True)
    (folder / "part.csv").write_text(f"{HEADER}1,{D1},a,1\n")
    pattern = r"year=(?P<year>\d+)/month=(?P<month>\d+)/day=(?P<day>\d+)"
    assert len(read({"landing_pattern": pattern})) == 1
    assert [row.landed_on for row in tables.read("events").collect()] == [date(2024, 3, 1)]


def test_a_product_of_small_and_large_factors_is_exact(read: Any, landed: Path) -> None:
    rows = ["1,{0},0.000000004,1000000000", "2,{0},0.000000001234567891,3e9", "3,{0},1e18,1e18", "4,{0},,5"]
    (landed / f"{D1}.csv").write_text("user,time,mcc,amount\n" + "\n".join(row.format(D1) for row in rows))
    numeric = [{"name": "amount", "column": "mcc", "times": "amount", "step": 0.01}]
    found = read({"max_bad_share": 0.5}, fields={"categorical": [], "numeric": numeric})
    assert [(row[0], row[2]) for row in found] == [(1, 400), (2, 370), (4, None)]


def test_separators_of_texts_change_no_number_of_a_column_of_numbers(read: Any, landed: Path) -> None:
    numbers = {"user": [1, 2], "time": [D1, D1], "mcc": [-1.5, 1e-12], "amount": [1.234, 1.5]}
    pq.write_table(pa.table(numbers), landed / f"{D1}.parquet")
    source = {"format": "parquet", "decimal_separator": ",", "thousands_separator": "."}
    signed = {"categorical": [{"name": "mcc", "column": "mcc", "sign": True}]}
    expected = [(1, at(D1), "negative", 123), (2, at(D1), "positive", 150)]
    assert read(source, fields=signed) == expected
    texts = {**numbers, "mcc": ["-1,5", "0,000000000001"], "amount": ["1,234", "1,5"]}
    pq.write_table(pa.table(texts), landed / f"{D1}.parquet")
    assert read(source, fields=signed) == expected
    with pytest.raises(ConfigError, match="are about texts, and JSON has numbers"):
        read({"format": "jsonl", "decimal_separator": ","})


def test_lines_after_a_quote_that_is_never_closed_are_counted(read: Any, landed: Path, tables: Tables) -> None:
    good = [f"{user},{D1},a,1" for user in range(1, 8)]
    (landed / f"{D1}.csv").write_text(HEADER + "\n".join([*good[:3], f'9,{D1},"open,1', *good[3:]]))
    assert len(read({"multiline": True, "max_bad_share": 0.2})) == 7
    assert reasons(tables) == [("unbalanced_quote", None)]


def test_a_line_that_does_not_fit_its_widths_is_ragged(read: Any, landed: Path, tables: Tables) -> None:
    lines = [f"1 {D1}ab 12", f'2 {D1}"b  3', f"3 {D1}abc1234", f"4 {D1}"]
    (landed / f"{D1}.csv").write_text("\n".join(lines))
    source = {"columns": ["user", "time", "mcc", "amount"], "widths": [2, 10, 3, 2], "max_bad_share": 0.5}
    assert read(source) == [(1, at(D1), "ab", 1200), (2, at(D1), '"b', 300)]
    found = tables.read("quarantine").collect()
    assert sorted((row.reason, row.raw) for row in found) == [("ragged_row", lines[2]), ("ragged_row", lines[3])]


def test_blanks_inside_quotes_stay(read: Any, landed: Path) -> None:
    (landed / f"{D1}.csv").write_text(f'user  time mcc amount\n1 {D1} "New  York"   5\n')
    assert read({"delimiter": "blanks"}) == [(1, at(D1), "New  York", 500)]


def test_a_wide_file_with_quotes_is_read(read: Any, landed: Path) -> None:
    more = [f"c{n}" for n in range(1998)]
    header = ",".join(["user", "time", "mcc", "amount", *more])
    (landed / f"{D1}.csv").write_text(f'{header}\n1,{D1},"a ""b""",1{",x" * len(more)}\n')
    assert read() == [(1, at(D1), 'a "b"', 100)]


def test_a_landing_that_is_empty_now_keeps_its_rows_and_fails(read: Any, landed: Path, tables: Tables) -> None:
    (landed / f"{D1}.csv").write_text(f"{HEADER}1,{D1},a,1\n")
    read()
    (landed / f"{D1}.csv").write_text("")
    with pytest.raises(SourceError, match="landing 2024-03-01 has only empty files now, and its rows are in events"):
        read()
    (landed / f"{D1}.csv").write_text(HEADER)
    assert read() == []


@pytest.mark.parametrize(
    ("format", "text", "expected"),
    [
        ("elapsed", "36:15", "2024-03-02 20:15"),
        ("elapsed", "-0:30:07.5", "2024-03-01 07:29:52.5"),
        ("epoch_m", "90", "2024-03-01 09:30"),
        ("epoch_h", "1.5", "2024-03-01 09:30"),
        (["epoch_d", "elapsed"], "0.5", "2024-03-01 20:00"),
    ],
)
def test_a_time_counts_from_a_stated_origin_or_from_a_column(
    read: Any, landed: Path, format: Any, text: str, expected: str
) -> None:
    (landed / f"{D1}.csv").write_text(f"user,since,time,mcc,amount\n1,2024-03-01 09:00,{text},a,1\n2,,{text},a,1\n")
    time = {"column": "time", "format": format}
    own = {**time, "origin_column": "since", "time_zone": "Europe/Paris"}
    one_day = {"max_future_days": 2, "max_bad_share": 0.5}
    assert [row[:2] for row in read(one_day, fields={"event_time": own})] == [(1, at(expected))]
    stated = {**time, "origin": "2024-03-01T09:00:00+01:00"}
    assert [row[1] for row in read(one_day, fields={"event_time": stated})] == [at(expected)] * 2


def test_an_origin_that_the_clocks_skip_is_rejected_as_a_time_is(read: Any, landed: Path, tables: Tables) -> None:
    (landed / "2024-03-31.csv").write_text("user,since,time,mcc,amount\n1,2024-03-31 02:30,0:30,a,1\n")
    time = {"column": "time", "format": "elapsed", "origin_column": "since", "time_zone": "Europe/Paris"}
    assert read({"max_bad_share": 1}, fields={"event_time": time}) == []
    assert reasons(tables) == [("dst_gap", "event_time")]


def test_a_bulk_load_goes_on_where_the_table_has_a_field_that_the_file_no_longer_has(
    read: Any, landed: Path, tables: Tables
) -> None:
    (landed / "a.csv").write_text(f"{HEADER}1,{D1},a,1\n")
    bulk = {"source": {"layout": "bulk"}, "dedupe": {"policy": "exact"}}
    read(bulk["source"], dedupe=bulk["dedupe"])
    (landed / "a.csv").write_text(f"{HEADER}1,{D1},a,1\n2,{D1},b,1\n")
    found = read(bulk["source"], dedupe=bulk["dedupe"], fields={"numeric": []})
    assert found == [(1, at(D1), "a", None), (2, at(D1), "b", None)]


def test_a_time_that_counts_from_nothing_has_no_origin(read: Any) -> None:
    time = {"column": "time", "format": ["epoch_s", "iso8601"], "origin_column": "since"}
    with pytest.raises(ConfigError, match="origin_column: 'iso8601' counts from no origin"):
        read(fields={"event_time": time})
    with pytest.raises(ConfigError, match="format 'elapsed' needs an origin"):
        read(fields={"event_time": {"column": "time", "format": "elapsed"}})
    with pytest.raises(ConfigError, match="give origin or origin_column, not both"):
        read(fields={"event_time": {**time, "format": "epoch_s", "origin": "2024-01-01"}})
    with pytest.raises(ConfigError, match="origin_format is the format of origin_column, which is not given"):
        read(fields={"event_time": {"column": "time", "format": "epoch_s", "origin_format": "excel"}})


@pytest.mark.parametrize(
    ("format", "text", "expected"),
    [
        ("yyyy-MM-dd HH:mm[X]", "2024-03-01 10:00", "2024-03-01 09:00"),
        ("yyyy-MM-dd HH:mm[X]", "2024-03-01 10:00Z", "2024-03-01 10:00"),
        ("yyyy-MM-dd[ h:mm a]", "2024-03-01", "2024-02-29 23:00"),
        ("yyyy-MM-dd[ h:mm a]", "2024-03-01 1:30 PM", "2024-03-01 12:30"),
    ],
)
def test_a_part_of_a_time_may_be_missing(read: Any, landed: Path, format: str, text: str, expected: str) -> None:
    (landed / f"{D1}.csv").write_text(f"{HEADER}1,{text},a,1\n")
    [row] = read(fields={"event_time": {"column": "time", "format": format, "time_zone": "Europe/Paris"}})
    assert row[1] == at(expected)


def test_an_offset_that_no_place_has_is_no_time_whatever_the_other_rows(
    read: Any, landed: Path, tables: Tables
) -> None:
    (landed / f"{D1}.csv").write_text(f"{HEADER}1,{D1} 10:00+19:00,a,1\n2,{D1} 10:00+18:00,a,1\n")
    assert [row[0] for row in read({"max_bad_share": 0.5})] == [2]
    assert reasons(tables) == [("bad_time", "event_time")]


def test_a_time_beyond_all_bounds_is_bad_by_itself(read: Any, landed: Path, tables: Tables) -> None:
    times = pa.array([10**17, 1709251200000], pa.timestamp("ms"))
    columns = {"user": [1, 2], "time": times, "mcc": [1e-9, 2.5], "amount": [1, 2]}
    pq.write_table(pa.table(columns), landed / f"{D1}.parquet")
    assert [row[0] for row in read({"format": "parquet", "max_bad_share": 0.5})] == [2]
    assert reasons(tables) == [("bad_time", "event_time")]


def test_fields_of_structs_are_found_without_case_and_keys_of_maps_have_any_text(read: Any, landed: Path) -> None:
    maps = pa.array([[("k", "m")]], pa.map_(pa.large_string(), pa.string()))
    columns = {"user": [1], "time": [D1], "Payload": [{"K": "x"}], "amount": maps}
    pq.write_table(pa.table(columns), landed / f"{D1}.parquet")
    dotted = [{"name": "mcc", "column": "payload.k"}, {"name": "tag", "column": "amount.k"}]
    assert read({"format": "parquet"}, fields={"categorical": dotted, "numeric": []}) == [(1, at(D1), "x", "m")]


def test_a_file_whose_header_does_not_end_is_broken(read: Any, landed: Path) -> None:
    (landed / f"{D1}.csv").write_text("x" * 140_000)
    with pytest.raises(SourceError, match="was not read: broken_file"):
        read()


def test_an_id_may_have_several_columns(read: Any, landed: Path, tables: Tables) -> None:
    (landed / f"{D1}.csv").write_text(f"user,mcc,time,amount\n1, a ,{D1},1\n2,,{D1},1\n3,a|b,{D1},1\n")
    both = {"user_id": {"column": ["user", "mcc"], "type": "string"}}
    assert [row[0] for row in read({"max_bad_share": 0.9}, fields=both)] == ["1|a"]
    assert reasons(tables) == [("null_user", "user_id")] * 2


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ({"delimiter": "blanks"}, ["user time\t mcc   amount ", f"1  {D1}  a  1.5", f"  2\t{D1} b 2"]),
        ({"columns": ["user", "time", "mcc", "amount"], "widths": [3, 10, 3, 5]}, [f"  1{D1}a    1.5", f"2  {D1} b 2"]),
    ],
    ids=["blanks", "fixed width"],
)
def test_values_may_be_separated_by_blanks_or_have_a_width(
    read: Any, landed: Path, source: dict[str, Any], lines: list[str]
) -> None:
    (landed / f"{D1}.csv").write_text("\n".join(lines))
    assert read(source) == [(1, at(D1), "a", 150), (2, at(D1), "b", 200)]


def test_attributes_without_a_date_hold_always(tables: Tables, make_config: Any, landed: Path, tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / f"{D1}.csv").write_text("who,plan\n1,gold\n")
    fields = {
        "user_id": {"column": "who", "type": "long"},
        "event_time": {"min": "2000-01-01"},
        "categorical": [{"name": "plan", "column": "plan"}],
    }
    plans = {"kind": "attributes", "source": {"path": str(tmp_path / "plans")}, "fields": fields}
    config = make_config({"source": {"path": str(landed)}, "logs": {"plans": plans}})
    assert ingest(tables, config, "run", name="plans").counts["accepted"] == 1
    assert [(row.plan, row.event_time) for row in tables.read("events").collect()] == [("gold", at("2000-01-01"))]
    with pytest.raises(ConfigError, match=r"event_time.column: required for events"):
        make_config({"source": {"path": str(landed)}, "fields": {"event_time": {"column": None}}})


CORRECTED = {"policy": "key", "key": ["user_id", "event_time"], "keep": "last"}


def test_a_correction_in_a_later_landing_takes_the_place_of_the_row(read: Any, landed: Path, tables: Tables) -> None:
    (landed / f"{D1}.csv").write_text(f"{HEADER}1,{D1},a,1\n1,{D1},b,2\n2,{D1},a,1\n3,{D1},,3\n")
    assert read(dedupe=CORRECTED) == [(1, at(D1), "b", 200), (2, at(D1), "a", 100), (3, at(D1), None, 300)]
    (landed / f"{D2}.csv").write_text(f"{HEADER}2,{D1},z,9\n4,{D2},a,4\n")
    corrected = [(1, at(D1), "b", 200), (2, at(D1), "z", 900), (3, at(D1), None, 300), (4, at(D2), "a", 400)]
    assert read(dedupe=CORRECTED) == corrected
    counts = [read.last.counts[name] for name in ("rows_read", "accepted", "deduplicated")]
    assert counts == [2, 2, 0]
    assert corrected_landings(read.last.outputs) == [D1]
    # The earlier landing comes again: its row stays corrected.
    (landed / f"{D1}.csv").write_text(f"{HEADER}1,{D1},b,2\n2,{D1},a,1\n3,{D1},,5\n")
    corrected[2] = (3, at(D1), None, 500)
    assert read(dedupe=CORRECTED) == corrected
    assert len({(row.user_id, row.event_time) for row in tables.read("events").collect()}) == 4


def test_a_column_may_order_corrections(read: Any, landed: Path) -> None:
    by_amount = {**CORRECTED, "order": "amount"}
    (landed / f"{D1}.csv").write_text(f"{HEADER}1,{D1},a,5\n1,{D1},b,2\n2,{D1},a,1\n")
    (landed / f"{D2}.csv").write_text(f"{HEADER}1,{D1},c,4\n2,{D1},d,3\n")
    expected = [(1, at(D1), "a", 500), (2, at(D1), "d", 300)]
    assert read(dedupe=by_amount) == expected
    with pytest.raises(ConfigError, match=r"dedupe.order: 'amuont' is not an event column.*mean 'amount'"):
        read(dedupe={**CORRECTED, "order": "amuont"})
    with pytest.raises(ConfigError, match="keep and order are for policy 'key'"):
        read(dedupe={"policy": "exact", "keep": "last"})


def test_a_file_that_is_replaced_while_it_is_read_is_tried_again(landed: Path) -> None:
    file = landed / f"{D1}.csv"
    file.write_text(f"{HEADER}1,{D1},a,1\n")
    config = config_over(landed.parent / "tables", source={"path": str(landed)})
    [listed] = list_files(config.source)
    file.write_text(f"{HEADER}1,{D1},a,1\n2,{D1},a,1\n")
    writer = reading.Writers.to(str(landed.parent / "staged"), None)
    report = reading._read_part(Range(file=0, start=0, end=None), listed, config, writer)
    assert report.problem == ("changed_file", None, "it was replaced while it was read")


def test_unread_files_count_by_their_bytes(read: Any, landed: Path) -> None:
    for day in range(1, 10):
        (landed / f"2024-03-0{day}.csv").write_text(f"{HEADER}1,2024-03-0{day},a,1\n")
    (landed / f"{D1} more.csv").write_text(f"other\n{'x' * 20}\n")
    with pytest.raises(TooManyBadRows, match=r"1 of 10 files cannot be used, 7\.\d% of the bytes"):
        read()
    assert len(read({"max_bad_share": 0.08})) == 9
    assert len(read.last.losses) == 1


def test_a_landing_of_which_nothing_can_be_used_fails_and_is_tried_again(read: Any, landed: Path) -> None:
    (landed / f"{D1}.csv").write_text(f"{HEADER}1,{D1},a,1\n")
    (landed / f"{D2}.csv").write_text(f"user,time,mcc\n1,{D2},a\n")
    with pytest.raises(SourceError, match=r"no file of landing 2024-03-02 can be.*\n.*column 'amount' is not"):
        read({"max_bad_share": 1})
    (landed / f"{D2}.csv").write_text(f"{HEADER}2,{D2},a,1\n")
    assert [row[0] for row in read()] == [1, 2]
