"""The next day's snapshot from the day before it, against the same snapshot from all events.

    python -m benchmarks.incremental --events 20000000 --users 200000 --json OUT

The work of ``benchmarks.windows`` on events as ``ingest`` leaves them: a Delta table with one commit per landing. A
full run of one date keeps a state for the days after (its seconds stand beside those of one that does not); then the
next date is made in full and from that state in turn, after a warm-up of each. Neither makes its row in ``snapshots``.
"""

import argparse
import shutil
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from pyspark.sql import DataFrame, SparkSession

from benchmarks.windows import AS_OF, CARDINALITY, CORES, WINDOWS, measured, skewed_ids, standard_manifest, timed
from gur_spark.config.session import Spark
from gur_spark.features.kernel.state_files import SavedState
from gur_spark.features.spark.incremental import entering_events, write_incremental
from gur_spark.features.spark.selection import known_at, snapshot_events
from gur_spark.features.spark.writer import Written, partitions_for, tiles_of, write_aggregates
from gur_spark.schema import FIRST_VALUE_ID
from gur_spark.session import local_conf, local_session

NEXT = AS_OF + timedelta(days=1)
DAYS = 367
"""Days of the log: half of its events are in the longest window."""
HORIZON = 6
SIZES = {field: values + FIRST_VALUE_ID for field, values in CARDINALITY.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="the next day from the day before, against all events")
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="OUT")
    parser.add_argument("--work", metavar="FOLDER", help="keep events and results here")
    return measured(measure, parser.parse_args())


def measure(work: Path, args: argparse.Namespace) -> dict[str, object]:
    events = work / f"landings_{args.events}_{args.users}"
    make_landings(events, args.events, args.users)
    conf = local_conf(Spark(cores=CORES, memory="4g", shuffle_partitions=2 * CORES))
    spark = local_session(conf, "benchmarks.incremental")
    table = spark.read.format("delta").load(str(events))
    base, seconds = make_bases(table, work, args)
    contents: dict[str, Written] = {}
    full, incremental = [], []
    for attempt in range(args.runs + 1):
        full.append(timed(lambda: contents.update(full=write_full(table, NEXT, work / "full", args))))
        incremental.append(timed(lambda: contents.update(incremental=write_next(spark, events, base, work / "next"))))
        note = " (warm-up)" if not attempt else ""
        print(f"full {full[-1]:6.2f} s   incremental {incremental[-1]:6.2f} s{note}", flush=True)
    state = sum(file.bytes for file in base[1].files)
    return {
        "full_s": median(full[1:]),
        "incremental_s": median(incremental[1:]),
        "ratio": median(incremental[1:]) / median(full[1:]),
        "equal": contents["full"] == contents["incremental"],
        **seconds,
        "state_mb": round(state / 1e6),
        "state_files": len(base[1].files),
        "events": args.events,
        "users": args.users,
        "cores": CORES,
        "runs": {"full_s": full[1:], "incremental_s": incremental[1:]},
    }


def make_landings(folder: Path, events: int, users: int) -> None:
    """The events of each day, in no order, and those of the day after AS_OF: as ``benchmarks.windows`` makes them."""
    if (folder / "complete").exists():
        return
    for number in range(DAYS + 1):
        day = AS_OF - timedelta(days=DAYS - number)
        write_deltalake(folder, landing(day, events // DAYS, users, seed=number), mode="append")
    (folder / "complete").touch()


def landing(day: date, n: int, users: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1e6)
    return pa.table(
        {
            "user_id": rng.integers(0, users, n) * 7919 + 11,
            "event_time": pa.array(midnight + rng.integers(0, 86_400_000_000, n), pa.timestamp("us", "UTC")),
            "landed_on": pa.array(np.full(n, (day - date(1970, 1, 1)).days, np.int32)).cast(pa.date32()),
            "amount": np.rint(rng.lognormal(7.5, 1.2, n)).astype(np.int64),
            **{field: skewed_ids(rng, values, n) for field, values in CARDINALITY.items()},
        }
    )


def make_bases(
    table: DataFrame, work: Path, args: argparse.Namespace
) -> tuple[tuple[str, SavedState], dict[str, float]]:
    """Make the states that the next date is made from, and time a full run with and without one, after a warm-up."""
    write_full(table, AS_OF, work / "base", args)
    plain = timed(lambda: write_full(table, AS_OF, work / "base", args))
    written: list[Any] = []
    keeping = timed(lambda: written.append(write_full(table, AS_OF, work / "base", args, HORIZON)))
    kept = SavedState(
        as_of=AS_OF,
        horizon=HORIZON,
        oldest=None,
        landed=AS_OF - timedelta(days=1),
        lineage="events",
        files=written[0].states,
    )
    print(f"base {plain:6.2f} s   with its state {keeping:6.2f} s", flush=True)
    return (str(work / "base"), kept), {"base_s": plain, "base_with_state_s": keeping}


def write_full(table: DataFrame, as_of: date, out: Path, args: argparse.Namespace, horizon: int = 0) -> Written:
    shutil.rmtree(out, ignore_errors=True)
    manifest, known = standard_manifest(), {as_of: known_at(as_of, 0)}
    inside = args.events * WINDOWS[-1] // DAYS
    partitions = partitions_for(manifest, tiles_of(manifest, [as_of], None, horizon), args.users, inside)
    frame = snapshot_events(table, known, timedelta(WINDOWS[-1]))
    folders = {as_of: str(out)}
    return write_aggregates(frame, manifest, SIZES, known, folders, None, partitions, None, horizon)[as_of]


def write_next(spark: SparkSession, events: Path, base: tuple[str, SavedState], out: Path) -> Written:
    shutil.rmtree(out, ignore_errors=True)
    table = spark.read.format("delta").load(str(events))
    entering = entering_events(table, NEXT, known_at(NEXT, 0), (AS_OF, known_at(AS_OF, 0)), timedelta(WINDOWS[-1]))
    return write_incremental(entering, standard_manifest(), SIZES, base, NEXT, str(out))


if __name__ == "__main__":
    sys.exit(main())
