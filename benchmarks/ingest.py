"""Ingest of a card log beside DuckDB doing the same: seconds, rows per second, and the driver's memory.

``python -m benchmarks.ingest --rows 10000000 --json OUT`` writes a CSV (user, time, merchant category, amount,
channel; one row in a hundred twice) into a temporary folder, ingests it with dedupe ``exact``, and lets DuckDB parse it
with rejects, drop duplicates and write typed Parquet. It reports ``{ours_s, duckdb_s, ratio, rows_per_s,
peak_driver_mb, equal, counts}``. Making the file and starting Spark are not timed. ``--files 305 --rows 540000`` makes
daily landings, and times the job from its start, with the session. ``--quoted`` puts every text value in quotes.
``--engine sail`` ingests without Java. ``--again`` also times the ingest of one new landing of 1,000 rows.
"""

import argparse
import json
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from omegaconf import OmegaConf
from pyarrow import csv

from benchmarks.memory import PeakMemory
from gur_spark.config.file import load_config
from gur_spark.config.pipeline import Config
from gur_spark.events.ingest import ingest
from gur_spark.session import build_session
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.runs import record

CHUNK_ROWS = 1_000_000
CATEGORIES = 300
CHANNELS = np.array(["chip", "online", "contactless", "atm", "recurring"])

PIPELINE = {
    "name": "card_log",
    "fields": {
        "user_id": {"column": "user", "type": "long"},
        "event_time": {"column": "time", "format": "iso8601"},
        "categorical": [{"name": "mcc", "column": "mcc"}, {"name": "channel", "column": "channel"}],
        "numeric": [{"name": "amount", "column": "amount", "step": 0.01}],
    },
    "dedupe": {"policy": "exact"},
}


