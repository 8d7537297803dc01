"""Small files and folders beside the tables, on any file system pyarrow knows.

Local paths and URIs (``s3://``, ``gs://``, ``abfss://``, ``hdfs://``, ``file:``) alike, with
neither Spark nor torch: both sides read manifests and artefacts through here.
"""

from datetime import UTC, datetime
from pathlib import Path

from pyarrow import fs


def absolute(path: str) -> str:
    """The path as it must be stored: URIs as they are, local paths absolute.

    A relative path would mean another folder to a Spark Connect server or a worker.
    """
    return path if _scheme(path) else str(Path(path).expanduser().resolve())


def is_local(path: str) -> bool:
    """Whether plain file functions reach the path."""
    return not _scheme(path)


def join(*parts: str) -> str:
    """Join with forward slashes, which every file system of pyarrow takes."""
    return "/".join(part.rstrip("/") for part in parts)


def exists(path: str) -> bool:
    filesystem, inner = open_filesystem(path)
    return bool(filesystem.get_file_info(inner).type != fs.FileType.NotFound)


def read_bytes(path: str) -> bytes:
    """Raises FileNotFoundError when nothing is there."""
    filesystem, inner = open_filesystem(path)
    with filesystem.open_input_stream(inner) as stream:
        return bytes(stream.read())


def read_text(path: str) -> str:
    return read_bytes(path).decode()


def write_bytes(path: str, content: bytes) -> None:
    """Write a file, making its folders; not atomic, so write before a table row points to it."""
    filesystem, inner = open_filesystem(path)
    filesystem.create_dir(inner.rsplit("/", 1)[0], recursive=True)
    with filesystem.open_output_stream(inner) as stream:
        stream.write(content)


def write_text(path: str, content: str) -> None:
    write_bytes(path, content.encode())


def create_folder(path: str) -> None:
    """Make a folder and those above it; one that is there is no error."""
    filesystem, inner = open_filesystem(path)
    filesystem.create_dir(inner, recursive=True)


def move(path: str, to: str) -> None:
    """Move a file within its file system, over one that is there."""
    filesystem, inner = open_filesystem(path)
    filesystem.move(inner, open_filesystem(to)[1])


def remove_file(path: str) -> None:
    """Raises FileNotFoundError when nothing is there."""
    filesystem, inner = open_filesystem(path)
    filesystem.delete_file(inner)


def remove_folder(path: str) -> None:
    """Remove a folder and all below it; nothing there is no error."""
    filesystem, inner = open_filesystem(path)
    if filesystem.get_file_info(inner).type == fs.FileType.Directory:
        filesystem.delete_dir(inner)


def folders(path: str) -> list[str]:
    """The folders in a folder, by name; none where there is no such folder."""
    filesystem, inner = open_filesystem(path)
    found = filesystem.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return sorted(join(path, info.base_name) for info in found if info.type == fs.FileType.Directory)


def sizes(path: str) -> dict[str, int]:
    """The files in a folder, by name, and their bytes; none where there is no such folder."""
    filesystem, inner = open_filesystem(path)
    found = filesystem.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return {info.base_name: info.size for info in found if info.type == fs.FileType.File}


def modified(path: str) -> list[datetime]:
    """When the folder (where its file system knows) and each file below it was last written, UTC."""
    filesystem, inner = open_filesystem(path)
    below = filesystem.get_file_info(fs.FileSelector(inner, recursive=True, allow_not_found=True))
    times = [info.mtime for info in [filesystem.get_file_info(inner), *below] if info.mtime]
    return times or [datetime.fromtimestamp(0, UTC)]


def _scheme(path: str) -> str:
    head, separator, _ = path.partition(":")
    # A single letter is a Windows drive.
    return head if separator and len(head) > 1 and "/" not in head else ""


def open_filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path, and the path inside it."""
    # Databricks mounts these schemes as folders, for Python on driver and workers alike.
    if path.startswith("dbfs:/Volumes/"):
        path = path.removeprefix("dbfs:")
    # Hadoop's name for the same store.
    if path.startswith("s3a://"):
        path = "s3://" + path.removeprefix("s3a://")
    filesystem, inner = fs.FileSystem.from_uri(path if _scheme(path) else absolute(path))
    return filesystem, inner
