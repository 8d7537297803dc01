"""The files of a snapshot, read without Spark: ``data/*.parquet``, ``manifest.json`` and ``vocabulary.json``.

A snapshot of aggregates has no ``vocabulary.json``; its vocabulary is named in its row of ``snapshots``.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, overload

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from gur_spark import storage
from gur_spark.errors import SnapshotError
from gur_spark.features.declare.manifest import (
    AnyManifest,
    InteractionManifest,
    Manifest,
    SequenceManifest,
    parse_manifest,
)
from gur_spark.models.kind import VocabularyRef

M = TypeVar("M", Manifest, SequenceManifest, InteractionManifest)

MANIFEST, VOCABULARY = "manifest.json", "vocabulary.json"


@overload
def read_manifest(snapshot: str) -> AnyManifest: ...
@overload
def read_manifest(snapshot: str, expected: type[M]) -> M: ...
def read_manifest(snapshot: str, expected: type[Any] | None = None) -> AnyManifest:
    """The manifest in a snapshot's folder; where a type is ``expected``, of this one.

    Raises:
        SnapshotError: it is missing, damaged, or of another form than expected.
    """
    path = storage.join(snapshot, MANIFEST)
    try:
        manifest = parse_manifest(storage.read_text(path))
    except FileNotFoundError as error:
        raise SnapshotError(f"{path} does not exist: {snapshot} is not a snapshot") from error
    except ValueError as error:
        raise SnapshotError(f"{path} is damaged: {error}") from error
    if expected is not None and not isinstance(manifest, expected):
        raise SnapshotError(f"{path}: expected a {expected.__name__}, got a {type(manifest).__name__}")
    return manifest


@overload
def common_manifest(snapshots: Sequence[str]) -> AnyManifest: ...
@overload
def common_manifest(snapshots: Sequence[str], expected: type[M]) -> M: ...
def common_manifest(snapshots: Sequence[str], expected: type[Any] | None = None) -> AnyManifest:
    """The manifest that all of these snapshots have; where a type is ``expected``, of this one.

    Raises:
        SnapshotError: there is no snapshot, or a manifest is missing or damaged, or they differ; the message names the
            columns.
    """
    if not snapshots:
        raise SnapshotError("no snapshot, so no manifest: name as-of dates")
    first, *others = [
        read_manifest(snapshot) if expected is None else read_manifest(snapshot, expected) for snapshot in snapshots
    ]
    for snapshot, other in zip(snapshots[1:], others, strict=True):
        if other.hash != first.hash:
            raise SnapshotError(
                f"the manifests of {snapshots[0]} and {snapshot} differ in {differing_columns(first, other)}; "
                "make the snapshots alike"
            )
    return first


def differing_columns(one: AnyManifest, other: AnyManifest) -> str:
    """The columns that only one of two manifests has, or that mean another thing in the other."""
    columns = {c.name: c for c in one.columns}, {c.name: c for c in other.columns}
    names = sorted(n for n in columns[0].keys() | columns[1].keys() if columns[0].get(n) != columns[1].get(n))
    return ", ".join(names) or "the steps, transforms, windows or order of the same columns"


def read_vocabulary_ref(snapshot: str) -> VocabularyRef:
    """The vocabulary that the ids of a snapshot of sequences or interactions belong to.

    Raises:
        SnapshotError: the file is missing or damaged.
    """
    path = storage.join(snapshot, VOCABULARY)
    try:
        return VocabularyRef(**json.loads(storage.read_text(path)))
    except FileNotFoundError as error:
        raise SnapshotError(f"{path} does not exist: {snapshot} is no snapshot of sequences or interactions") from error
    except (ValueError, TypeError) as error:
        raise SnapshotError(f"{path} is damaged: {error}") from error


def write_description(snapshot: str, manifest: AnyManifest, vocabulary: VocabularyRef) -> None:
    """Write the manifest and the vocabulary beside a snapshot's data."""
    storage.write_text(storage.join(snapshot, VOCABULARY), json.dumps(asdict(vocabulary), indent=2) + "\n")
    storage.write_text(storage.join(snapshot, MANIFEST), manifest.to_json())


@dataclass(frozen=True)
class RowGroup:
    """A part of a snapshot that is read by itself; may travel to another process."""

    filesystem: fs.FileSystem
    file: str
    number: int
    rows: int

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.file, filesystem=self.filesystem) as file:
            yield from file.iter_batches(batch_rows, row_groups=[self.number], columns=columns)


def row_groups(snapshot: str) -> list[RowGroup]:
    """All row groups of a snapshot, in the order of the files' names; reads footers only.

    Raises:
        SnapshotError: there are no Parquet files.
    """
    filesystem, folder = storage.open_filesystem(storage.join(snapshot, "data"))
    selector = fs.FileSelector(folder, allow_not_found=True)
    names = sorted(f.path for f in filesystem.get_file_info(selector) if f.path.endswith(".parquet"))
    if not names:
        raise SnapshotError(f"snapshot {snapshot} has no Parquet files in {folder}")
    footers = [(name, pq.read_metadata(name, filesystem=filesystem)) for name in names]
    return [
        RowGroup(filesystem, name, number, footer.row_group(number).num_rows)
        for name, footer in footers
        for number in range(footer.num_row_groups)
    ]
