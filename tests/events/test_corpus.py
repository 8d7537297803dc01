"""A corpus of odd files gives the same events on both engines, and they are those that plain Python expects."""

import csv
import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from gur_spark.events.landings import choose_landings
from gur_spark.events.staging import stage
from gur_spark.tables.delta import Tables
from tests.conftest import BASE

pytestmark = pytest.mark.both_engines

FILES = 60
"""Files of each format."""

FIRST = date(2024, 1, 1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """An event as plain Python has it."""

    user: int
    time: datetime
    category: str | None
    cents: int | None

    @property
    def amount(self) -> Decimal | None:
        return None if self.cents is None else Decimal(self.cents) / 100


def rows_of(rng: random.Random, day: date, second: bool) -> list[Row]:
    """A few events of a day; ``second``: to the second only."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    words = ["tea", "crème", "щи", "寿司", 'say "hi"', "a,b;c|d", " x ", "null", "001", None]
    made = []
    for _ in range(rng.randint(1, 6)):
        micros = rng.randrange(86_400) * 1_000_000 + (0 if second else rng.randrange(1_000_000))
        user = rng.choice([7, 12_345_678, -3, 2**40])
        cents = rng.choice([None, 0, -5, 1999, 100, 12_345_678_901])
        made.append(Row(user, start + timedelta(microseconds=micros), rng.choice(words), cents))
    return made


def iso(time: datetime, rng: random.Random) -> str:
    """A text of a moment: in UTC or with an offset, with T or a blank."""
    hours = rng.choice([0, 0, 2, -7])
    local = time + timedelta(hours=hours)
    offset = rng.choice(["Z", "+00:00", "+0000", "+00", " UTC"]) if hours == 0 else f"{hours:+03d}:00"
    return local.strftime(rng.choice(["%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f"])) + offset


def number(cents: int | None, rng: random.Random) -> str:
    """A text of a number: plain, with an exponent, a sign or zeros."""
    if cents is None:
        return ""
    value = Decimal(cents) / 100
    return rng.choice([f"{value}", f"{value:.2f}", f"{value:E}", f"{value:.4f}", f" {value} ", f"{value:+}"])


def as_csv(rows: Sequence[Row], rng: random.Random, encoding: str) -> bytes:
    """Columns in any order, some that nobody asked for, quotes as one likes, any line end, a mark, a second header."""
    names = ["user", "time", "mcc", "amount", *rng.choice([[], ["note"], ["Note", "note"]])]
    rng.shuffle(names)
    text = io.StringIO()
    end = rng.choice(["\n", "\r\n"])
    writer = csv.writer(text, quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), lineterminator=end)
    writer.writerow(names)
    for position, row in enumerate(rows):
        if position == 2 and rng.random() < 0.3:
            writer.writerow(names)
        user = rng.choice([f"{row.user}", f"{row.user}.0", f" {row.user}"])
        values = {"user": user, "time": iso(row.time, rng), "mcc": row.category or "", "amount": number(row.cents, rng)}
        writer.writerow([values.get(name, "x") for name in names])
    if rng.random() < 0.3:
        text.write(end + end)
    mark = "\ufeff" if rng.random() < 0.3 and encoding.startswith("utf") else ""
    return (mark + text.getvalue()).encode(encoding)


def as_json(rows: Sequence[Row], rng: random.Random) -> bytes:
    """Numbers as numbers or texts, keys in any order, nested objects, several objects on a line, escapes."""
    lines = []
    for row in rows:
        values: dict[str, Any] = {"user": rng.choice([row.user, str(row.user), float(row.user)])}
        values["time"] = iso(row.time, rng)
        if row.category is not None or rng.random() < 0.5:
            values["mcc"] = row.category
        if row.cents is not None:
            values["amount"] = rng.choice([float(row.amount or 0), str(row.amount)])
        values["deep"] = [{"a": [1, {"b": None}]}]
        keys = list(values)
        rng.shuffle(keys)
        lines.append(json.dumps({key: values[key] for key in keys}, ensure_ascii=rng.random() < 0.5))
    every = {"user": 1, "time": "never", "mcc": None, "amount": None}
    lines.append(json.dumps(every))
    return rng.choice(["\n", "\n\n", "\r\n"]).join(lines).encode()


USERS: list[pa.DataType] = [pa.int64(), pa.float64(), pa.string(), pa.large_string(), pa.decimal128(20, 0)]
TIMES = [pa.timestamp(unit, tz) for unit in ("us", "ns") for tz in ("UTC", "Asia/Tokyo")]
WORDS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.binary()]
AMOUNTS = [pa.float64(), pa.decimal128(20, 2), pa.decimal128(30, 6), pa.decimal256(50, 4), pa.string()]


def typed(rows: Sequence[Row], rng: random.Random, odd: bool) -> pa.Table:
    """Columns of any type that holds the values, among others that nobody asked for."""

    def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            values = [None if value is None else str(value) for value in values]
        if pa.types.is_binary(kind):
            values = [None if value is None else value.encode() for value in values]
        if pa.types.is_floating(kind):
            values = [None if value is None else float(value) for value in values]
        if pa.types.is_dictionary(kind):
            return pa.array(values, pa.string()).dictionary_encode()
        return pa.array(values, kind)

    words, amounts = [row.category for row in rows], [row.amount for row in rows]
    table = {
        "user": column([row.user for row in rows], rng.choice(USERS)),
        "time": column([row.time for row in rows], rng.choice(TIMES if odd else TIMES[:1])),
        "mcc": column(words, rng.choice(WORDS if odd else WORDS[:1])),
        "amount": column(amounts, rng.choice(AMOUNTS if odd else AMOUNTS[:3])),
    }
    if odd:
        if not any(words):
            table["mcc"] = pa.nulls(len(rows))
        table["half"] = pa.array([1.5] * len(rows), pa.float64()).cast(pa.float16())
        table["list"] = pa.array([[{"a": 1}]] * len(rows))
        table["clock"] = pa.array([1] * len(rows), pa.time64("ns"))
        table["status"] = pa.array(["own name"] * len(rows))
    names = list(table)
    rng.shuffle(names)
    return pa.table({name: table[name] for name in names})


def as_parquet(rows: Sequence[Row], rng: random.Random) -> bytes:
    sink = io.BytesIO()
    int96 = rng.random() < 0.2
    pq.write_table(typed(rows, rng, odd=True), sink, use_deprecated_int96_timestamps=int96)
    return sink.getvalue()


def as_orc(rows: Sequence[Row], rng: random.Random) -> bytes:
    sink = io.BytesIO()
    orc.write_table(typed(rows, rng, odd=False), sink)
    return sink.getvalue()


AVRO: dict[str, list[tuple[Any, Callable[[Any], Any]]]] = {
    "user": [("long", int), ("double", float), ("string", str), (["null", "long", "string"], str)],
    "time": [
        ({"type": "long", "logicalType": "timestamp-micros"}, lambda time: time),
        ({"type": "long", "logicalType": "timestamp-nanos"}, lambda time: _micros(time) * 1000),
        ("string", lambda time: time.isoformat()),
    ],
    "mcc": [(["null", "string"], lambda word: word)],
    "amount": [
        (["null", {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}], lambda amount: amount),
        (["null", "double"], lambda amount: None if amount is None else float(amount)),
        (["null", "string", "long"], lambda amount: None if amount is None else str(amount)),
    ],
}
"""Column -> Avro types that hold its values, and how they hold one."""


def as_avro(rows: Sequence[Row], rng: random.Random) -> bytes:
    fields: list[Any] = [{"name": "deep", "type": {"type": "map", "values": {"type": "array", "items": "int"}}}]
    records: list[dict[str, Any]] = [{"deep": {"a": [1]}} for _ in rows]
    values = {"user": "user", "time": "time", "mcc": "category", "amount": "amount"}
    for name, attribute in values.items():
        kind, make = rng.choice(AVRO[name])
        fields.insert(rng.randrange(len(fields) + 1), {"name": name, "type": kind})
        for record, row in zip(records, rows, strict=True):
            record[name] = make(getattr(row, attribute))
    sink = io.BytesIO()
    codec = rng.choice(["null", "deflate", "snappy", "zstandard"])
    fastavro.writer(sink, {"type": "record", "name": "row", "fields": fields}, records, codec)
    return sink.getvalue()


def packed(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The file as it is, or compressed, and the end of its name."""
    kind = rng.choice(["", "", ".gz", ".zip"])
    if kind == ".zip":
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("inner.txt", content)
        return sink.getvalue(), kind
    return (gzip.compress(content), kind) if kind else (content, kind)


Write = Callable[[Sequence[Row], random.Random], bytes]

FORMATS: dict[str, tuple[dict[str, Any], Write, bool]] = {
    "csv": ({}, lambda rows, rng: as_csv(rows, rng, "utf-8"), True),
    "cyrillic csv": ({"encoding": "cp1251"}, lambda rows, rng: as_csv(rows, rng, "cp1251"), True),
    "utf-16 csv": ({"encoding": "utf-16"}, lambda rows, rng: as_csv(rows, rng, "utf-16"), True),
    "json": ({"format": "jsonl", "max_bad_share": 0.9}, as_json, True),
    "parquet": ({"format": "parquet"}, as_parquet, False),
    "orc": ({"format": "orc"}, as_orc, False),
    "avro": ({"format": "avro"}, as_avro, False),
}


def landings(folder: Path, write: Write, seed: int, packs: bool, encodable: str) -> Iterator[Row]:
    """Write files, one a day, and yield their rows."""
    rng = random.Random(seed)
    for number_of_day in range(FILES):
        day = FIRST + timedelta(number_of_day)
        rows = [row for row in rows_of(rng, day, second=False) if _fits(row, encodable)]
        if not rows:
            rows = [Row(1, datetime(day.year, day.month, day.day, tzinfo=UTC), None, None)]
        content, end = packed(write(rows, rng), rng) if packs else (write(rows, rng), "")
        (folder / f"{day} {rng.choice(['a', 'é', '#1', '[x]', '50%'])}.file{end}").write_bytes(content)
        yield from rows


def _fits(row: Row, encoding: str) -> bool:
    try:
        (row.category or "").encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_a_format_give_the_events_that_plain_python_expects(
    name: str, tables: Tables, make_config: Any, tmp_path: Path
) -> None:
    source, write, packs = FORMATS[name]
    folder = tmp_path / "my lög #1 [x]"
    folder.mkdir()
    expected = list(landings(folder, write, 5, packs, source.get("encoding", "utf-8")))
    config = make_config({"source": {"path": str(folder), **source}, "fields": BASE["fields"]})
    staged = stage(tables.spark, choose_landings(tables, config, "main", (), True), str(tmp_path / "staged"))
    rows = staged.accepted(tables.spark)
    assert rows is not None
    found = rows.selectExpr("user_id", "unix_micros(event_time) AS us", "mcc", "amount").collect()
    wanted = [(row.user, _micros(row.time), _stored(row.category), row.cents) for row in expected]
    assert sorted(map(tuple, found), key=str) == sorted(wanted, key=str)
    assert staged.broken == []
    assert len(staged.by_path) == FILES


def _micros(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def _stored(category: str | None) -> str | None:
    """A blank category is none."""
    return category if category and category.strip(" ") else None
