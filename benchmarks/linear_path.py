"""Time and memory of the linear path's fit: standardisation, exact covariance and varimax over many users.

    python -m benchmarks.linear_path --users 1000000 --inputs 500 --json OUT

It writes a Parquet snapshot of 100,000 random users once, and reads it as often as it takes to reach ``--users``, so
the time holds the decoding of every row, twice. ``--inputs`` counts the columns that are not shares. ``--ids`` sets the
number of values of the one category: with many, a randomised search takes the place of the covariance.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.windows import report
from gur_spark.batches.aggregates import AggregateBatch
from gur_spark.batches.layout import Layout
from gur_spark.batches.streams import READ_ROWS, stream
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import Manifest, NumericField
from gur_spark.models.gur.linear_fit import Standardisation, fit_linear_path
from gur_spark.models.gur.linear_path import LinearPath
from gur_spark.schema import FIRST_VALUE_ID

WINDOWS = (7, 30, 180)
WRITTEN = 100_000
"""Users of the snapshot."""
FACTORS = 60
"""Directions in which the numbers vary together."""
IDS_PER_USER = 8


def main() -> int:
    parser = argparse.ArgumentParser(description="time of the linear path's fit")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--inputs", type=int, default=500, help="columns that are not shares")
    parser.add_argument("--ids", type=int, default=20, help="values of the category")
    parser.add_argument("--width", type=int, default=60, help="dimensions")
    parser.add_argument("--json", metavar="OUT")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="gur_linear_") as work:
        return report(measure(Path(work), args), args.json)


def measure(work: Path, args: argparse.Namespace) -> dict[str, object]:
    manifest = manifest_of(args.inputs)
    layout = Layout.of(manifest, {"category": args.ids + FIRST_VALUE_ID})
    users = min(args.users, WRITTEN)
    folders = [write(work, manifest, users, args.ids)] * -(-args.users // users)

    def batches() -> Iterator[AggregateBatch]:
        return stream(folders, layout, READ_ROWS)

    before, clock = _peak_mb(), time.perf_counter()
    path, standardisation = LinearPath(layout, args.width), Standardisation(layout)
    for batch in batches():
        standardisation.update(batch)
    standardisation.set(path)
    standardised = time.perf_counter() - clock
    fit = fit_linear_path(path, batches)
    return {
        "users": len(folders) * users,
        "columns": path.columns,
        "seconds": round(time.perf_counter() - clock, 1),
        "of_standardisation": round(standardised, 1),
        "peak_mb": round(_peak_mb()),
        "peak_mb_before": round(before),
        "variance": round(fit.share, 4),
    }


def manifest_of(inputs: int) -> Manifest:
    """Choose as many numbers as give about so many columns that are not shares: each has 18, and 3 flags."""
    count = max(1, (inputs - 14) // 21)
    fields = [NumericField(name=f"number{n}", step=Decimal("0.01"), transform="none") for n in range(count)]
    return make_manifest("long", WINDOWS, fields, ("category",))


def write(work: Path, manifest: Manifest, users: int, ids: int) -> str:
    """Write a snapshot of random users; returns its folder."""
    random, folder = np.random.default_rng(0), work / "snapshot"
    (folder / "data").mkdir(parents=True)
    (folder / "manifest.json").write_text(manifest.to_json())
    mixed = random.normal(size=(FACTORS, len(manifest.dense))) * np.linspace(2, 0.2, FACTORS)[:, None]
    numbers = random.normal(size=(users, FACTORS)) @ mixed + random.normal(size=(users, len(manifest.dense)))
    there = random.random((users, len(manifest.dense))) > 0.05
    columns: dict[str, object] = {"user_id": np.arange(users)}
    for place, column in enumerate(manifest.dense):
        values = np.abs(numbers[:, place]).round() if column.dtype == "long" else numbers[:, place]
        columns[column.name] = pa.array(values.astype(np.int64) if column.dtype == "long" else values)
        if column.null != "never":
            columns[column.name] = pa.array(values, mask=~there[:, place])
    offsets = np.arange(users + 1, dtype=np.int32) * IDS_PER_USER
    own = FIRST_VALUE_ID + (random.zipf(1.2, (users, IDS_PER_USER)) + np.arange(IDS_PER_USER)) % ids
    lists = {"category_ids": own.ravel().astype(np.int32)}
    lists |= {f"category_counts_{w}d": random.integers(0, 5, users * IDS_PER_USER, dtype=np.int32) for w in WINDOWS}
    columns |= {name: pa.ListArray.from_arrays(offsets, values) for name, values in lists.items()}
    pq.write_table(pa.table(columns), folder / "data" / "part-00000.parquet", row_group_size=25_000)
    return str(folder)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
