"""Listing of a source's files, with the landing of each."""

import re
from datetime import date

from pyarrow import fs

from gur_spark import storage
from gur_spark.config.source import DATE_PARTS, Source
from gur_spark.errors import SourceError
from gur_spark.events.files import File


def list_files(source: Source, key: str = "source") -> list[File]:
    """Files below ``source.path``, in the order of their paths, without hidden ones (``_`` or ``.`` first).

    Args:
        key: the key of the source in the configuration, for messages.

    Raises:
        SourceError: nothing is there, a file of a daily layout has no date in its path, or it is a Delta table.
    """
    root = storage.absolute(source.path or "")
    try:
        found = sorted(_below(root, source), key=lambda one: one[0])
    except OSError as error:
        raise SourceError(f"{key}.path '{root}' cannot be listed: {error}") from error
    if not found:
        raise SourceError(f"{key}.path '{root}': expected {source.format} files, found none")
    return [
        File(path=path, length=info.size, modified=_changed(info), landing=_landing(inner, path, source, key))
        for path, inner, info in found
    ]


def unchanged(file: File) -> bool:
    """Whether a file is as it was when it was listed."""
    filesystem, inner = storage.open_filesystem(file.place)
    info = filesystem.get_file_info(inner)
    return info.type == fs.FileType.File and (info.size, _changed(info)) == (file.length, file.modified)


def _below(root: str, source: Source) -> list[tuple[str, str, fs.FileInfo]]:
    """Path, path below the root, and size and time of each file that is not hidden."""
    filesystem, inner = storage.open_filesystem(root)
    info = filesystem.get_file_info(inner)
    if info.type == fs.FileType.NotFound:
        raise FileNotFoundError("it does not exist")
    below = [info] if info.is_file else filesystem.get_file_info(fs.FileSelector(inner, recursive=True))
    found = []
    for one in below:
        parts = one.path.removeprefix(inner).strip("/").split("/")
        if "_delta_log" in parts[:-1] and source.format != "delta":
            folder = "/".join([root, *parts[: parts.index("_delta_log")]])
            raise SourceError(f"'{folder}' is a Delta table (it has a _delta_log): use source.format 'delta'")
        if one.is_file and not any(part[:1] in ("_", ".") for part in parts):
            found.append((_full(root, one.path), "/".join(parts) or one.base_name, one))
    return found


def _full(root: str, path: str) -> str:
    """The path in full; the file systems of stores leave out the scheme."""
    if storage.is_local(root):
        return f"file:{path}"
    scheme = root.split("://", 1)[0]
    return path if "://" in path or scheme == "file" else f"{scheme}://{path}"


def _changed(info: fs.FileInfo) -> int | None:
    return info.mtime_ns // 1_000_000 * 1_000 if info.size and info.mtime_ns is not None else None


def _landing(below: str, path: str, source: Source, key: str) -> date | None:
    if source.layout == "bulk":
        return None
    match = re.search(source.landing_pattern, below)
    if match is None:
        raise SourceError(
            f"'{path}' has no landing date: {key}.landing_pattern '{source.landing_pattern}' is not found in "
            f"'{below}'; folders year=2024/month=3/day=1 have the pattern of docs/raw_logs.md"
        )
    parts = match.groupdict()
    text = "-".join(parts[name].rjust(2, "0") for name in DATE_PARTS) if parts else match.group(1)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise SourceError(f"'{path}': landing date '{text}' is no date YYYY-MM-DD or YYYYMMDD") from error
