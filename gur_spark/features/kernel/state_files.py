"""Saved state of a snapshot: the folder ``state/`` beside its data, from which snapshots of later days go on.

It has one file per partition of users (``gur_spark.features.kernel.dumps``), and ``state.json``, which describes the
files and is written last. Each user belongs to a part, a number that every engine computes alike, and ``state.json``
says which file has which parts.
"""

import json
from collections.abc import Iterable
from datetime import date
from typing import Any
from uuid import uuid4
from zlib import crc32

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from gur_spark import storage
from gur_spark.errors import BaseSnapshotError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel.dumps import FORMAT, dump
from gur_spark.features.kernel.partition import PartitionState
from gur_spark.features.states.tiles import Tiles

PARTS = 4096
FOLDER = "state"


def part_of(user_id: int | str) -> int:
    """Part of a user, from 0 to PARTS - 1; ``writer.part_of_user`` computes the same in SQL."""
    return crc32(str(user_id).encode()) % PARTS


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StateFile(_Frozen):
    """A file with the states of the users of some parts."""

    name: str
    bytes: int
    checksum: str
    parts: tuple[int, ...]


class SavedState(_Frozen):
    """Contents of ``state.json``: the files of a saved state and the inputs that they were made from."""

    format: int = FORMAT
    as_of: date
    horizon: int
    """Days after as_of that can go on from it."""
    oldest: date | None
    """Day of the first event, where a window begins with the first event."""
    landed: date
    """Newest landing among its events."""
    lineage: str
    """Text of the ``Lineage`` that it was made from."""
    files: tuple[StateFile, ...]

    def tiles(self, manifest: Manifest) -> Tiles:
        """The tiles of the states in the files."""
        return Tiles.of([self.as_of], manifest.windows, manifest.declared_windows, self.oldest, self.horizon)

    def file_of_part(self) -> list[int]:
        """Number of the file of each part. New users of a part without a file belong to the first file."""
        numbers = [0] * PARTS
        for number, file in enumerate(self.files):
            for part in file.parts:
                numbers[part] = number
        return numbers

    def write(self, snapshot: str) -> None:
        """Write ``state.json`` beside the files."""
        storage.write_text(storage.join(snapshot, FOLDER, "state.json"), self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, snapshot: str) -> "SavedState | None":
        """Read the saved state in a snapshot's folder; None where there is none.

        Raises:
            BaseSnapshotError: a file is missing, cut off or of another format.
        """
        folder = storage.join(snapshot, FOLDER)
        try:
            text = storage.read_text(storage.join(folder, "state.json"))
            if json.loads(text).get("format") != FORMAT:
                raise BaseSnapshotError(
                    f"its state has format {json.loads(text).get('format')}, this version reads {FORMAT}"
                )
            saved = cls.model_validate_json(text)
        except FileNotFoundError:
            return None
        except (ValidationError, ValueError) as error:
            raise BaseSnapshotError(f"its state.json cannot be read: {error}") from error
        sizes = storage.sizes(folder)
        for file in saved.files:
            if sizes.get(file.name) != file.bytes:
                raise BaseSnapshotError(
                    f"its {FOLDER}/{file.name} has {sizes.get(file.name, 0)} bytes, expected {file.bytes}"
                )
        return saved


def has_saved_state(snapshot: str) -> bool:
    """Whether a snapshot's folder has a saved state."""
    return storage.exists(storage.join(snapshot, FOLDER, "state.json"))


def write_state(state: PartitionState, folder: str) -> dict[str, Any]:
    """Write a partition's state to a file that no other attempt writes; returns its row of ``writer.FILES``."""
    content = dump(state)
    path = storage.join(folder, f"{uuid4().hex}.arrow")
    filesystem, inner = storage.open_filesystem(path)
    with filesystem.open_output_stream(inner) as stream:
        stream.write(content)
    parts = sorted({part_of(user) for user in state.users.values().to_pylist()})
    return {"file": path, "rows": len(state.users), "hash": _checksum(content), "parts": parts}


def read_state(path: str, file: StateFile) -> pa.Buffer:
    """Read a file of a saved state.

    Raises:
        BaseSnapshotError: it is gone or was altered.
    """
    filesystem, inner = storage.open_filesystem(path)
    try:
        with filesystem.open_input_file(inner) as stream:
            content = stream.read_buffer()
    except OSError as error:
        raise BaseSnapshotError(f"{path} cannot be read: {error}") from error
    if _checksum(content) != file.checksum:
        raise BaseSnapshotError(f"{path} has checksum {_checksum(content)}, expected {file.checksum}: it was altered")
    return content


def move_states(written: Iterable[Any], folder: str) -> tuple[StateFile, ...]:
    """Move the files of the attempts that succeeded to ``state``, numbered in the order of their parts."""
    to = storage.join(folder, FOLDER)
    storage.create_folder(to)
    moved = {}
    for number, row in enumerate(sorted(written, key=lambda row: list(row["parts"]))):
        moved[f"part-{number:05d}.arrow"] = row
        storage.move(row["file"], storage.join(to, f"part-{number:05d}.arrow"))
    sizes = storage.sizes(to)
    return tuple(
        StateFile(name=name, bytes=sizes[name], checksum=row["hash"], parts=tuple(row["parts"]))
        for name, row in moved.items()
    )


def _checksum(content: pa.Buffer) -> str:
    return f"{crc32(content):08x}"
