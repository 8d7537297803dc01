"""Files of a source, and their fingerprint."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a source."""

    path: str
    uri: str
    """The path as Spark's ``_metadata.file_path`` writes it."""
    length: int
    modified: int | None
    """Time of the last change in microseconds; None for an empty file."""
    landing: date | None
    """Date on which the file landed; None in a bulk load."""


@dataclass(frozen=True, kw_only=True)
class BrokenFile:
    """A file of which no row is used."""

    file: File
    reason: str
    field: str | None = None
    """Raw column that the file lacks."""


def fingerprint(files: Iterable[File], mapping: str) -> str:
    """Hash of a landing, 16 hex digits. It changes when the files change, or the way in which they are read.

    Args:
        mapping: the parts of the configuration that decide how a raw row is read, as text.
    """
    digest = sha256(mapping.encode())
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"\n{file.path} {file.length} {file.modified}".encode())
    return digest.hexdigest()[:16]


def readable_paths(files: Sequence[File]) -> list[str]:
    """Paths of files as Spark's readers take them."""
    return [escaped(file.path) for file in files]


def escaped(path: str) -> str:
    """A path with its special characters escaped, so that Spark does not take it for a pattern."""
    return re.sub(r"([\\{}\[\]*?^])", r"\\\1", path)
