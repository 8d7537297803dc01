"""Export of embeddings to files for readers without Spark and Delta: a folder of Parquet, or of NumPy arrays.

Spark stages the rows as Parquet below the tables, and this process streams them from there. It holds the user ids and
one batch of rows. A rename makes the whole folder appear at once, and ``manifest.json`` describes it.
"""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from gur_spark import storage
from gur_spark.arrays import Ints, matrix
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConsumerError, TableError
from gur_spark.outputs.embeddings import read_embeddings
from gur_spark.spaces.axes import space_of
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account

log = logging.getLogger("gur_spark")

Format = Literal["parquet", "numpy"]

KIND = "gur_spark embeddings"
MANIFEST = "manifest.json"
EMBEDDINGS, USER_IDS = "embeddings.npy", "user_id.npy"
COLUMNS = ("user_id", "as_of", "model_version", "embedding", "events")
BATCH_ROWS = 8192
FILE_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Contents of ``manifest.json``, which describes an export."""

    pipeline: str
    model_version: str
    space: str
    """Version in whose space the embeddings are."""
    as_of: str
    rows: int
    width: int
    form: Format
    kind: str = KIND

    def account(self, folder: str) -> Account:
        """Entries for the row of the run that wrote it to a folder."""
        return Account(
            inputs={"embeddings": f"{self.model_version} at {self.as_of}"},
            counts={"rows": self.rows},
            outputs={"folder": storage.absolute(folder)},
        )


def export_embeddings(
    tables: Tables,
    config: Config,
    folder: str,
    *,
    form: Format = "parquet",
    version: str = "published",
    as_of: date | None = None,
) -> Exported:
    """Write the embeddings of a version and date to a local folder, replacing an older export there.

    Format ``parquet`` has flat files with the columns of ``embeddings``, in no order. Format ``numpy`` has
    ``embeddings.npy``, float32 (N, L), and ``user_id.npy``, (N,), int64 or text, ascending. Both files can be mapped
    (``np.load(..., mmap_mode="r")``), and neither is a pickle.

    If it fails, the folder stays as it was. A killed process leaves a hidden folder beside it.

    Args:
        version, as_of: as in ``read_embeddings``.

    Raises:
        ConsumerError: the folder holds something else, or is not local.
        TableError: there are no such embeddings, or a user has two.
    """
    target = _target(folder)
    frame = read_embeddings(tables.spark, config, version, as_of)
    with _staged(tables, frame) as rows, _swapped_in(target) as partial:
        first = rows.first()
        made = Exported(
            pipeline=config.name,
            model_version=first["model_version"],
            space=space_of(tables, first["model_version"]),
            as_of=str(first["as_of"]),
            rows=len(rows.ids),
            width=len(first["embedding"]),
            form=form,
        )
        _WRITERS[form](partial, rows, made.width)
        (partial / MANIFEST).write_text(json.dumps(vars(made), indent=2, sort_keys=True) + "\n")
    log.info("export: %s users of %s at %s to %s", f"{made.rows:,}", made.model_version, made.as_of, target)
    return made


def read_manifest(folder: str | Path) -> Exported:
    """Read the manifest of an export.

    Raises:
        ConsumerError: the folder is no export.
    """
    try:
        values = json.loads((Path(folder) / MANIFEST).read_text())
        if values["kind"] == KIND:
            return Exported(**values)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ConsumerError(f"{folder} is no export of embeddings: it has no {MANIFEST} that says so")


@dataclass(frozen=True)
class _StagedRows:
    """Embeddings that are staged as Parquet."""

    files: Sequence[pq.ParquetFile]
    ids: pa.ChunkedArray
    place_N: Ints
    """Place of each row in the order of the ids."""

    @classmethod
    def of(cls, files: Sequence[pq.ParquetFile]) -> "_StagedRows":
        """Read the user ids of staged files.

        Raises:
            TableError: a user has two rows.
        """
        ids = pa.chunked_array([chunk for file in files for chunk in file.read(["user_id"])["user_id"].chunks])
        order_N = pc.sort_indices(ids)
        ordered = ids.take(order_N)
        if not pc.all(pc.less(ordered[:-1], ordered[1:]), min_count=0).as_py():
            raise TableError("a user has two embeddings of the version and date; nothing was exported")
        place_N = np.empty(len(ids), np.int64)
        place_N[order_N.to_numpy()] = np.arange(len(ids))
        return cls(files, ids, place_N)

    def first(self) -> dict[str, Any]:
        row: dict[str, Any] = next(self.batches(COLUMNS)).slice(0, 1).to_pylist()[0]
        return row

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for file in self.files:
            yield from file.iter_batches(BATCH_ROWS, columns=list(columns))


@contextmanager
def _staged(tables: Tables, frame: DataFrame) -> Iterator[_StagedRows]:
    stage = tables.folder("_staging", uuid4().hex)
    try:
        frame.select(*COLUMNS).write.mode("overwrite").parquet(stage)
        filesystem, inner = storage.open_filesystem(stage)
        names = sorted(name for name in storage.sizes(stage) if name.endswith(".parquet"))
        yield _StagedRows.of([pq.ParquetFile(f"{inner}/{name}", filesystem=filesystem) for name in names])
    finally:
        storage.remove_folder(stage)


def _target(folder: str) -> Path:
    """The folder as an absolute path.

    Raises:
        ConsumerError: it is not local, or holds something else than an export.
    """
    if not storage.is_local(folder):
        raise ConsumerError(f"export writes to a folder of this machine (or a mounted volume), got {folder}")
    target = Path(storage.absolute(folder))
    if target.exists() and not target.is_dir():
        raise ConsumerError(f"export writes to a folder, {target} is a file")
    there = sorted(entry.name for entry in target.iterdir()) if target.exists() else []
    if there:
        try:
            read_manifest(target)
        except ConsumerError as error:
            raise ConsumerError(
                f"{target} holds something else ({', '.join(there[:3])}{', ...' if there[3:] else ''}); expected an "
                "empty folder, an older export, or none"
            ) from error
    return target


@contextmanager
def _swapped_in(target: Path) -> Iterator[Path]:
    """A new folder beside the target, which replaces the target at the end unless an error is raised."""
    new, old = (target.with_name(f".{target.name}.{uuid4().hex[:8]}.{what}") for what in ("new", "old"))
    new.mkdir(parents=True)
    try:
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write_parquet(folder: Path, rows: _StagedRows, width: int) -> None:
    for number, batches in groupby(_checked(rows, COLUMNS, width), key=lambda found: found[1] // FILE_ROWS):
        with pq.ParquetWriter(folder / f"part-{number:05d}.parquet", rows.files[0].schema_arrow) as writer:
            for batch, _ in batches:
                writer.write_batch(batch)


def _write_numpy(folder: Path, rows: _StagedRows, width: int) -> None:
    vectors_NL = _array(folder / EMBEDDINGS, np.dtype(np.float32), (len(rows.ids), width))
    ids_N = _array(folder / USER_IDS, _id_type(rows.ids), (len(rows.ids),))
    for batch, before in _checked(rows, ("user_id", "embedding"), width):
        place_B = rows.place_N[before : before + batch.num_rows]
        vectors_NL[place_B] = matrix(batch["embedding"])
        ids_N[place_B] = batch["user_id"].to_numpy(zero_copy_only=False)
    vectors_NL.flush()
    ids_N.flush()


_WRITERS = {"parquet": _write_parquet, "numpy": _write_numpy}


def _checked(rows: _StagedRows, columns: Sequence[str], width: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Batches of rows, each with the number of rows before it.

    Raises:
        TableError: an embedding has another width.
    """
    before = 0
    for batch in rows.batches(columns):
        if not pc.all(pc.equal(pc.list_value_length(batch["embedding"]), width)).as_py():
            raise TableError(f"expected embeddings of width {width}, like the first one; nothing was exported")
        yield batch, before
        before += batch.num_rows


def _array(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """A new array in a mapped file."""
    return np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)


def _id_type(ids: pa.ChunkedArray) -> np.dtype[Any]:
    """NumPy type of the ids: int64, or text of the longest id's length, because NumPy would pickle objects."""
    if pa.types.is_integer(ids.type):
        return np.dtype(np.int64)
    return np.dtype(f"<U{max(1, pc.max(pc.utf8_length(ids)).as_py())}")
