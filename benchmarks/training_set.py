"""Labels joined with what was known at their time (``training_set``), against DuckDB's join over the same files.

    python -m benchmarks.training_set --labels 10000000 --snapshots 30 --json OUT

Snapshots of ``benchmarks.preprocessing``'s events, one a week; labels of random users at random times. Both sides write
Parquet with the label, the date that was found, and the same aggregates. DuckDB gets the rule in SQL: its join ASOF for
the newest date whose midnight is not after the label, none where that is older than 30 days, then an equality join. The
contents are compared.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from benchmarks.preprocessing import configuration, make_table
from benchmarks.windows import AS_OF, CORES, measured, timed
from gur_spark import training_set
from gur_spark.config.pipeline import Config
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.features.states.base import DAY_US
from gur_spark.session import build_session
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables

MAX_AGE_DAYS = 30
COLUMNS = ("events_7d", "events_30d", "events_180d", "amount_sum_30d", "amount_mean_180d", "mcc_ids", "mcc_counts_180d")


def main() -> int:
    parser = argparse.ArgumentParser(description="point-in-time training sets against DuckDB")
    parser.add_argument("--labels", type=int, default=10_000_000)
    parser.add_argument("--snapshots", type=int, default=30)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="OUT")
    parser.add_argument("--work", metavar="FOLDER", help="keep events and results here")
    return measured(measure, parser.parse_args())


def measure(work: Path, args: argparse.Namespace) -> dict[str, object]:
    config = configuration(work)
    make_table(work, args.events, args.users)
    spark = build_session(config)
    snapshots = make_snapshots(open_tables(spark, config.tables), config, args.snapshots)
    labels = make_labels(work, args)
    ours, theirs = [], []
    for attempt in range(args.runs + 1):
        ours.append(timed(lambda: run_ours(spark, config, labels, work / "ours")))
        theirs.append(timed(lambda: run_duckdb(snapshots, labels, work / "theirs.parquet")))
        note = " (warm-up)" if not attempt else ""
        print(f"ours {ours[-1]:6.2f} s   duckdb {theirs[-1]:6.2f} s{note}", flush=True)
    return {
        "ours_s": median(ours[1:]),
        "duckdb_s": median(theirs[1:]),
        "ratio": median(ours[1:]) / median(theirs[1:]),
        "equal": same_content(str(work / "ours" / "*.parquet"), str(work / "theirs.parquet")),
        "labels": args.labels,
        "snapshots": args.snapshots,
        "users": args.users,
        "cores": CORES,
        "runs": {"ours_s": ours[1:], "duckdb_s": theirs[1:]},
    }


def make_snapshots(tables: Tables, config: Config, count: int) -> Sequence[Snapshot]:
    fit_vocabulary(tables, config)
    dates = [AS_OF - timedelta(weeks=n) for n in range(count)]
    return aggregate_snapshots(tables, config, dates, "benchmark").snapshots


def make_labels(work: Path, args: argparse.Namespace) -> str:
    """One row per label: its number, a user (one in ten unknown), a time in the snapshots' weeks or around them."""
    rng = np.random.default_rng(1)
    end = np.datetime64(AS_OF, "us") + np.timedelta64(60, "D")
    span = (args.snapshots * 7 + 90) * 86_400_000_000
    table = pa.table(
        {
            "label": pa.array(np.arange(args.labels)),
            "user_id": rng.integers(0, round(args.users * 1.1), args.labels) * 7919 + 11,
            "label_time": pa.array(end - rng.integers(0, span, args.labels)).cast(pa.timestamp("us", "UTC")),
        }
    )
    pq.write_table(table, work / "labels.parquet")
    return str(work / "labels.parquet")


def run_ours(spark: SparkSession, config: Config, labels: str, out: Path) -> None:
    made = training_set(spark, config, spark.read.parquet(labels), max_age_days=MAX_AGE_DAYS)
    made.select("label", "as_of", "found", *COLUMNS).write.mode("overwrite").parquet(str(out))


def run_duckdb(snapshots: Sequence[Snapshot], labels: str, out: Path) -> None:
    files = [f"{s.data}/*.parquet" for s in snapshots]
    dates = ", ".join(f"(DATE '{s.as_of}', epoch_us(DATE '{s.as_of}'))" for s in snapshots)
    with duckdb.connect(config={"threads": CORES, "memory_limit": "8GB"}) as connection:
        connection.execute(
            f"""
            COPY (
                WITH known (as_of, at_us) AS (VALUES {dates}),
                labels AS (SELECT *, epoch_us(label_time) AS label_us FROM '{labels}'),
                dated AS (
                    SELECT label, user_id, CASE WHEN label_us - at_us <= {MAX_AGE_DAYS * DAY_US} THEN as_of END AS as_of
                    FROM labels ASOF LEFT JOIN known ON label_us >= at_us
                )
                SELECT label, d.as_of, f.user_id IS NOT NULL AS found, {", ".join(f"f.{c}" for c in COLUMNS)}
                FROM dated d LEFT JOIN read_parquet({files}) f ON f.user_id = d.user_id AND f.as_of = d.as_of
            ) TO '{out}' (FORMAT parquet)
            """
        )


def same_content(ours: str, theirs: str) -> bool:
    """Whether both have the same rows, in any order."""
    columns = ", ".join(["label", "as_of", "found", *COLUMNS])
    with duckdb.connect() as connection:
        found = [
            connection.execute(f"SELECT count(*), sum(hash({columns})::HUGEINT) FROM '{side}'").fetchone()
            for side in (ours, theirs)
        ]
    return found[0] == found[1]


if __name__ == "__main__":
    sys.exit(main())
