"""One row of each key stays, whatever the buckets, the files and the order of rows."""

import random
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gur_spark.events import unique
from gur_spark.events.staged_files import FILE, Buckets, StagedFile, StagedWriter
from gur_spark.events.unique import key_of, unique_rows
from gur_spark.tables.delta import Tables

pytestmark = pytest.mark.any_engine

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_time", pa.timestamp("us", "UTC")),
        ("mcc", pa.string()),
        ("amount", pa.int64()),
        ("landed_on", pa.date32()),
        (FILE, pa.int32()),
    ]
)
NAMES = SCHEMA.names[:-1]

POLICIES: dict[str, dict[str, Any]] = {
    "exact": {"policy": "exact"},
    "key": {"policy": "key", "key": ["user_id", "event_time"]},
    "one column": {"policy": "key", "key": ["mcc"]},
    "last": {"policy": "key", "key": ["user_id", "event_time"], "keep": "last"},
    "last by a column": {"policy": "key", "key": ["user_id", "mcc"], "keep": "last", "order": "amount"},
}


def random_rows(rng: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "user_id": rng.choice(["a", "é", "寿司"]),
            "event_time": datetime(2024, 1, rng.randint(1, 3), tzinfo=UTC),
            "mcc": rng.choice([None, "x", "y", "Z"]),
            "amount": rng.choice([None, -5, 0, 2**40]),
            "landed_on": date(2024, 1, rng.randint(4, 6)),
            FILE: rng.randrange(4),
        }
        for _ in range(300)
    ]


def plain(rows: list[dict[str, Any]], config: Any, left_out: set[int]) -> list[tuple[Any, ...]]:
    """The naive way: sort all rows, and keep the first or last of each key. Null is the least value."""

    def order(row: dict[str, Any]) -> list[tuple[bool, Any]]:
        names = [*([config.dedupe.order] if config.dedupe.order else []), "landed_on", *NAMES]
        return [(row[name] is not None, row[name] if row[name] is not None else 0) for name in names]

    kept: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=order, reverse=config.dedupe.keep == "first"):
        if row[FILE] not in left_out:
            kept[tuple(row[name] for name in key_of(config.main, NAMES))] = row
    return sorted((tuple(row[name] for name in NAMES) for row in kept.values()), key=str)


def staged(rows: list[dict[str, Any]], folder: Path, buckets: Buckets) -> list[StagedFile]:
    """Three files of rows."""
    writers = [StagedWriter(str(folder / "accepted"), buckets) for _ in range(3)]
    for number, writer in enumerate(writers):
        writer.add(pa.Table.from_pylist(rows[number::3], SCHEMA))
    return [file for writer in writers if (file := writer.close())]


@pytest.mark.parametrize("memory", [1, 1 << 30], ids=["buckets are split", "buckets fit"])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_rows_that_stay_are_those_of_plain_python(
    policy: str, count: int, memory: int, tables: Tables, make_config: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    config = make_config({"dedupe": POLICIES[policy]})
    # The session of these tests runs its workers in this process.
    monkeypatch.setattr(unique, "BUCKET_MEMORY", memory)
    rows = random_rows(random.Random(policy))
    buckets = Buckets(key=key_of(config.main, NAMES), count=count)
    made = unique_rows(
        tables.spark, staged(rows, tmp_path, buckets), config.main, buckets, left_out=[2], folder=str(tmp_path)
    )
    found = [row for path in made.files for row in pq.read_table(path).to_pylist()]
    expected = plain(rows, config, {2})
    assert sorted((tuple(row[name] for name in NAMES) for row in found), key=str) == expected
    assert made.rows == len(expected)
    assert not list((tmp_path / "unique").glob("parts/*.parquet"))


@pytest.mark.parametrize("policy", ["exact", "last"])
def test_buckets_without_rows_and_files_that_are_left_out_give_none(
    policy: str, tables: Tables, make_config: Any, tmp_path: Path
) -> None:
    config = make_config({"dedupe": POLICIES[policy]})
    rows = [row | {FILE: 1} for row in random_rows(random.Random(1))[:3]]
    buckets = Buckets(key=key_of(config.main, NAMES), count=16)
    files = staged(rows, tmp_path, buckets)
    made = unique_rows(tables.spark, files, config.main, buckets, (), str(tmp_path))
    assert made.rows == len(plain(rows, config, set()))
    nothing = unique_rows(tables.spark, files, config.main, buckets, left_out=[1], folder=str(tmp_path))
    assert (nothing.files, nothing.rows) == ([], 0)


def test_all_columns_of_a_key_choose_the_bucket() -> None:
    rows = pa.Table.from_pylist([{"user_id": "a", "mcc": "x", "amount": n} for n in range(4000)], SCHEMA)
    sizes = [len(part) for _, part in Buckets(key=["user_id", "mcc", "event_time", "amount"], count=8).split(rows)]
    assert min(sizes) > 400
    assert sum(sizes) == 4000


def test_rows_of_one_key_are_in_one_bucket_and_the_next_level_spreads_them() -> None:
    rows = pa.Table.from_pylist([{"user_id": f"u{n % 1000}", "mcc": None, "amount": n} for n in range(4000)], SCHEMA)
    first = dict(Buckets(key=["user_id", "mcc"], count=8).split(rows))
    users = [set(part["user_id"].to_pylist()) for part in first.values()]
    assert sum(map(len, users)) == 1000
    assert min(map(len, users)) > 80
    second = dict(Buckets(key=["user_id", "mcc"], count=8, level=1).split(first[3]))
    assert len(second) == 8
    assert sum(map(len, second.values())) == len(first[3])
