"""Speed of the autoencoder's training: users per second of whole epochs, of decoding alone and of the model alone.

The work is the design's: 200,000 users x 3 windows, two numbers and three histograms of 300, 6 and 12 values, about 49
events per user in the longest window. Run it as ``python -m benchmarks.training --users 200000 --json OUT``.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf

from benchmarks.versions import trained_version
from gur_spark.batches.aggregates import AggregateBatch
from gur_spark.batches.layout import Layout
from gur_spark.batches.streams import stream
from gur_spark.config.file import base_file
from gur_spark.config.training import Training
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest, NumericField
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.losses import reconstruction_loss
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import VocabularyRef
from gur_spark.schema import FIRST_VALUE_ID
from gur_spark.snapshots.files import read_manifest

WINDOWS = (7, 30, 180)
VALUES = {"mcc": 300, "channel": 6, "day_part": 12}
SIZES = {field: values + FIRST_VALUE_ID for field, values in VALUES.items()}
NUMERIC = ("amount", "balance")
EVENTS_PER_USER = 49
AS_OF = date(2024, 6, 1)
FILES = 4

Array = npt.NDArray[Any]


def standard_manifest() -> Manifest:
    fields = [NumericField(name=n, step=Decimal("0.01"), transform="none") for n in NUMERIC]
    return make_manifest("long", WINDOWS, fields, tuple(VALUES))


def make_snapshot(folder: Path, users: int, seed: int = 0) -> str:
    """Write a random snapshot in the form of the aggregate job; returns its folder."""
    manifest = standard_manifest()
    (folder / "data").mkdir(parents=True)
    (folder / "manifest.json").write_text(manifest.to_json())
    for number, part in enumerate(np.array_split(np.arange(users), FILES)):
        events = Events.random(len(part), np.random.default_rng((seed, number)))
        pq.write_table(aggregates(part, events, manifest), folder / "data" / f"part-{number:05d}.parquet")
    return str(folder)


@dataclass(frozen=True)
class Events:
    """Events of some users, one user after the other."""

    users: int
    row: Array
    """Number of each event's user, 0 to users - 1, ascending."""
    age: Array
    """Age of each event in days before the snapshot."""
    numbers: dict[str, Array]
    ids: dict[str, Array]

    @classmethod
    def random(cls, users: int, generator: np.random.Generator, per_user: int = EVENTS_PER_USER) -> "Events":
        row = np.repeat(np.arange(users), generator.geometric(1 / per_user, users))
        return cls(
            users=users,
            row=row,
            age=generator.uniform(0, WINDOWS[-1], len(row)),
            numbers={name: generator.normal(50, 20, len(row)) for name in NUMERIC},
            ids={
                field: FIRST_VALUE_ID + np.minimum(generator.zipf(1.3, len(row)) - 1, size - 1 - FIRST_VALUE_ID)
                for field, size in SIZES.items()
            },
        )


def aggregates(users: Array, events: Events, manifest: Manifest) -> pa.Table:
    row, age = events.row, events.age
    starts = np.searchsorted(row, np.arange(len(users)))
    columns: dict[str, Any] = {"user_id": users, "as_of": np.full(len(users), np.datetime64(AS_OF))}
    columns["recency_days"] = np.minimum.reduceat(age, starts)
    columns["tenure_days"] = np.maximum.reduceat(age, starts)
    for w in WINDOWS:
        inside = age <= w
        columns[f"events_{w}d"] = np.bincount(row[inside], minlength=len(users))
        columns[f"active_days_{w}d"] = np.minimum(columns[f"events_{w}d"], w)
        for name, value in events.numbers.items():
            columns |= _statistics(name, w, row[inside], value[inside], len(users))
    for field, ids in events.ids.items():
        columns |= _histogram(field, ids, row, age, len(users))
    return pa.table({c.name: columns[c.name] for c in manifest.columns})


