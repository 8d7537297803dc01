"""Time and memory of aggregation over more and more events, users and categories, and with one user of millions of
events.

    python -m benchmarks.scale --events 20000000 60000000 200000000 --json OUT

The work is that of ``benchmarks.windows`` with 100 events per user. ``--hot`` gives one more user so many events,
shuffled among all others and counted where they are read (``apart``). ``--many-users`` is a run of so many users with
20 events each, ``--many-values`` one of the first size with so many categories in the first field; 0 leaves a run out.
Java has a heap of 8 GB; the memory that it and the Python workers take is measured. ``growth`` is the seconds per event
of each size over those of the first.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from itertools import cycle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from benchmarks.memory import PeakMemory
from benchmarks.windows import AS_OF, CARDINALITY, CORES, WINDOWS, make_events, report, standard_manifest
from gur_spark.config.session import Spark
from gur_spark.features.spark.selection import known_at, snapshot_events
from gur_spark.features.spark.writer import partitions_for, tiles_of, write_aggregates
from gur_spark.schema import FIRST_VALUE_ID
from gur_spark.session import local_conf, local_session, sail_session

HOT_USER = 1
"""Id of the hot user. The other ids of ``make_events`` are 11 and greater."""


def main() -> int:
    parser = argparse.ArgumentParser(description="seconds per event as the events grow")
    parser.add_argument("--events", type=int, nargs="+", default=[20_000_000, 60_000_000, 200_000_000])
    parser.add_argument("--engine", choices=["local", "sail"], default="local")
    parser.add_argument("--hot", type=int, nargs="*", default=[10_000_000], help="events of one more user, in two runs")
    parser.add_argument("--many-users", type=int, default=10_000_000)
    parser.add_argument("--many-values", type=int, default=1_000_000)
    parser.add_argument("--json", metavar="OUT")
    parser.add_argument("--work", metavar="FOLDER", help="keep events and results here")
    args = parser.parse_args()
    work = Path(args.work or tempfile.mkdtemp(prefix="gur_scale_"))
    settings = Spark(cores=CORES, memory="8g", shuffle_partitions=2 * CORES)
    spark = sail_session(settings) if args.engine == "sail" else local_session(local_conf(settings), "benchmarks.scale")
    try:
        # The first run of a session compiles; it is not counted.
        first = Work(args.events[0])
        measure(spark, work, first)
        sizes = [measure(spark, work, Work(events)) for events in args.events]
        others = [replace(first, hot=hot, apart=apart) for hot in args.hot if hot for apart in (False, True)]
        others += [Work(20 * args.many_users, events_per_user=20)] if args.many_users else []
        others += [replace(first, values=args.many_values)] if args.many_values else []
        more = [measure(spark, work, other) for other in others]
    finally:
        if not args.work:
            shutil.rmtree(work, ignore_errors=True)
    per_event = [size["seconds"] / size["events"] for size in sizes]
    result = {"sizes": sizes, "more": more, "growth": [round(s / per_event[0], 3) for s in per_event], "cores": CORES}
    return report(result, args.json)


@dataclass(frozen=True)
class Work:
    """Data that one run aggregates."""

    events: int
    events_per_user: int = 100
    values: int = next(iter(CARDINALITY.values()))
    """Different categories of the first field."""
    hot: int = 0
    """Events of one more user, from the same days."""
    apart: bool = False
    """Whether these events are counted where they are read."""


def measure(spark: SparkSession, work: Path, of: Work) -> dict[str, float]:
    users, cardinality = of.events // of.events_per_user, CARDINALITY | {next(iter(CARDINALITY)): of.values}
    folder = work / f"events_{of.events}_{users}_{of.values}"
    make_events(folder, of.events, users, cardinality)
    files = [*sorted(folder.glob("*.parquet")), *hot_files(folder, work / f"hot_{of.hot}", of.hot)]
    frame = spark.read.parquet(*map(str, files))
    known, tiles = {AS_OF: known_at(AS_OF, 0)}, tiles_of(standard_manifest(), [AS_OF])
    sizes = {field: values + FIRST_VALUE_ID for field, values in cardinality.items()}
    shutil.rmtree(work / "out", ignore_errors=True)
    with PeakMemory() as memory:
        start = time.monotonic()
        written = write_aggregates(
            snapshot_events(frame, known, timedelta(WINDOWS[-1])),
            standard_manifest(), sizes, known, {AS_OF: str(work / "out")},
            partitions=partitions_for(standard_manifest(), tiles, users, frame.count()),
            hot=[HOT_USER] if of.apart else [],
        )  # fmt: skip
        seconds = time.monotonic() - start
    found = asdict(of) | {"rows": written[AS_OF].rows, "seconds": round(seconds, 2)}
    if (of != Work(of.events) and of.hot == 0) or of.apart:
        # Its events take a gigabyte or two, and are no longer needed.
        shutil.rmtree(folder if not of.hot else work / f"hot_{of.hot}")
    found |= {"java_mb": round(memory.java_mb), "python_mb": round(memory.python_mb)}
    print(json.dumps(found), flush=True)
    return found


def hot_files(source: Path, folder: Path, events: int) -> list[Path]:
    """The first events of the source once more, or several times more, all of one user."""
    folder.mkdir(exist_ok=True)
    rest = events
    for number, file in enumerate(cycle(sorted(source.glob("*.parquet")))):
        if rest <= 0:
            break
        rows = pq.read_table(file).slice(0, rest)
        rest -= rows.num_rows
        user = pa.array([HOT_USER], pa.int64()).take(pa.array([0] * rows.num_rows))
        pq.write_table(rows.set_column(0, "user_id", user), folder / f"part-{number:04d}.parquet")
    return sorted(folder.glob("*.parquet")) if events else []


if __name__ == "__main__":
    sys.exit(main())
