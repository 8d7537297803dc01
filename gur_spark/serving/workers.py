"""Aggregates -> embeddings on the workers: the one step that sees both Spark and torch.

Each task is one row group of the snapshot, which the worker reads with pyarrow as training does: the rows
do not pass through the JVM, which would take as long as embedding them. The model travels to the workers
inside the task; each worker process loads it once. A user's embedding depends on the user's row alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyspark.sql import DataFrame, SparkSession

from gur_spark import schema
from gur_spark.arrays import to_lists
from gur_spark.errors import ModelError, TableError
from gur_spark.registry import artefact as registry
from gur_spark.registry.artefact import LoadedModel
from gur_spark.snapshots.files import RowGroup, differing_columns, row_groups
from gur_spark.snapshots.visible import Snapshot

_PLACES = pa.schema([("row_group", pa.int32()), ("row", pa.int32())])

Kernel = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


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
    spark: SparkSession,
    snapshot: Snapshot,
    files: Mapping[str, bytes],
    model: LoadedModel,
    batch_rows: int,
    places: DataFrame | None = None,
) -> DataFrame:
    """One row per row of the snapshot: user_id, embedding, events (of the longest window).

    Args:
        places: row_group and row of those that are wanted; default: all of them.
    """
    user_id = schema.SQL_USER_ID[model.manifest.user_id_type]
    groups = row_groups(snapshot.path)
    rows = sum(group.rows for group in groups)
    if rows != snapshot.rows:
        raise TableError(f"aggregates of {snapshot.as_of} have {rows} rows in {snapshot.path}, not {snapshot.rows}")
    columns = ["user_id", *model.layout.columns]
    if places is None:
        # One id, and so one row group, per task.
        tasks, kernel = spark.range(0, len(groups), 1, len(groups)), all_rows(groups, files, columns, batch_rows)
    else:
        tasks, kernel = places.repartition("row_group"), some_rows(groups, files, columns)
    return tasks.mapInArrow(kernel, f"user_id {user_id}, embedding ARRAY<FLOAT>, events BIGINT")


def all_rows(groups: Sequence[RowGroup], files: Mapping[str, bytes], columns: Sequence[str], batch_rows: int) -> Kernel:
    """The function that runs on a worker, over the ids of the row groups of one task."""
    frozen = tuple(sorted(files.items()))

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        model = load_once(frozen)
        for number in (number for batch in batches for number in batch["id"].to_pylist()):
            for rows in groups[number].read(columns, batch_rows):
                yield embed_batch(model, rows)

    return score


def some_rows(groups: Sequence[RowGroup], files: Mapping[str, bytes], columns: Sequence[str]) -> Kernel:
    """The same over places in row groups, all those of a row group in one task."""
    frozen = tuple(sorted(files.items()))

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        places = pa.Table.from_batches(batches, _PLACES)
        for number in places["row_group"].unique().to_pylist():
            wanted = places.filter(pc.field("row_group") == number)["row"].sort()
            rows = pa.Table.from_batches(groups[number].read(columns, groups[number].rows)).take(wanted)
            yield embed_batch(load_once(frozen), rows.combine_chunks().to_batches()[0])

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
    events = rows[f"events_{model.manifest.windows[-1]}d"]
    return pa.RecordBatch.from_pydict({"user_id": rows["user_id"], "embedding": to_lists(vectors), "events": events})
