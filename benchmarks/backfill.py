"""Many snapshots in one pass over the events, against one snapshot.

    python -m benchmarks.backfill --events 20000000 --snapshots 12 --every 7 --json OUT

The work of ``benchmarks.windows``, without the one commit that makes the dates visible. The ratio is the time of all
dates over that of the newest alone; the checksums of the oldest and newest date and of four between are compared with
those of the dates made alone. ``--late-days`` lets every event land so many days later, so that the newest ones wait
for the dates that know them.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from statistics import median

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.windows import AS_OF, CARDINALITY, CORES, WINDOWS, make_events, measured, standard_manifest, timed
from gur_spark.config.session import Spark
from gur_spark.features.spark.selection import known_at, snapshot_events
from gur_spark.features.spark.writer import Written, write_aggregates
from gur_spark.schema import FIRST_VALUE_ID
from gur_spark.session import local_conf, local_session


def main() -> int:
    parser = argparse.ArgumentParser(description="many snapshots in one pass against one")
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--snapshots", type=int, default=12)
    parser.add_argument("--every", type=int, default=7, metavar="DAYS")
    parser.add_argument("--late-days", type=int, default=0, metavar="DAYS")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="OUT")
    parser.add_argument("--work", metavar="FOLDER", help="keep events and results here")
    return measured(measure, parser.parse_args())


def measure(work: Path, args: argparse.Namespace) -> dict[str, object]:
    events = work / f"events_{args.events}_{args.users}"
    make_events(events, args.events, args.users)
    dates = [AS_OF - timedelta(days=args.every * n) for n in range(args.snapshots)]
    conf = local_conf(Spark(cores=CORES, memory="4g", shuffle_partitions=2 * CORES))
    spark = local_session(conf, "benchmarks.backfill")
    one, many, contents = [], [], {}
    for attempt in range(args.runs + 1):
        one.append(timed(lambda: write(spark, events, dates[:1], work / "one", args.late_days)))
        many.append(timed(lambda: contents.update(write(spark, events, dates, work / "many", args.late_days))))
        print(f"one {one[-1]:6.2f} s   {len(dates)} {many[-1]:6.2f} s{' (warm-up)' if not attempt else ''}", flush=True)
    some = {dates[n * (len(dates) - 1) // 5] for n in range(6)}
    equal = all(contents[day] == write(spark, events, [day], work / "one", args.late_days)[day] for day in some)
    return {
        "one_s": median(one[1:]),
        "many_s": median(many[1:]),
        "ratio": median(many[1:]) / median(one[1:]),
        "equal": equal,
        "snapshots": args.snapshots,
        "every_days": args.every,
        "late_days": args.late_days,
        "events": args.events,
        "users": args.users,
        "cores": CORES,
        "runs": {"one_s": one[1:], "many_s": many[1:]},
    }


def write(spark: SparkSession, events: Path, dates: Sequence[date], out: Path, late_days: int) -> dict[date, Written]:
    shutil.rmtree(out, ignore_errors=True)
    frame = spark.read.parquet(*[str(f) for f in sorted(events.glob("*.parquet"))])
    frame = frame.withColumn("landed_on", F.date_add("landed_on", late_days))
    known = {day: known_at(day, 0) for day in dates}
    sizes = {field: values + FIRST_VALUE_ID for field, values in CARDINALITY.items()}
    folders = {day: str(out / day.isoformat()) for day in dates}
    return write_aggregates(
        snapshot_events(frame, known, timedelta(WINDOWS[-1])), standard_manifest(), sizes, known, folders
    )


if __name__ == "__main__":
    sys.exit(main())
