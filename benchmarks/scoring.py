"""Scoring through Spark against the bare torch forward over the same Parquet, on the same cores.

    python -m benchmarks.scoring --json OUT

Both sides read the same aggregates and load the same model. Ours checks the keys, embeds in ``mapInArrow`` and
commits to Delta. The bare side is the plain loop one would write: one process that reads batches with pyarrow,
runs the module with torch's own threads and keeps the result in memory; ``processes`` is the same in as many
processes as Spark has cores, one torch thread each. The embeddings are compared. ``unchanged`` is the date scored again
with ``--changed-since`` itself where nobody changed: the least that copying embeddings can take.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.training import SIZES, make_snapshot
from benchmarks.versions import untrained_version
from gur_spark.config.file import load_config
from gur_spark.config.session import Spark
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import Form, VocabularyRef
from gur_spark.registry.artefact import load_model
from gur_spark.serving.scoring import score_snapshot
from gur_spark.session import local_conf, local_session
from gur_spark.snapshots.files import read_manifest
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables

CORES = 2
BATCH_ROWS = 4096
AS_OF = date(2024, 6, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Spark scoring against the bare torch forward")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", metavar="OUT")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="gur_scoring_"))
    try:
        result = measure(work, args.users, args.runs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(json.dumps(result, indent=2))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["equal"] else 1


def measure(work: Path, users: int, runs: int) -> dict[str, Any]:
    folder = make_snapshot(work / "snapshot", users)
    manifest = read_manifest(folder, Manifest)
    model = make_model(str(work / "artefacts"), manifest)
    tables, config, snapshot = set_up(work, folder, manifest, users)
    seconds: dict[str, list[float]] = {name: [] for name in ("spark_s", "unchanged_s", "bare_s", "bare_processes_s")}

    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
        for attempt in range(runs + 1):
            moments = [time.monotonic()]
            version = score_snapshot(tables, config, snapshot, model, uuid4().hex).model_version
            moments.append(time.monotonic())
            score_snapshot(tables, config, snapshot, model, uuid4().hex, changed_since=AS_OF)
            moments.append(time.monotonic())
            expected = bare_forward(folder, model)
            moments.append(time.monotonic())
            forward_in_processes(pool, folder, model)
            moments.append(time.monotonic())
            for name, (start, end) in zip(seconds, pairwise(moments), strict=True):
                seconds[name].append(end - start)
            note = " (warm-up)" if attempt == 0 else ""
            print(", ".join(f"{name} {taken[-1]:.2f}" for name, taken in seconds.items()) + note, flush=True)
    stored = tables.read("embeddings").where(f"model_version = '{version}'").orderBy("user_id").toArrow()
    found = np.stack(stored["embedding"].combine_chunks().values.to_numpy().reshape(users, -1))
    medians = {name: median(taken[1:]) for name, taken in seconds.items()}
    return {
        **medians,
        "ratio": medians["spark_s"] / medians["bare_s"],
        "equal": bool(np.allclose(found, expected, atol=1e-6)),
        "users_per_s": users / medians["spark_s"],
        "users": users,
        "cores": CORES,
        "runs": {name: taken[1:] for name, taken in seconds.items()},
    }


def make_model(parent: str, manifest: Manifest) -> str:
    """An untrained model of the default shape: its speed is that of a trained one."""
    defaults = load_config("conf/demo.yaml", ["model.latent_dim=120"])
    vocabulary = VocabularyRef(version=1, hash="benchmark", sizes=SIZES)
    return untrained_version(parent, manifest, GurModel.of(defaults.model), defaults.training, vocabulary)


def set_up(work: Path, folder: str, manifest: Manifest, users: int) -> tuple[Tables, Any, Snapshot]:
    config = load_config("conf/demo.yaml", [f"tables.root={work}/tables", f"scoring.batch_rows={BATCH_ROWS}"])
    spark = local_session(local_conf(Spark(cores=CORES, memory="4g", shuffle_partitions=4)), "benchmarks.scoring")
    snapshot = Snapshot(
        form=Form.AGGREGATES, as_of=AS_OF, known_at=datetime(2024, 6, 1, tzinfo=UTC), path=folder,
        manifest_hash=manifest.hash, vocabulary_version=1, vocabulary_hash="benchmark",
        lineage="", rows=users, checksum="",
    )  # fmt: skip
    return open_tables(spark, config.tables), config, snapshot


def bare_forward(folder: str, model: str) -> Any:
    """Embeddings of all users in the order of user_id."""
    users, vectors = (np.concatenate(column) for column in zip(*embed_files(data_files(folder), model), strict=True))
    return vectors[np.argsort(users)]


def forward_in_processes(pool: ProcessPoolExecutor, folder: str, model: str) -> None:
    """The same, each process over its share of the files."""
    shares = [data_files(folder)[k::CORES] for k in range(CORES)]
    list(pool.map(embed_files, shares, [model] * CORES, [1] * CORES))


def data_files(folder: str) -> list[str]:
    return sorted(str(f) for f in Path(folder, "data").glob("*.parquet"))


def embed_files(files: list[str], model_path: str, threads: int = CORES) -> list[tuple[Any, Any]]:
    torch.set_num_threads(threads)
    scorer = load_model(model_path).scorer
    made = []
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS):
            vectors = scorer.score(batch)["embeddings"]["embedding"].values.to_numpy()
            made.append((batch["user_id"].to_numpy(), vectors.reshape(batch.num_rows, -1)))
    return made


if __name__ == "__main__":
    sys.exit(main())
