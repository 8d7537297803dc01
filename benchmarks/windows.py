"""Windowed aggregation, ours against DuckDB: the same events in, the same Parquet content out.

    python -m benchmarks.windows --engine local --events 20000000 --users 200000 --json OUT

The standard work: encoded events in Parquet, half of them in the longest window; per window of 7, 30
and 180 days six statistics of an amount, three histograms (300, 6 and 12 values) with distinct counts,
events and active days; recency and tenure; written as Parquet. Both sides run in turn, after a warm-up
of each, on the same number of cores; the contents are compared row by row.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from gur_spark.config.session import Spark
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest, NumericField
from gur_spark.features.spark.selection import snapshot_events
from gur_spark.features.spark.writer import write_aggregates
from gur_spark.schema import FIRST_VALUE_ID
from gur_spark.session import local_conf, local_session, sail_session

AS_OF = date(2024, 7, 1)
WINDOWS = (7, 30, 180)
CARDINALITY = {"mcc": 300, "channel": 6, "month": 12}
CORES = 2
ROWS_PER_FILE = 2_500_000


def main() -> int:
    return measured(measure, arguments())


def measured(measure: Callable[[Path, argparse.Namespace], dict[str, object]], args: argparse.Namespace) -> int:
    """Measure in the folder ``args.work``, or in one that goes afterwards, and report; returns the exit code."""
    work = Path(args.work or tempfile.mkdtemp(prefix="gur_benchmark_"))
    try:
        result = measure(work, args)
    finally:
        if not args.work:
            shutil.rmtree(work, ignore_errors=True)
    return report(result, args.json)


def measure(work: Path, args: argparse.Namespace) -> dict[str, object]:
    events = work / f"events_{args.events}_{args.users}"
    make_events(events, args.events, args.users)
    manifest = standard_manifest()
    ours_out, duckdb_out = work / "ours", work / "duckdb.parquet"
    spark = session(args.engine)
    ours, theirs = [], []
    for attempt in range(args.runs + 1):
        ours.append(timed(lambda: run_ours(spark, events, manifest, ours_out)))
        theirs.append(timed(lambda: run_duckdb(events, duckdb_out)))
        note = " (warm-up)" if attempt == 0 else ""
        print(f"ours {ours[-1]:6.2f} s   duckdb {theirs[-1]:6.2f} s{note}", flush=True)
    return {
        "ours_s": median(ours[1:]),
        "duckdb_s": median(theirs[1:]),
        "ratio": median(ours[1:]) / median(theirs[1:]),
        "equal": same_content(ours_out / "data", duckdb_out, manifest),
        "engine": args.engine,
        "events": args.events,
        "users": args.users,
        "cores": CORES,
        "runs": {"ours_s": ours[1:], "duckdb_s": theirs[1:]},
    }


def session(engine: str) -> SparkSession:
    settings = Spark(cores=CORES, memory="4g", shuffle_partitions=2 * CORES)
    return sail_session(settings) if engine == "sail" else local_session(local_conf(settings), "benchmarks.windows")


def report(result: Mapping[str, object], file: str | None) -> int:
    """Print a result, write it where asked; returns the exit code, 1 where two sides are not equal."""
    text = json.dumps(result, indent=2)
    print(text)
    if file:
        Path(file).write_text(text + "\n")
    return 0 if result.get("equal", True) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="windowed aggregation against DuckDB")
    parser.add_argument("--engine", choices=["local", "sail"], default="local")
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="OUT")
    parser.add_argument("--work", metavar="FOLDER", help="keep events and results here")
    return parser.parse_args()


def standard_manifest() -> Manifest:
    amount = NumericField(name="amount", step=Decimal("0.01"), transform="none")
    return make_manifest("long", WINDOWS, [amount], list(CARDINALITY))


def make_events(folder: Path, events: int, users: int, cardinality: Mapping[str, int] = CARDINALITY) -> None:
    """Events of about a year, in no order: user_id, event_time, landed_on, amount (cents) and category ids."""
    if (folder / "complete").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    end = int(datetime(AS_OF.year, AS_OF.month, AS_OF.day, tzinfo=UTC).timestamp() * 1e6)
    # 9.8M of 20M in the longest window.
    span = int(WINDOWS[-1] * 86_400_000_000 / 0.49)
    for start in range(0, events, ROWS_PER_FILE):
        n = min(ROWS_PER_FILE, events - start)
        time_us = end - rng.integers(1, span, n)
        table = pa.table(
            {
                "user_id": rng.integers(0, users, n) * 7919 + 11,
                "event_time": pa.array(time_us, pa.timestamp("us", "UTC")),
                "landed_on": pa.array((time_us // 86_400_000_000).astype(np.int32)).cast(pa.date32()),
                "amount": np.rint(rng.lognormal(7.5, 1.2, n)).astype(np.int64),
                **{f: skewed_ids(rng, v, n) for f, v in cardinality.items()},
            }
        )
        pq.write_table(table, folder / f"part-{start // ROWS_PER_FILE:04d}.parquet")
    (folder / "complete").touch()


def skewed_ids(rng: np.random.Generator, values: int, n: int) -> Any:
    weights = 1 / np.arange(1, values + 1)
    return (rng.choice(values, n, p=weights / weights.sum()) + FIRST_VALUE_ID).astype(np.int32)


def timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def run_ours(spark: SparkSession, events: Path, manifest: Manifest, out: Path) -> None:
    frame = spark.read.parquet(*[str(f) for f in sorted(events.glob("*.parquet"))])
    known_at = datetime(AS_OF.year, AS_OF.month, AS_OF.day, tzinfo=UTC)
    inside = snapshot_events(frame, {AS_OF: known_at}, timedelta(WINDOWS[-1]))
    sizes = {field: values + FIRST_VALUE_ID for field, values in CARDINALITY.items()}
    shutil.rmtree(out, ignore_errors=True)
    write_aggregates(inside, manifest, sizes, {AS_OF: known_at}, {AS_OF: str(out)}, partitions=2 * CORES)


def run_duckdb(events: Path, out: Path) -> None:
    connection = duckdb.connect(config={"threads": CORES})
    for statement in duckdb_statements(events, out):
        connection.execute(statement)
    connection.close()


def duckdb_statements(events: Path, out: Path) -> list[str]:
    """The same rows in SQL, in the fastest form found.

    One scan into a table; sums per band of days, then per window (half the time of six filtered sums);
    lists sorted as structs (``list(x ORDER BY y)`` takes twenty times as long). Integer sums are
    exact (HUGEINT) and divided once.
    """
    start = AS_OF - timedelta(days=WINDOWS[-1])
    band = " + ".join(f"(day >= {w})::INT" for w in WINDOWS[:-1])
    return [
        f"""CREATE TEMP TABLE e AS
        SELECT *, ((age - 1) // 86400000000)::SMALLINT AS day
        FROM (SELECT user_id, amount, {", ".join(CARDINALITY)},
                     epoch_us(TIMESTAMPTZ '{AS_OF} 00:00:00+00') - epoch_us(event_time) AS age
              FROM read_parquet('{events}/*.parquet')
              WHERE event_time >= TIMESTAMPTZ '{start} 00:00:00+00'
                AND event_time < TIMESTAMPTZ '{AS_OF} 00:00:00+00' AND landed_on < DATE '{AS_OF}')""",
        f"""CREATE TEMP TABLE dense AS
        SELECT user_id, min(a) / 86400e6 AS recency_days, max(z) / 86400e6 AS tenure_days,
               {", ".join(_dense_sql(k, w) for k, w in enumerate(WINDOWS))}
        FROM (SELECT user_id, {band} AS band, count(*) AS n, count(amount) AS c, sum(amount) AS s,
                     sum(amount * amount) AS q, min(amount) AS lo, max(amount) AS hi, min(age) AS a, max(age) AS z
              FROM e GROUP BY user_id, band) GROUP BY user_id""",
        f"""CREATE TEMP TABLE days AS
        SELECT user_id, {", ".join(f"count(*) FILTER (day < {w}) AS active_days_{w}d" for w in WINDOWS)}
        FROM (SELECT DISTINCT user_id, day FROM e) GROUP BY user_id""",
        *[_histogram_sql(f) for f in CARDINALITY],
        f"""COPY (SELECT dense.*, DATE '{AS_OF}' AS as_of, days.* EXCLUDE (user_id),
                     {", ".join(f"h_{f}.* EXCLUDE (user_id)" for f in CARDINALITY)}
              FROM dense JOIN days USING (user_id) {" ".join(f"JOIN h_{f} USING (user_id)" for f in CARDINALITY)})
        TO '{out}' (FORMAT parquet)""",
    ]


def _dense_sql(k: int, w: int) -> str:
    def total(function: str, column: str) -> str:
        return f"coalesce({function}({column}) FILTER (band <= {k}), 0)"

    n, s, q = total("sum", "c"), total("sum", "s"), total("sum", "q")
    return f"""{total("sum", "n")}::BIGINT AS events_{w}d, {n}::BIGINT AS amount_count_{w}d,
        {s} / 100 AS amount_sum_{w}d, {s} / nullif(100.0 * {n}, 0) AS amount_mean_{w}d,
        sqrt(({n} * {q} - {s} * {s})::DOUBLE) / nullif(100.0 * {n}, 0) AS amount_std_{w}d,
        min(lo) FILTER (band <= {k}) / 100 AS amount_min_{w}d, max(hi) FILTER (band <= {k}) / 100 AS amount_max_{w}d"""


def _histogram_sql(f: str) -> str:
    counts = ", ".join(f"count(*) FILTER (day < {w}) AS c{w}" for w in WINDOWS)
    packed = ", ".join(f"c{w}: c{w}" for w in WINDOWS)
    lists = ", ".join(f"list_transform(l, lambda x: x.c{w}) AS {f}_counts_{w}d" for w in WINDOWS)
    distinct = ", ".join(f"count(*) FILTER (c{w} > 0) AS {f}_distinct_{w}d" for w in WINDOWS)
    return f"""CREATE TEMP TABLE h_{f} AS
        SELECT user_id, list_transform(l, lambda x: x.id) AS {f}_ids, {lists}, * EXCLUDE (user_id, l)
        FROM (SELECT user_id, list_sort(list({{id: {f}, {packed}}})) AS l, {distinct}
              FROM (SELECT user_id, {f}, {counts} FROM e GROUP BY user_id, {f}) GROUP BY user_id)"""


def same_content(ours: Path, theirs: Path, manifest: Manifest) -> bool:
    """All columns of all rows: integers and lists exactly, floats within 1e-12 of each other."""
    a, b = (pq.read_table(p).sort_by("user_id") for p in (ours, theirs))
    if a.num_rows != b.num_rows or set(a.column_names) != set(b.column_names):
        print(f"rows {a.num_rows} and {b.num_rows}; columns {set(a.column_names) ^ set(b.column_names)}")
        return False
    different = [c.name for c in manifest.columns if not same_column(a[c.name], b[c.name], c.dtype)]
    if different:
        print(f"columns that differ: {different}")
    return not different


def same_column(a: Any, b: Any, dtype: str) -> bool:
    if dtype == "array<int>":
        a, b = a.combine_chunks(), b.combine_chunks()
        lengths = pc.list_value_length(a).equals(pc.list_value_length(b).cast(pa.int32()))
        return bool(lengths and pc.list_flatten(a).equals(pc.list_flatten(b).cast(pa.int32())))
    if not pc.is_null(a).equals(pc.is_null(b)):
        return False
    if dtype == "double":
        x, y = (np.asarray(pc.drop_null(column), np.float64) for column in (a, b))
        return bool(np.allclose(x, y, rtol=1e-12, atol=1e-9))
    return bool(a.combine_chunks().equals(b.combine_chunks().cast(a.type)))


if __name__ == "__main__":
    sys.exit(main())
