"""CoLES scored through Spark beside the bare forward over the same Parquet: ``benchmarks.encoders --scoring``."""

import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import numpy as np

from benchmarks.scoring import BATCH_ROWS, CORES, bare_forward
from benchmarks.training import AS_OF
from gur_spark.config.file import load_config
from gur_spark.config.session import Spark
from gur_spark.features.declare.manifest import SequenceManifest
from gur_spark.models.kind import Form
from gur_spark.serving.scoring import score_snapshot
from gur_spark.session import local_conf, local_session
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.open import open_tables


def measure_scoring(work: Path, folder: str, model: str, manifest: SequenceManifest, runs: int) -> dict[str, Any]:
    """Seconds of both sides, medians after a warm-up.

    Ours checks the keys, embeds in ``mapInArrow`` on two cores and commits to Delta. The bare side is one process that
    reads batches with pyarrow, embeds them with torch's threads on both cores and keeps the result in memory.
    """
    options = [f"tables.root={work}/tables", f"scoring.batch_rows={BATCH_ROWS}"]
    config = load_config("conf/demo_coles.yaml", options)
    spark = local_session(local_conf(Spark(cores=CORES, memory="4g", shuffle_partitions=4)), "benchmarks.encoders")
    tables = open_tables(spark, config.tables)
    expected = bare_forward(folder, model)
    snapshot = Snapshot(
        form=Form.SEQUENCES, as_of=AS_OF, known_at=datetime(AS_OF.year, AS_OF.month, AS_OF.day, tzinfo=UTC),
        path=folder, manifest_hash=manifest.hash, vocabulary_version=1, vocabulary_hash="benchmark",
        lineage="", rows=len(expected), checksum="",
    )  # fmt: skip
    taken: dict[str, list[float]] = {"spark_s": [], "bare_s": []}
    for attempt in range(runs + 1):
        clock = time.monotonic()
        version = score_snapshot(tables, config, snapshot, model, uuid4().hex).model_version
        taken["spark_s"].append(time.monotonic() - clock)
        clock = time.monotonic()
        bare_forward(folder, model)
        taken["bare_s"].append(time.monotonic() - clock)
        note = " (warm-up)" if attempt == 0 else ""
        print(", ".join(f"{name} {seconds[-1]:.2f}" for name, seconds in taken.items()) + note, flush=True)
    stored = tables.read("embeddings").where(f"model_version = '{version}'").orderBy("user_id").toArrow()
    found = stored["embedding"].combine_chunks().values.to_numpy().reshape(len(expected), -1)
    spark.stop()
    medians = {name: median(seconds[1:]) for name, seconds in taken.items()}
    return {
        **medians,
        "ratio": medians["spark_s"] / medians["bare_s"],
        "equal": bool(np.allclose(found, expected, atol=1e-5)),
        "users": len(expected),
        "runs": {name: seconds[1:] for name, seconds in taken.items()},
    }
