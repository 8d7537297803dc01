"""Files of a source, and their fingerprint."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from hashlib import sha256


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a source."""

    path: str
    """A URI, or for a local file ``file:`` and its path as it is, without escapes."""
    length: int
    modified: int | None
    """Time of the last change in microseconds, to the millisecond; None for an empty file."""
    landing: date | None
    """Date on which the file landed; None in a bulk load."""

    @property
    def place(self) -> str:
        """The path as ``storage`` takes it."""
        return self.path.removeprefix("file:")


@dataclass(frozen=True, kw_only=True)
class BrokenFile:
    """A file of which no row is used."""

    file: File
    reason: str
    field: str | None = None
    """Raw column that the file lacks."""
    cause: str | None = None
    """The cause in words."""

    @property
    def is_loss(self) -> bool:
        """Whether rows may be lost; an empty file has none."""
        return self.reason != "empty_file"

    def __str__(self) -> str:
        return f"{self.file.path} was not read: {self.reason}" + (f" ({self.cause})" if self.cause else "")


def fingerprint(files: Iterable[File], mapping: str) -> str:
    """Hash of a landing, 16 hex digits. It changes when the files change, or the way in which they are read.

    Args:
        mapping: the parts of the configuration that decide how a raw row is read, as text.
    """
    digest = sha256(mapping.encode())
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"\n{file.path} {file.length} {file.modified}".encode())
    return digest.hexdigest()[:16]
