"""The Parquet files of a snapshot, read by row group with pyarrow: by training, by scoring, and to check them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from gur_spark import storage
from gur_spark.errors import SnapshotError


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
