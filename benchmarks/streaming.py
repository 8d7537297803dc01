"""Seconds from the arrival of a landing's file to the embeddings of its users in ``embeddings_now``.

    python -m benchmarks.streaming --users 10000 100000 --json OUT

On plain Spark, for each number of users: half a year of events (20 per user), their snapshot, an untrained model of the
demo's shape (its speed is that of a trained one) and its published embeddings. Then files of one day, of ``--events``
users each that no other file has, arrive one by one (renamed into the folder, as a file should), each after the one
before can be read. The first is a warm-up. The measured time includes everything: the stream's look at the folder twice
a second, ingest with its counts and commits, aggregates of the touched users, the model, the commit.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError

from benchmarks.versions import untrained_version
from gur_spark.config.file import load_config
from gur_spark.config.pipeline import Config
from gur_spark.events.vocabulary import fit_vocabulary, read_vocabulary
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import VocabularyRef
from gur_spark.registry.artefact import load_model
from gur_spark.registry.known import register
from gur_spark.serving.publishing import publish
from gur_spark.serving.scoring import score_snapshot
from gur_spark.serving.streaming import call_with_new_files
from gur_spark.session import build_session
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from jobs.stream import take_up

TODAY = date(2025, 6, 30)
DAYS, EVENTS_PER_USER = 180, 20
CATEGORIES = np.array([f"category {n}" for n in range(40)])
CHANNELS = np.array(["chip", "contactless", "online"])
LOOK_S = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description="from a landing file's arrival to the embeddings of its users")
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--events", type=int, default=200, help="users, with an event each, of a landing file")
    parser.add_argument("--landings", type=int, default=10)
    parser.add_argument("--json", metavar="OUT")
    args = parser.parse_args()
    result = [measure(users, args.events, args.landings) for users in args.users]
    print(json.dumps(result, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measure(users: int, events: int, landings: int) -> dict[str, Any]:
    work = Path(tempfile.mkdtemp(prefix="gur_streaming_"))
    try:
        tables, config = set_up(work, users)
        seconds: list[float] = []
        lander = threading.Thread(target=land_all, args=(tables, work / "landings", events, landings + 1, seconds))
        lander.start()
        call_with_new_files(tables, config, lambda: take_up(tables, config, {}), once=False, seconds=LOOK_S)
        lander.join()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if len(seconds) <= landings:
        raise RuntimeError(f"only {len(seconds)} of {landings + 1} landings could be read in the end")
    print(f"{users} users: {[round(s, 1) for s in seconds]} s (the first is a warm-up)", flush=True)
    measured = np.array(seconds[1:])
    return {
        "users": users,
        "events": users * EVENTS_PER_USER,
        "users_per_landing": events,
        "landings": landings,
        "median_s": round(float(np.median(measured)), 2),
        "p95_s": round(float(np.quantile(measured, 0.95)), 2),
        "runs_s": [round(s, 2) for s in seconds[1:]],
    }


def set_up(work: Path, users: int) -> tuple[Tables, Config]:
    """Tables of a pipeline that published TODAY."""
    (work / "landings").mkdir()
    config = load_config("conf/demo.yaml", [f"tables.root={work}/tables", f"source.path={work}/landings"])
    tables = open_tables(build_session(config), config.tables)
    write_deltalake(tables.folder("events"), made_events(users))
    fit_vocabulary(tables, config)
    snapshot = aggregate_snapshot(tables, config, TODAY, "benchmark-aggregate")
    fitted = read_vocabulary(tables)
    vocabulary = VocabularyRef(version=fitted.version, hash=fitted.hash, sizes=fitted.sizes)
    model, parent = GurModel.of(config.model), tables.folder("artefacts")
    path = untrained_version(parent, config.manifest(), model, config.training, vocabulary)
    saved = load_model(path)
    register(tables, config.name, saved.card, path, saved.manifest.hash, saved.vocabulary, saved.metrics)
    version = score_snapshot(tables, config, snapshot, path, "benchmark-score").model_version
    publish(tables, config, version, TODAY, "benchmark")
    return tables, config


def made_events(users: int) -> pa.Table:
    """Rows of ``events`` in the days before TODAY."""
    rng, n = np.random.default_rng(0), users * EVENTS_PER_USER
    midnight = int(datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC).timestamp() * 1e6)
    time_us = midnight - 1 - rng.integers(0, DAYS * 86_400_000_000, n)
    amount = np.rint(rng.lognormal(7.5, 1.2, n)).astype(np.int64)
    return pa.table(
        {
            "user_id": rng.integers(0, users, n),
            "event_time": pa.array(time_us, pa.timestamp("us", "UTC")),
            "landed_on": pa.array((time_us // 86_400_000_000).astype(np.int32)).cast(pa.date32()),
            "category": pa.array(CATEGORIES[rng.integers(0, len(CATEGORIES), n)]),
            "channel": pa.array(CHANNELS[rng.integers(0, len(CHANNELS), n)]),
            "direction": pa.array(["positive"] * n),
            "amount": amount,
            "amount_log": np.rint(np.log1p(amount / 100) * 10_000).astype(np.int64),
        }
    )


def land_all(tables: Tables, landings: Path, events: int, count: int, seconds: list[float]) -> None:
    """Let files arrive, each once the one before can be read, and stop the stream."""
    try:
        for number in range(count):
            users = range(number * events, (number + 1) * events)
            arrived = land(landings, number, users)
            wait_for(tables.folder("embeddings_now"), users[-1], arrived + 600)
            seconds.append(time.monotonic() - arrived)
    finally:
        for query in tables.spark.streams.active:
            # The rows are there before the micro-batch has said so in ``runs``; stopped then, it would fail.
            while query.status["isTriggerActive"]:
                time.sleep(0.1)
            query.stop()


def land(landings: Path, number: int, users: Sequence[int]) -> float:
    """Write a file of today's landing; the moment of its arrival."""
    lines = ["client,booked_at,merchant_category,channel,amount"]
    lines += [f"{user},{TODAY} 12:00:{number % 60:02d},category 1,chip,9.50" for user in users]
    hidden, file = landings / f".{number}", landings / str(TODAY) / f"part-{number:04d}.csv"
    file.parent.mkdir(exist_ok=True)
    hidden.write_text("\n".join(lines) + "\n")
    arrived = time.monotonic()
    hidden.rename(file)
    return arrived


def wait_for(table: str, user: int, until: float) -> None:
    """Until the user's row can be read; it comes in one commit with those of the same file."""
    seen = -1
    while time.monotonic() < until:
        # A table that is being made has no commit yet.
        with suppress(TableNotFoundError):
            now = DeltaTable(table)
            if now.version() > seen:
                seen = now.version()
                found = now.to_pyarrow_table(filters=[("user_id", "=", user), ("as_of", ">", TODAY - timedelta(1))])
                if found.num_rows:
                    return
        time.sleep(0.1)
    raise TimeoutError(f"no row of user {user} in {table}")


if __name__ == "__main__":
    sys.exit(main())
