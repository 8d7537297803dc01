"""Small snapshots of sequences as the Spark side writes them, with structure that a model can find."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gur_spark.features.declare.manifest import SequenceManifest
from gur_spark.features.declare.sequences import sequence_manifest
from gur_spark.features.declare.windows import Window
from gur_spark.models.kind import VocabularyRef
from gur_spark.snapshots.files import write_description
from tests.aggregate_data import tiny_manifest

DAY = 86_400
AS_OF = date(2024, 6, 1)
SIZES = {"mcc": 9, "channel": 5}

User = Mapping[str, Any]
"""A user's id, and their events in the order of time: seconds before ``as_of``, ids, and amounts (None: missing)."""

SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("as_of", pa.int64()),
        ("event_time", pa.list_(pa.int64())),
        *((name, pa.list_(pa.int32())) for name in SIZES),
        ("amount", pa.list_(pa.float64())),
        ("amount_missing", pa.list_(pa.int32())),
    ]
)


def manifest(**changes: Any) -> SequenceManifest:
    """The manifest of such a snapshot."""
    return sequence_manifest(tiny_manifest(), Window(days=180)).model_copy(update=changes)


def seconds(as_of: date) -> int:
    """Midnight UTC of a date in seconds since 1970."""
    return int(datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC).timestamp())


def random_users(count: int, seed: int = 0, *, longest: int = 40, shortest: int = 1, first: int = 0) -> list[User]:
    """Two personas, which differ in their favourite ids and in their amounts; every third user went silent."""
    generator = np.random.default_rng(seed)
    made = []
    for user in range(first, first + count):
        persona, events = user % 2, int(generator.integers(shortest, longest + 1))
        silent = 40 * DAY * (user % 3 == 0)
        made.append(
            {
                "user_id": user,
                "age": sorted((silent + generator.integers(1, 90 * DAY, events)).tolist(), reverse=True),
                **{
                    name: np.where(
                        generator.random(events) < 0.6, 1 + persona * (size - 2), generator.integers(1, size, events)
                    ).tolist()
                    for name, size in SIZES.items()
                },
                "amount": [
                    None if generator.random() < 0.2 else float(generator.normal(5 + 10 * persona, 2))
                    for _ in range(events)
                ],
            }
        )
    return made


def to_rows(users: Sequence[User], as_of: date = AS_OF) -> pa.RecordBatch:
    """One row per user."""
    end = seconds(as_of)
    rows = [
        {
            "user_id": user["user_id"],
            "as_of": end,
            "event_time": [end - age for age in user["age"]],
            **{name: user[name] for name in SIZES},
            "amount": [amount or 0.0 for amount in user["amount"]],
            "amount_missing": [2 if amount is None else 1 for amount in user["amount"]],
        }
        for user in users
    ]
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def write_snapshot(
    folder: Path, users: Sequence[User], *, as_of: date = AS_OF, group_rows: int = 16, files: int = 1
) -> str:
    """Write a snapshot's files and manifest; returns the folder."""
    (folder / "data").mkdir(parents=True)
    rows = pa.Table.from_batches([to_rows(users, as_of)])
    bounds = [len(users) * part // files for part in range(files + 1)]
    for part in range(files):
        some = rows.slice(bounds[part], bounds[part + 1] - bounds[part])
        pq.write_table(some, folder / "data" / f"part-{part:05d}.parquet", row_group_size=group_rows)
    write_description(str(folder), manifest(), VocabularyRef(version=1, hash="0", sizes=SIZES))
    return str(folder)
