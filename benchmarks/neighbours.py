"""Nearest users: seconds of the exact search and of the index, and the index's recall of the exact neighbours.

    python -m benchmarks.neighbours --users 100000 --json OUT
    python -m benchmarks.neighbours --folder EXPORT      # of a real version: jobs/export.py --format numpy

Without a folder, the embeddings are made up: 200 groups in 16 directions of their own, and noise in all 64. An
autoencoder's embeddings are like that (few directions matter). Both sides use one thread. The users asked about are
chosen at random.
"""

import argparse
import sys
import time
from statistics import mean
from typing import get_args

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from benchmarks.windows import report
from gur_spark.consumers.nearest import Metric
from gur_spark.consumers.neighbours import Search, UserVectors, exact, hnsw

WIDTH, DIRECTIONS, GROUPS = 64, 16, 200
K = 10


def main() -> int:
    parser = argparse.ArgumentParser(description="nearest users, exact and approximate")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=1000)
    parser.add_argument("--folder", help="a NumPy export to take the embeddings from")
    parser.add_argument("--json", metavar="OUT")
    args = parser.parse_args()
    with threadpool_limits(1):
        return report(measure(args), args.json)


def measure(args: argparse.Namespace) -> dict[str, object]:
    users = UserVectors.open(args.folder) if args.folder else made_up(args.users)
    n, width = users.x_NL.shape
    rng = np.random.default_rng(1)
    asked = users.ids_N.take(pa.array(rng.choice(n, min(args.asked, n), replace=False))).to_pylist()
    found = {metric: compare(users, metric, asked) for metric in get_args(Metric)}
    return {"users": n, "width": width, "asked": len(asked), "k": K, **found}


def compare(users: UserVectors, metric: Metric, asked: list[int]) -> dict[str, float]:
    start = time.monotonic()
    index = hnsw(users, metric)
    index_s = time.monotonic() - start
    (exact_s, ours), (hnsw_s, theirs) = (answered(search, asked) for search in (exact(users, metric), index))
    recall = mean(len(ours[user] & theirs[user]) / len(ours[user]) for user in asked)
    print(f"{metric:10} exact {exact_s:6.2f} s   index {index_s:6.1f} s, then {hnsw_s:5.2f} s, recall {recall:.4f}")
    return {"exact_s": exact_s, "index_s": index_s, "hnsw_s": hnsw_s, "recall": recall}


def answered(search: Search, asked: list[int]) -> tuple[float, dict[int, set[int]]]:
    """Seconds, and the neighbours of each user."""
    start = time.monotonic()
    table = search.nearest(asked, K)
    seconds = time.monotonic() - start
    near: dict[int, set[int]] = {}
    for row in table.to_pylist():
        near.setdefault(row["user_id"], set()).add(row["neighbour"])
    return seconds, near


def made_up(count: int) -> UserVectors:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(GROUPS, DIRECTIONS)) * 2
    inner = centres[rng.integers(0, GROUPS, count)] + rng.normal(size=(count, DIRECTIONS))
    x_NL = inner @ rng.normal(size=(DIRECTIONS, WIDTH)) + 0.3 * rng.normal(size=(count, WIDTH))
    return UserVectors(pa.array(np.arange(count)), x_NL.astype(np.float32))


if __name__ == "__main__":
    sys.exit(main())