def write_card_log(path: Path, rows: int, quoted: bool = False, seed: int = 7) -> None:
    """Write a card log in the order of time; one row in a hundred stands twice."""
    random = np.random.default_rng(seed)
    options = csv.WriteOptions(quoting_style="needed" if quoted else "none", quoting_header="none")
    with csv.CSVWriter(path, _chunk(random, 1, 0).schema, write_options=options) as writer:
        for start in range(0, rows, CHUNK_ROWS):
            writer.write_table(_chunk(random, min(CHUNK_ROWS, rows - start), start))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Make the log, ingest it once, and let DuckDB do the same."""
    landed = folder / "landed"
    landed.mkdir()
    if args.files > 1:
        write_landings(landed, args.rows, args.files)
    else:
        write_card_log(landed / "2024-01-01.csv", args.rows, args.quoted)
    config = _config(folder, args.engine, daily=args.files > 1)
    clock = time.perf_counter()
    tables = open_tables(build_session(config), config.tables)
    if args.files == 1:
        tables.spark.range(1).count()
        clock = time.perf_counter()
    with PeakMemory() as memory, record(tables, "ingest", {}) as run:
        run.add(ingest(tables, config, run.id))
    ours = time.perf_counter() - clock
    theirs, expected = duckdb_ingest(landed, folder / "duckdb.parquet")
    result: dict[str, object] = {
        "rows": args.rows,
        "files": args.files,
        "ours_s": round(ours, 2),
        "duckdb_s": round(theirs, 2),
        "ratio": round(ours / theirs, 2),
        "rows_per_s": round(args.rows / ours),
        "peak_driver_mb": round(memory.java_mb + memory.python_mb),
        "equal": checks(tables) == expected,
        "counts": run.counts,
    }
    if args.again:
        write_card_log(landed / "2025-12-31.csv", 1_000, seed=8)
        clock = time.perf_counter()
        with record(tables, "ingest", {}) as run:
            run.add(ingest(tables, config, run.id))
        result["new_landing_s"] = round(time.perf_counter() - clock, 2)
    return result


SUMS = "count(*), sum(user_id), sum({micros}), sum({steps}), sum(length(mcc) + length(channel))"
"""Sums that differ if any row does, nearly surely."""


def checks(tables: Tables) -> tuple[int, ...]:
    """Sums over the table ``events``."""
    tables.read("events").createOrReplaceTempView("card_log")
    sums = SUMS.format(micros="unix_micros(event_time) % 1000000007", steps="amount")
    return tuple(int(value) for value in tables.spark.sql(f"SELECT {sums} FROM card_log").collect()[0])


def duckdb_ingest(landed: Path, out: Path) -> tuple[float, tuple[int, ...]]:
    """Seconds that DuckDB takes for the same, and the sums over its rows."""
    base = duckdb.connect(config={"threads": 2})
    base.execute("SET TimeZone = 'UTC'")
    clock = time.perf_counter()
    types = {"user": "BIGINT", "time": "TIMESTAMPTZ", "mcc": "VARCHAR", "amount": "DECIMAL(18,2)", "channel": "VARCHAR"}
    read = f"read_csv('{landed}/*.csv', header = true, columns = {types}, store_rejects = true)"
    base.execute(f"COPY (SELECT DISTINCT * FROM {read}) TO '{out}' (FORMAT parquet)")
    seconds = time.perf_counter() - clock
    rows = f"(SELECT \"user\" AS user_id, * FROM '{out}')"
    sums = SUMS.format(micros="epoch_us(time) % 1000000007", steps="CAST(amount * 100 AS BIGINT)")
    found = base.execute(f"SELECT {sums} FROM {rows}").fetchone()
    assert found is not None
    return seconds, tuple(int(value) for value in found)


def write_landings(folder: Path, rows: int, files: int, seed: int = 7) -> None:
    """Write daily landings of equal size; one row in a hundred stands twice."""
    random = np.random.default_rng(seed)
    options = csv.WriteOptions(quoting_style="none", quoting_header="none")
    for number in range(files):
        size = rows // files + (number < rows % files)
        day = date(2024, 1, 1) + timedelta(number)
        csv.write_csv(_chunk(random, size, number * 28_800), folder / f"{day}.csv", options)


def _chunk(random: np.random.Generator, rows: int, start: int) -> pa.Table:
    origin = np.datetime64("2024-01-01T00:00:00", "s")
    seconds = (start + np.arange(rows)) * 3 + random.integers(0, 3, rows)
    mcc = np.minimum(random.zipf(1.3, rows), CATEGORIES) + 5000
    table = pa.table(
        {
            "user": random.integers(1, 200_000, rows),
            "time": pc.strftime(pa.array(origin + seconds.astype("timedelta64[s]")), "%Y-%m-%dT%H:%M:%SZ"),
            "mcc": pa.array(mcc).cast(pa.string()),
            "amount": np.round(random.lognormal(3, 1.2, rows), 2),
            "channel": pa.array(CHANNELS[random.integers(0, len(CHANNELS), rows)]),
        }
    )
    twice = np.arange(rows)
    twice[100::100] = twice[99:-1:100]
    return table.take(pa.array(twice))


def _config(folder: Path, engine: str, daily: bool = False) -> Config:
    source = {"path": str(folder / "landed"), "layout": "daily" if daily else "bulk"}
    values = {**PIPELINE, "engine": engine, "source": source, "tables": {"root": str(folder / "tables")}}
    file = folder / "card_log.yaml"
    OmegaConf.save(values, file)
    return load_config(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--quoted", action="store_true", help="every text value in quotes")
    parser.add_argument("--engine", choices=["local", "sail"], default="local")
    parser.add_argument("--files", type=int, default=1, help="daily landings of equal size")
    parser.add_argument("--again", action="store_true", help="one new landing of 1,000 rows, too")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gur_ingest_") as folder:
        figures = measure(args, Path(folder))
    print(json.dumps(figures))
    if args.json:
        args.json.write_text(json.dumps(figures) + "\n")
    if not figures["equal"]:
        sys.exit("the events of the two sides differ")


if __name__ == "__main__":
    main()
