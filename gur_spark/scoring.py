"""Aggregates -> embeddings: the one step that sees both Spark and torch.

Each task is one row group of the snapshot, which the worker reads with pyarrow as training does: the rows
do not pass through the JVM, which would take as long as embedding them. The model travels to the workers
inside the task; each worker process loads it once. A user's embedding depends on the user's row alone.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark import registry, schema
from gur_spark.config import Config
from gur_spark.errors import ModelError, TableError
from gur_spark.publishing import check_replacement
from gur_spark.registry import LoadedModel
from gur_spark.runs import Run
from gur_spark.snapshot_files import RowGroup, row_groups
from gur_spark.snapshots import Snapshot, differing_columns
from gur_spark.tables import Tables, check_keys

log = logging.getLogger("gur_spark")

Kernel = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def score_snapshot(
    tables: Tables, config: Config, snapshot: Snapshot, model_path: str, run: Run, force: bool = False
) -> str:
    """Embed every user of a snapshot and replace exactly this (model_version, as_of) in ``embeddings``.

    Rows that are published are replaced only by such as pass the gates against them, or by ``force``.

    Returns the model version.

    Raises:
        ModelError: the model is damaged, was trained on other aggregates, or gives a value that is not finite.
        TableError: the snapshot's Parquet is not what its row says.
        GateError: a gate is not passed; nothing was replaced.
    """
    files = registry.pack(model_path)
    model = registry.unpack(files)
    check_fit(model, snapshot)
    aggregates = tables.spark.read.parquet(snapshot.data)
    rows = check_keys(aggregates, ["user_id"], f"aggregates of {snapshot.as_of}")
    if rows != snapshot.rows:
        raise TableError(
            f"aggregates of {snapshot.as_of} at {snapshot.data} have {rows} rows; snapshots says {snapshot.rows}"
        )
    frame = embed(tables.spark, snapshot, files, model, config.scoring.batch_rows)
    keyed = frame.select(
        "user_id",
        F.lit(snapshot.as_of).alias("as_of"),
        F.lit(model.version).alias("model_version"),
        "embedding",
        "events",
    )
    if not force:
        check_replacement(tables, config, keyed, model.version, snapshot.as_of)
    tables.create("embeddings", schema.embeddings_schema(model.manifest.user_id_type), ["model_version", "as_of"])
    tables.replace(keyed, "embeddings", f"model_version = '{model.version}' AND as_of = DATE '{snapshot.as_of}'")
    run.inputs |= {"model": model.version, f"snapshot {snapshot.as_of}": snapshot.path}
    run.outputs[f"embeddings {snapshot.as_of}"] = f"model_version={model.version}"
    run.counts[f"rows {snapshot.as_of}"] = rows
    return model.version


def check_fit(model: LoadedModel, snapshot: Snapshot) -> None:
    """Refuse aggregates that are not the model's.

    Raises:
        ModelError: another manifest or vocabulary; the message names the columns or the versions.
    """
    if snapshot.manifest_hash != model.manifest.hash:
        differ = differing_columns(snapshot.manifest(), model.manifest)
        raise ModelError(
            f"model {model.version} was trained on manifest {model.manifest.hash}, the snapshot of {snapshot.as_of} "
            f"has {snapshot.manifest_hash}; they differ in {differ}"
        )
    if snapshot.vocabulary_hash != model.vocabulary_hash:
        raise ModelError(
            f"model {model.version} was trained with vocabulary {model.vocabulary_version} ({model.vocabulary_hash}), "
            f"the snapshot of {snapshot.as_of} has {snapshot.vocabulary_version} ({snapshot.vocabulary_hash}); "
            f"aggregate again with --vocabulary {model.vocabulary_version}, or train a new version"
        )


def embed(
    spark: SparkSession, snapshot: Snapshot, files: Mapping[str, bytes], model: LoadedModel, batch_rows: int
) -> DataFrame:
    """One row per row of the snapshot: user_id, embedding, events (of the longest window)."""
    user_id = schema.SQL_USER_ID[model.manifest.user_id_type]
    groups = row_groups(snapshot.path)
    rows = sum(group.rows for group in groups)
    if rows != snapshot.rows:
        raise TableError(f"aggregates of {snapshot.as_of} have {rows} rows in {snapshot.path}, not {snapshot.rows}")
    # One id, and so one row group, per task.
    return spark.range(0, len(groups), 1, len(groups)).mapInArrow(
        kernel(groups, files, ["user_id", *model.layout.columns], batch_rows),
        f"user_id {user_id}, embedding ARRAY<FLOAT>, events BIGINT",
    )


def kernel(groups: Sequence[RowGroup], files: Mapping[str, bytes], columns: Sequence[str], batch_rows: int) -> Kernel:
    """The function that runs on a worker, over the ids of the row groups of one task."""
    frozen = tuple(sorted(files.items()))

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        model = load_once(frozen)
        for number in (number for batch in batches for number in batch["id"].to_pylist()):
            for rows in groups[number].read(columns, batch_rows):
                yield embed_batch(model, rows)

    return score


@lru_cache(maxsize=1)
def load_once(files: tuple[tuple[str, bytes], ...]) -> LoadedModel:
    """The model of this worker process; Spark reuses the process for the next task."""
    # Spark runs one worker per core: more torch threads would only wait for each other.
    torch.set_num_threads(1)
    return registry.unpack(dict(files))


def embed_batch(model: LoadedModel, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Embeddings of one batch, checked: one finite vector of the model's width per row."""
    vectors = model.embed(rows)
    if vectors.shape != (rows.num_rows, model.latent_dim):
        raise ModelError(
            f"model {model.version} gave shape {vectors.shape}, expected {(rows.num_rows, model.latent_dim)}"
        )
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        user = rows["user_id"][int(np.argmin(finite))].as_py()
        raise ModelError(f"model {model.version} gives user {user!r} an embedding that is not finite")
    lists = pa.ListArray.from_arrays(
        np.arange(rows.num_rows + 1, dtype=np.int32) * model.latent_dim, pa.array(vectors.reshape(-1))
    )
    events = rows[f"events_{model.manifest.windows[-1]}d"]
    return pa.RecordBatch.from_arrays([rows["user_id"], lists, events], names=["user_id", "embedding", "events"])
