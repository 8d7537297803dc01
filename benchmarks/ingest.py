"""Ingest of a card log: rows per second and the driver's memory.

``python -m benchmarks.ingest --rows 10000000 --json OUT`` writes a CSV (user, time, merchant category, amount,
channel; one row in a hundred twice) into a temporary folder, ingests it with dedupe ``exact`` and reports
``{rows, seconds, rows_per_s, peak_driver_mb, counts}``. Making the file and starting Spark are not timed.
``--quoted`` puts every text value in quotes, which are slower to read. ``--engine sail`` ingests without Java.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

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


def measure(rows: int, quoted: bool, folder: Path, engine: str = "local") -> dict[str, object]:
    """Make the log, ingest it once in a fresh session, and measure time and memory."""
    write_card_log(folder / "log.csv", rows, quoted)
    config = _config(folder, engine)
    tables = open_tables(build_session(config), config.tables)
    tables.spark.range(1).count()
    with PeakMemory() as memory, record(tables, "ingest", {}) as run:
        clock = time.perf_counter()
        run.add(ingest(tables, config, run.id))
        seconds = time.perf_counter() - clock
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_per_s": round(rows / seconds),
        "peak_driver_mb": round(memory.java_mb + memory.python_mb),
        "counts": run.counts,
    }


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


def _config(folder: Path, engine: str) -> Config:
    source = {"path": str(folder / "log.csv"), "layout": "bulk"}
    values = {**PIPELINE, "engine": engine, "source": source, "tables": {"root": str(folder / "tables")}}
    file = folder / "card_log.yaml"
    OmegaConf.save(values, file)
    return load_config(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--quoted", action="store_true", help="every text value in quotes")
    parser.add_argument("--engine", choices=["local", "sail"], default="local")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gur_ingest_") as folder:
        figures = json.dumps(measure(args.rows, args.quoted, Path(folder), args.engine))
    print(figures)
    if args.json:
        args.json.write_text(figures + "\n")


if __name__ == "__main__":
    main()
