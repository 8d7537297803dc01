"""Scoring on the workers: rows of a snapshot become rows of an output, by any kind's scorer.

Each task is one row group of the snapshot. The worker reads it with pyarrow, as training does: passing the rows through
the JVM would take as long as scoring them. The model travels to the workers inside the task, and each worker process
loads it once. A user's result depends on the user's row alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyspark.sql import DataFrame, SparkSession

from gur_spark.arrays import ArrowMapper
from gur_spark.errors import ModelError, TableError
from gur_spark.outputs.catalogue import find_output
from gur_spark.outputs.output import Output
from gur_spark.registry.artefact import LoadedModel, unpack
from gur_spark.snapshots.files import RowGroup, row_groups
from gur_spark.snapshots.visible import Snapshot

_PLACES = pa.schema([("row_group", pa.int32()), ("row", pa.int32())])


def score_rows(
    spark: SparkSession,
    snapshot: Snapshot,
    files: Mapping[str, bytes],
    model: LoadedModel,
    output: Output,
    batch_rows: int,
    places: DataFrame | None = None,
) -> DataFrame:
    """Score a snapshot: the rows of an output, without the columns of the run.

    Args:
        places: row_group and row of the wanted rows; default: all rows.

    Raises:
        TableError: the snapshot's files have another number of rows than its row in ``snapshots`` says.
    """
    groups = row_groups(snapshot.path)
    rows = sum(group.rows for group in groups)
    if rows != snapshot.rows:
        raise TableError(
            f"{snapshot.form} of {snapshot.as_of} have {rows} rows in {snapshot.path}, not {snapshot.rows}"
        )
    columns = model.scorer.columns
    if places is None:
        # Each task has one id, and so one row group.
        tasks = spark.range(0, len(groups), 1, len(groups))
        kernel = all_rows(groups, files, output.name, columns, batch_rows)
    else:
        tasks, kernel = places.repartition("row_group"), some_rows(groups, files, output.name, columns)
    return tasks.mapInArrow(kernel, output.scored_schema(model.manifest.user_id_type))


def all_rows(
    groups: Sequence[RowGroup], files: Mapping[str, bytes], output: str, columns: Sequence[str], batch_rows: int
) -> ArrowMapper:
    """Make the function that runs on a worker, over the ids of the row groups of one task."""
    frozen = tuple(sorted(files.items()))

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        model = load_once(frozen)
        for number in (number for batch in batches for number in batch["id"].to_pylist()):
            for rows in groups[number].read(columns, batch_rows):
                yield score_batch(model, rows, output)

    return score


def some_rows(
    groups: Sequence[RowGroup], files: Mapping[str, bytes], output: str, columns: Sequence[str]
) -> ArrowMapper:
    """Make the same function over places in row groups. All places of a row group are in one task."""
    frozen = tuple(sorted(files.items()))

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        places = pa.Table.from_batches(batches, _PLACES)
        for number in places["row_group"].unique().to_pylist():
            wanted = places.filter(pc.field("row_group") == number)["row"].sort()
            rows = pa.Table.from_batches(groups[number].read(columns, groups[number].rows)).take(wanted)
            yield score_batch(load_once(frozen), rows.combine_chunks().to_batches()[0], output)

    return score


@lru_cache(maxsize=1)
def load_once(files: tuple[tuple[str, bytes], ...]) -> LoadedModel:
    """Load the model of this worker process; Spark reuses the process for the next task."""
    # Spark runs one worker per core. More torch threads would only wait for each other.
    torch.set_num_threads(1)
    return unpack(dict(files))


def score_batch(model: LoadedModel, rows: pa.RecordBatch, output: str) -> pa.RecordBatch:
    """Score one batch, and check its rows by the output's contract.

    Raises:
        ModelError: the scorer gives another number of rows, or one that breaks the contract.
    """
    made = model.scorer.score(rows)[output]
    if made.num_rows != rows.num_rows:
        raise ModelError(f"model {model.version} gave {made.num_rows} {output} for {rows.num_rows} rows")
    find_output(output).check_batch(made, model.version)
    return made
