"""Files of a source."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of the source."""

    path: str
    uri: str
    """The path as Spark's ``_metadata.file_path`` writes it."""
    length: int
    modified: int | None
    """None for a file of no bytes."""
    landing: date | None
    """None in a bulk load."""


@dataclass(frozen=True, kw_only=True)
class BrokenFile:
    """A file of which no row is used; ``field`` is the raw column it lacks."""

    file: File
    reason: str
    field: str | None = None


def fingerprint(files: Iterable[File], mapping: str) -> str:
    """16 hex digits that change when a landing's files, or what is made of them, change."""
    digest = sha256(mapping.encode())
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"\n{file.path} {file.length} {file.modified}".encode())
    return digest.hexdigest()[:16]


def readable_paths(files: Sequence[File]) -> list[str]:
    """The files' paths as Spark's readers take them."""
    return [escaped(file.path) for file in files]


def escaped(path: str) -> str:
    """A path that Spark does not take for a pattern."""
    return re.sub(r"([\\{}\[\]*?^])", r"\\\1", path)