def _statistics(name: str, w: int, row: Array, value: Array, users: int) -> dict[str, Any]:
    count = np.bincount(row, minlength=users)
    total = np.bincount(row, value, minlength=users)
    nothing = count == 0
    mean = total / np.maximum(count, 1)
    std = np.sqrt(np.maximum(np.bincount(row, value**2, minlength=users) / np.maximum(count, 1) - mean**2, 0))
    found: dict[str, Any] = {f"{name}_count_{w}d": count, f"{name}_sum_{w}d": total}
    for statistic, values in {"mean": mean, "std": std, "min": mean - std, "max": mean + std}.items():
        found[f"{name}_{statistic}_{w}d"] = pa.array(values, mask=nothing)
    return found


def _histogram(field: str, ids: Array, row: Array, age: Array, users: int) -> dict[str, Any]:
    size = SIZES[field]
    keys, position = np.unique(row * size + ids, return_inverse=True)
    of_user = keys // size
    offsets = np.concatenate(([0], np.cumsum(np.bincount(of_user, minlength=users)))).astype(np.int32)
    found: dict[str, Any] = {f"{field}_ids": pa.ListArray.from_arrays(offsets, (keys % size).astype(np.int32))}
    for w in WINDOWS:
        counts = np.bincount(position[age <= w], minlength=len(keys)).astype(np.int32)
        found[f"{field}_counts_{w}d"] = pa.ListArray.from_arrays(offsets, counts)
        found[f"{field}_distinct_{w}d"] = np.bincount(of_user[counts > 0], minlength=users)
    return found


class _Rates(logging.Handler):
    """Collects the users per second that training logs for each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("epoch") and isinstance(record.args, tuple):
            self.found.append(float(str(record.args[-1])))


def epoch_rates(snapshot: str, model: GurModel, training: Training) -> list[float]:
    """Users per second of each epoch, its validation and checkpoint included."""
    rates = _Rates()
    logger = logging.getLogger("gur_spark")
    logger.addHandler(rates)
    logger.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        trained_version([snapshot], VocabularyRef(version=1, hash="benchmark", sizes=SIZES), model, training, folder)
    logger.removeHandler(rates)
    return rates.found


def decode_rate(batches: Iterator[AggregateBatch]) -> float:
    clock = time.perf_counter()
    users = sum(len(batch) for batch in batches)
    return users / (time.perf_counter() - clock)


def model_rate(module: GUR, batches: list[AggregateBatch], learning_rate: float) -> float:
    """Measure forward, backward and Adam on batches that are already decoded."""
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True)
    clock = time.perf_counter()
    for batch in batches:
        optimizer.zero_grad()
        reconstruction_loss(module(batch), batch).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return sum(map(len, batches)) / (time.perf_counter() - clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--epochs", type=int, default=3, help="the first one is not counted")
    parser.add_argument("--json", metavar="OUT", help="also write the result to this file")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="such as training.batch_size=1024")
    args = parser.parse_args()
    base = OmegaConf.merge(OmegaConf.load(base_file()), OmegaConf.from_dotlist(args.overrides))
    model = GurModel(**base.model)
    training = Training(**{**base.training, "epochs": args.epochs, "device": "cpu"})
    if training.processes > 1:
        parser.error("the rates of several processes are in their own logs; expected training.processes=1")
    torch.set_num_threads(training.threads)
    with tempfile.TemporaryDirectory() as folder:
        snapshot = make_snapshot(Path(folder) / "snapshot", args.users)
        manifest = read_manifest(snapshot, Manifest)
        layout = Layout.of(manifest, SIZES)
        rates = epoch_rates(snapshot, model, training)
        decoding = decode_rate(stream([snapshot], layout, training.batch_size, shuffle_seed=1))
        some = [batch for batch, _ in zip(stream([snapshot], layout, training.batch_size), range(60), strict=False)]
    result = {
        "users": args.users,
        "epoch_users_per_s": round(statistics.median(rates[1:])),
        "decode_users_per_s": round(decoding),
        "model_users_per_s": round(model_rate(GUR(layout, model), some, training.learning_rate)),
        "batch_size": training.batch_size,
        "threads": training.threads,
    }
    print(json.dumps(result, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
