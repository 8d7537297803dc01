"""CoLES on our loader beside CoLES on pytorch-lifestream's own: data, an epoch, and the embeddings of all users.

    python -m benchmarks.encoders --json OUT

Both sides read the same Parquet files, 20,000 users by default, once with 100 events each and once with lognormal
lengths of median 60, and train the same module (GRU 120) on slices by the same rule (five of 25 to 200 events) in
batches of 64 users. Theirs: ``ParquetDataset``, ``ColesIterableDataset``, ``collate_feature_dict``,
``HardNegativePairSelector`` and ``InferenceModule``. Ours: the direct loader, four length buckets, and ``cdist`` for
hard negatives. Seconds are of CPU, with one thread; ratios are ours over theirs, of one run. ``plain_embed`` is their
loader with a loop of one's own in the place of ``InferenceModule``, which makes data frames. The embeddings of both
sides are compared. With ``--scoring``, scoring through Spark is measured beside the bare forward.
"""

import argparse
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from omegaconf import OmegaConf

from benchmarks.encoders_data import (
    BATCH_USERS,
    MODEL,
    VOCABULARY,
    Draw,
    Vectors,
    everyone,
    fixed,
    layout,
    lognormal,
    make_snapshot,
    manifest,
    new_module,
)
from benchmarks.encoders_library import Theirs
from benchmarks.encoders_scoring import measure_scoring
from gur_spark import storage
from gur_spark.config.file import base_file
from gur_spark.config.training import Training
from gur_spark.models.kind import Fitted, Trained
from gur_spark.models.lifestream.coles import KIND
from gur_spark.models.lifestream.learner import ColesLearner
from gur_spark.models.lifestream.scorer import scorer_of
from gur_spark.registry.artefact import Origin, save

SCORED_ROWS = 4096
"""Users that are scored at a time."""

GOALS = {
    "fixed": {"data_ratio": 0.1, "epoch_ratio": 0.7, "embed_ratio": 0.2},
    "lognormal": {"data_ratio": 0.1, "epoch_ratio": 0.45, "embed_ratio": 0.2},
}
SCORING_GOAL = 1.5


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--scoring", action="store_true", help="scoring through Spark beside the bare forward, too")
    parser.add_argument("--scored-users", type=int, default=100_000, help="of scoring")
    parser.add_argument("--runs", type=int, default=3, help="of scoring, after a warm-up")
    parser.add_argument("--json", metavar="OUT", help="also write the result to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    result: dict[str, Any] = {"coles": {draw.__name__: measure(draw, args.users) for draw in (fixed, lognormal)}}
    if args.scoring:
        result["scoring"] = score(lognormal, args.scored_users, args.runs)
    print(json.dumps(result, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    for name, goals in GOALS.items():
        for ratio, goal in goals.items():
            say(f"{name} {ratio}", result["coles"][name][ratio], goal)
    if args.scoring:
        say("scoring ratio", result["scoring"]["ratio"], SCORING_GOAL)
    compared = [*result["coles"].values(), *([result["scoring"]] if args.scoring else [])]
    return 0 if all(found["equal"] for found in compared) else 1


def say(name: str, ratio: float, goal: float) -> None:
    print(f"{name} {ratio:.3f}: goal {goal} {'reached' if ratio <= goal else 'MISSED'}")


def measure(draw: Draw, users: int) -> dict[str, Any]:
    """Seconds of both sides, their ratios, and whether both give the same embeddings."""
    with tempfile.TemporaryDirectory() as folder:
        make_snapshot(Path(folder), draw(users, np.random.default_rng(0)))
        theirs, ours = Theirs(folder), Ours(folder)
        works = [(theirs, "plain_embed"), *((side, work) for work in ours.works for side in (theirs, ours))]
        seconds: dict[str, dict[str, float]] = {"theirs": {}, "ours": {}}
        vectors: dict[str, Vectors] = {}
        for side, work in works:
            name = "ours" if side is ours else "theirs"
            clock = time.process_time()
            made = getattr(side, work)()
            seconds[name][work] = time.process_time() - clock
            print(f"{draw.__name__} {work}, {name}: {seconds[name][work]:.2f} s", flush=True)
            if work == "embed":
                vectors[name] = made
    difference = float(np.abs(vectors["ours"] - vectors["theirs"]).max())
    return {
        **{f"{work}_ratio": seconds["ours"][work] / seconds["theirs"][work] for work in seconds["ours"]},
        "plain_embed_ratio": seconds["ours"]["embed"] / seconds["theirs"]["plain_embed"],
        "seconds": seconds,
        "users": users,
        "largest_difference": difference,
        "equal": difference < 1e-5,
    }


class Ours:
    """The direct loader and its encoder."""

    works = ("data", "embed", "epoch")

    def __init__(self, folder: str) -> None:
        side, self._module = everyone(folder), new_module(folder)
        self._groups = side.groups
        self._learner = ColesLearner(
            module=self._module, layout=layout(), model=MODEL, training=settings(), sides=(side, side)
        )

    def data(self) -> None:
        """Batches of an epoch, without a model."""
        for _ in self._learner.batches(0, (0, 1)):
            pass

    def epoch(self) -> None:
        """An epoch of training."""
        self._module.train().requires_grad_(True)
        optimizer, _ = self._learner.optimizer(self._learner.training)
        for batch in self._learner.batches(1, (0, 1)):
            optimizer.zero_grad()
            self._learner.loss(batch, 1).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def embed(self) -> Vectors:
        """Embeddings of all users in the order of user_id."""
        scorer = scorer_of(self._module, layout())
        made = [
            scorer.score(rows)["embeddings"]
            for group in self._groups
            for rows in group.read(scorer.columns, SCORED_ROWS)
        ]
        users = np.concatenate([rows["user_id"].to_numpy() for rows in made])
        vectors = np.concatenate([rows["embedding"].values.to_numpy().reshape(len(rows), -1) for rows in made])
        ordered: Vectors = vectors[np.argsort(users)]
        return ordered


def settings() -> Training:
    return Training(**{**OmegaConf.load(base_file()).training, "batch_size": BATCH_USERS})


def score(draw: Draw, users: int, runs: int) -> dict[str, Any]:
    """An untrained version, which is as fast as a trained one, scored through Spark and without."""
    with tempfile.TemporaryDirectory() as folder:
        snapshot = storage.join(folder, "snapshot")
        make_snapshot(Path(snapshot), draw(users, np.random.default_rng(0)))
        fitted = Fitted(metrics={}, epochs=(), checkpoints="")
        trained = Trained(tensors=new_module(snapshot).state_dict(), manifest=manifest(), fitted=fitted)
        origin = Origin(snapshots=(), dates=(), seen_until=date(1970, 1, 1))
        card = save(storage.join(folder, "models"), KIND, trained, MODEL, settings(), VOCABULARY, origin)
        model = storage.join(folder, "models", card.model_version)
        return measure_scoring(Path(folder), snapshot, model, manifest(), runs)


if __name__ == "__main__":
    sys.exit(main())
