"""Events -> what a model trains on, against pytorch-lifestream's Spark preprocessor.

    python -m benchmarks.preprocessing --events 5000000 --users 50000 [--engine sail] --json OUT

Both sides get the same Delta table, in turn, each in a process and session of its own: text categories of 300, 6 and
12 values, an amount, a time. Theirs fits frequency encoders, encodes, groups the events of a user into arrays and
writes Parquet. Ours fits the vocabulary, and aggregates over 7, 30 and 180 days, commits of both included. Compared are
users, events per user in the longest window, and how often each category comes there, whatever its id.
"""

import argparse
import os
import shutil
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake
from ptls.preprocessing import PysparkDataPreprocessor
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.windows import AS_OF, CARDINALITY, CORES, WINDOWS, make_events, measured, timed
from gur_spark.config.file import load_config
from gur_spark.config.pipeline import Config
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.session import build_session
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.tables.open import open_tables

CONFIG = f"""
name: preprocessing
tables: {{root: ROOT}}
source: {{path: unused}}
spark: {{cores: {CORES}, memory: 6g, shuffle_partitions: {2 * CORES}}}
fields:
  user_id: {{column: user_id, type: long}}
  event_time: {{column: event_time, format: iso8601}}
  categorical: [{", ".join(f"{{name: {f}, column: {f}}}" for f in CARDINALITY)}]
  numeric: [{{name: amount, column: amount, step: 0.01}}]
vocabulary: {{min_count: 1}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="preprocessing against pytorch-lifestream")
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--engine", choices=["local", "sail"], default="local", help="what ours runs on")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="OUT")
    parser.add_argument("--work", metavar="FOLDER", help="keep events and results here")
    return measured(measure, parser.parse_args())


def measure(work: Path, args: argparse.Namespace) -> dict[str, object]:
    config = configuration(work)
    make_table(work, args.events, args.users)
    ours_config = config.model_copy(update={"engine": args.engine})
    ours, theirs = [], []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        # A process with a session on Sail cannot have one with Java, nor can those that it starts from then on.
        other.submit(os.getpid).result()
        spark = build_session(ours_config)
        for attempt in range(args.runs + 1):
            ours.append(timed(lambda: run_ours(spark, ours_config, work)))
            theirs.append(other.submit(time_theirs, config, work).result())
            note = " (warm-up)" if not attempt else ""
            print(f"ours {ours[-1]:6.2f} s   pytorch-lifestream {theirs[-1]:6.2f} s{note}", flush=True)
    return {
        "ours_s": median(ours[1:]),
        "theirs_s": median(theirs[1:]),
        "ratio": median(ours[1:]) / median(theirs[1:]),
        "equal": contents_of_ours(work) == contents_of_theirs(work),
        "events": args.events,
        "users": args.users,
        "cores": CORES,
        "engine": args.engine,
        "runs": {"ours_s": ours[1:], "theirs_s": theirs[1:]},
    }


def configuration(work: Path) -> Config:
    work.mkdir(parents=True, exist_ok=True)
    file = work / "preprocessing.yaml"
    file.write_text(CONFIG.replace("ROOT", str(work / "tables")))
    return load_config(file)


def make_table(work: Path, events: int, users: int) -> None:
    """The events of ``benchmarks.windows``, categories as text."""
    files = work / "raw"
    make_events(files, events, users)
    for number, file in enumerate(sorted(files.glob("*.parquet"))):
        table = pq.read_table(file)
        for field in CARDINALITY:
            text = pa.array([f"{field} {n}" for n in range(CARDINALITY[field] + 3)]).take(table[field].combine_chunks())
            table = table.set_column(table.column_names.index(field), field, text)
        write_deltalake(str(work / "tables" / "events"), table, mode="append" if number else "overwrite")


def run_ours(spark: SparkSession, config: Config, work: Path) -> None:
    for table in ("vocabulary", "snapshots", "aggregates"):
        shutil.rmtree(work / "tables" / table, ignore_errors=True)
    tables = open_tables(spark, config.tables)
    fit_vocabulary(tables, config)
    aggregate_snapshot(tables, config, AS_OF, "benchmark")


def time_theirs(config: Config, work: Path) -> float:
    spark = build_session(config)
    return timed(lambda: run_theirs(spark, work))


def run_theirs(spark: SparkSession, work: Path) -> None:
    events = spark.read.format("delta").load(str(work / "tables" / "events"))
    frame = events.select("user_id", F.unix_timestamp("event_time").alias("event_time"), "amount", *CARDINALITY)
    preprocessor = PysparkDataPreprocessor(
        col_id="user_id",
        col_event_time="event_time",
        event_time_transformation="none",
        cols_category=list(CARDINALITY),
        cols_numerical=["amount"],
    )
    preprocessor.fit_transform(frame).write.mode("overwrite").parquet(str(work / "theirs"))


Contents = tuple[Counter[int], list[Counter[int]]]
"""Events per user, and per field how many values come how often."""


def contents_of_ours(work: Path) -> Contents:
    rows = pq.read_table(next((work / "tables" / "aggregates").glob("*/*/data")))
    users = Counter(dict(zip(rows["user_id"].to_pylist(), rows[f"events_{WINDOWS[-1]}d"].to_pylist(), strict=True)))
    ids = [flat(rows[f"{field}_ids"]) for field in CARDINALITY]
    counts = [flat(rows[f"{field}_counts_{WINDOWS[-1]}d"]) for field in CARDINALITY]
    totals = [np.bincount(i, c).astype(np.int64) for i, c in zip(ids, counts, strict=True)]
    return users, [Counter(t[t > 0].tolist()) for t in totals]


def contents_of_theirs(work: Path) -> Contents:
    rows = pq.read_table(work / "theirs", columns=["user_id", "event_time", *CARDINALITY])
    end = datetime(AS_OF.year, AS_OF.month, AS_OF.day, tzinfo=UTC)
    start = end - timedelta(days=WINDOWS[-1])
    times = flat(rows["event_time"])
    inside = (times >= start.timestamp()) & (times < end.timestamp())
    lengths = [len(t) for t in rows["event_time"]]
    users, counts = np.unique(np.repeat(rows["user_id"].to_numpy(), lengths)[inside], return_counts=True)
    totals = [np.bincount(flat(rows[field])[inside]) for field in CARDINALITY]
    return Counter(dict(zip(users.tolist(), counts.tolist(), strict=True))), [
        Counter(t[t > 0].tolist()) for t in totals
    ]


def flat(column: Any) -> Any:
    return column.combine_chunks().flatten().to_numpy()


if __name__ == "__main__":
    sys.exit(main())
