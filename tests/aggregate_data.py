"""Small aggregate snapshots as the Spark side writes them, with structure that a model can find."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest, NumericField

WINDOWS = (7, 30)
SIZES = {"mcc": 9, "channel": 5}

Events = list[dict[str, Any]]
"""One user's events: age in days, one id per categorical field, one number or None per numeric field."""


def tiny_manifest(
    windows: Sequence[int] = WINDOWS,
    numeric: Sequence[str] = ("amount",),
    categorical: Sequence[str] = tuple(SIZES),
    user_id_type: Literal["long", "string"] = "long",
) -> Manifest:
    fields = [NumericField(name=n, step=Decimal("0.01"), transform="none") for n in numeric]
    return make_manifest(user_id_type, windows, fields, categorical)


def random_events(
    users: int, sizes: Mapping[str, int], numeric: Sequence[str], seed: int, longest: int
) -> list[Events]:
    """Two personas, which differ in their favourite ids, their amounts and how much they do; one in ten is idle."""
    generator = np.random.default_rng(seed)
    made = []
    for user in range(users):
        persona = user % 2
        count = 0 if generator.random() < 0.1 else int(generator.integers(1, 6 + 10 * persona))
        made.append([_event(generator, persona, sizes, numeric, longest) for _ in range(count)])
    return made


def _event(
    generator: np.random.Generator, persona: int, sizes: Mapping[str, int], numeric: Sequence[str], longest: int
) -> dict[str, Any]:
    event: dict[str, Any] = {"age": float(generator.uniform(0, longest))}
    for field, size in sizes.items():
        favourite = 1 + persona * (size - 2)
        event[field] = favourite if generator.random() < 0.7 else int(generator.integers(1, size))
    for name in numeric:
        event[name] = None if generator.random() < 0.2 else float(generator.normal(5 + 10 * persona, 2))
    return event


def to_rows(events: Sequence[Events], manifest: Manifest, first_user: int = 0) -> pa.RecordBatch:
    """One row per user, computed the plain way."""
    users: list[dict[str, Any]] = []
    for number, of_user in enumerate(events, first_user):
        user = number if manifest.user_id_type == "long" else f"user-{number}"
        users.append({"user_id": user, "as_of": date(2024, 6, 1), **_aggregate(of_user, manifest)})
    return pa.RecordBatch.from_pylist(users, schema=_arrow_schema(manifest))


def _aggregate(events: Events, manifest: Manifest) -> dict[str, Any]:
    ages = [e["age"] for e in events]
    row: dict[str, Any] = {"recency_days": min(ages, default=None), "tenure_days": max(ages, default=None)}
    for field in manifest.categorical:
        row[f"{field}_ids"] = sorted({e[field] for e in events})
    for w in manifest.windows:
        within = [e for e in events if e["age"] <= w]
        row[f"events_{w}d"], row[f"active_days_{w}d"] = len(within), len({int(e["age"]) for e in within})
        for field in manifest.categorical:
            ids = [e[field] for e in within]
            row[f"{field}_distinct_{w}d"] = len(set(ids))
            row[f"{field}_counts_{w}d"] = [ids.count(i) for i in row[f"{field}_ids"]]
        for numeric in manifest.numeric:
            row |= _statistics(numeric.name, w, [e[numeric.name] for e in within if e[numeric.name] is not None])
    return row


def _statistics(name: str, w: int, values: list[float]) -> dict[str, Any]:
    some = bool(values)
    found = {
        "count": len(values),
        "sum": float(sum(values)),
        "mean": float(np.mean(values)) if some else None,
        "std": float(np.std(values)) if some else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
    }
    return {f"{name}_{statistic}_{w}d": value for statistic, value in found.items()}


def _arrow_schema(manifest: Manifest) -> pa.Schema:
    types = {
        "long": pa.int64(),
        "double": pa.float64(),
        "array<int>": pa.list_(pa.int32()),
        "string": pa.string(),
        "date": pa.date32(),
    }
    return pa.schema([(c.name, types[c.dtype]) for c in manifest.columns])


def write_snapshot(folder: Path, rows: pa.RecordBatch, manifest: Manifest, files: int = 2, row_group: int = 64) -> str:
    """Write rows as a snapshot; returns its path."""
    data = folder / "data"
    data.mkdir(parents=True)
    (folder / "manifest.json").write_text(manifest.to_json())
    (data / "_SUCCESS").touch()
    size = -(-rows.num_rows // files)
    for number in range(files):
        part = pa.Table.from_batches([rows.slice(number * size, size)])
        pq.write_table(part, data / f"part-{number:05d}.parquet", row_group_size=row_group)
    return str(folder)


def make_snapshot(
    folder: Path, users: int = 300, seed: int = 0, manifest: Manifest | None = None, sizes: Mapping[str, int] = SIZES
) -> str:
    """A snapshot of random users."""
    manifest = manifest or tiny_manifest(categorical=tuple(sizes))
    names = [n.name for n in manifest.numeric]
    events = random_events(users, sizes, names, seed, manifest.windows[-1])
    return write_snapshot(folder, to_rows(events, manifest), manifest)
