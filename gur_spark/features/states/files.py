"""What a snapshot keeps for those of the days after: ``state/``, beside its data.

One file per partition of its users (``continued``), and ``state.json``, which says what they are and is written last.
A user's part, a number that every engine computes alike, says in which file the user is.
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
from gur_spark.features.continued import FORMAT, dump
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.kernel import PartitionState
from gur_spark.features.states.tiles import Bands

PARTS = 4096
FOLDER = "state"


def part_of(user_id: int | str) -> int:
    """From 0 to PARTS - 1; what ``windows.part_of_user`` computes in SQL."""
    return crc32(str(user_id).encode()) % PARTS


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StateFile(_Frozen):
    """The users of some parts."""

    name: str
    bytes: int
    checksum: str
    parts: tuple[int, ...]


class Kept(_Frozen):
    """``state.json``: what the files were made with and from."""

    format: int = FORMAT
    as_of: date
    horizon: int
    """Days after as_of that can go on from it."""
    oldest: date | None
    """The first event's day, where a window has no end."""
    landed: date
    """The newest landing of its events."""
    lineage: str
    """The ``events`` table and its commit that it was made from."""
    files: tuple[StateFile, ...]

    def bands(self, manifest: Manifest) -> Bands:
        """Those that the files were made with."""
        return Bands.of([self.as_of], manifest.windows, manifest.declared_windows, self.oldest, self.horizon)

    def file_of_part(self) -> list[int]:
        """The number of the file of each part; the first file takes the users of those that had none."""
        numbers = [0] * PARTS
        for number, file in enumerate(self.files):
            for part in file.parts:
                numbers[part] = number
        return numbers

    def write(self, snapshot: str) -> None:
        """Put it beside the files."""
        storage.write_text(storage.join(snapshot, FOLDER, "state.json"), self.model_dump_json(indent=2) + "\n")

    @classmethod
    def of(cls, snapshot: str) -> "Kept | None":
        """What a snapshot's folder keeps; None where it does not.

        Raises:
            BaseSnapshotError: a file is missing or was cut off.
        """
        folder = storage.join(snapshot, FOLDER)
        try:
            text = storage.read_text(storage.join(folder, "state.json"))
            if json.loads(text).get("format") != FORMAT:
                raise BaseSnapshotError(
                    f"its state has format {json.loads(text).get('format')}, this version reads {FORMAT}"
                )
            kept = cls.model_validate_json(text)
        except FileNotFoundError:
            return None
        except (ValidationError, ValueError) as error:
            raise BaseSnapshotError(f"its state.json cannot be read: {error}") from error
        sizes = storage.sizes(folder)
        for file in kept.files:
            if sizes.get(file.name) != file.bytes:
                raise BaseSnapshotError(
                    f"its {FOLDER}/{file.name} has {sizes.get(file.name, 0)} bytes, expected {file.bytes}"
                )
        return kept


def keeps_state(snapshot: str) -> bool:
    """Whether those of the days after may go on from a snapshot's folder."""
    return storage.exists(storage.join(snapshot, FOLDER, "state.json"))


def write_state(state: PartitionState, folder: str) -> dict[str, Any]:
    """Write a partition's state to a file that no other attempt writes; returns what the driver must know of it."""
    content = dump(state)
    path = storage.join(folder, f"{uuid4().hex}.arrow")
    filesystem, inner = storage.open_filesystem(path)
    with filesystem.open_output_stream(inner) as stream:
        stream.write(content)
    parts = sorted({part_of(user) for user in state.users.values().to_pylist()})
    return {"file": path, "rows": len(state.users), "hash": _checksum(content), "parts": parts}


def read_state(path: str, file: StateFile) -> pa.Buffer:
    """A file's bytes.

    Raises:
        BaseSnapshotError: it is gone, or was altered.
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
    """Move the files of the attempts that count into ``state``, in the order of their parts."""
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
