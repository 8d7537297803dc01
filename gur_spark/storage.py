"""Small files and folders beside the tables, on all file systems that pyarrow knows.

Paths are local paths or URIs (``s3://``, ``gs://``, ``abfss://``, ``hdfs://``, ``file:``). The module imports neither
Spark nor torch, because both sides read manifests and artefacts through it.
"""

from datetime import UTC, datetime
from pathlib import Path

from pyarrow import fs


def absolute(path: str) -> str:
    """A path in the form in which it is stored: URIs as they are, local paths absolute.

    A relative path would be another folder on a Spark Connect server or a worker.
    """
    return path if _scheme(path) else str(Path(path).expanduser().resolve())


def is_local(path: str) -> bool:
    """Whether the path is a path of the local file system."""
    return not _scheme(path)


def join(*parts: str) -> str:
    """Join parts with forward slashes, which all file systems of pyarrow accept."""
    return "/".join(part.rstrip("/") for part in parts)


def exists(path: str) -> bool:
    """Whether there is a file or folder."""
    filesystem, inner = open_filesystem(path)
    return bool(filesystem.get_file_info(inner).type != fs.FileType.NotFound)


def read_bytes(path: str) -> bytes:
    """Read a file.

    Raises:
        FileNotFoundError: there is none.
    """
    filesystem, inner = open_filesystem(path)
    with filesystem.open_input_stream(inner) as stream:
        return bytes(stream.read())


def read_text(path: str) -> str:
    """Read a text file; raises what ``read_bytes`` does."""
    return read_bytes(path).decode()


def write_bytes(path: str, content: bytes) -> None:
    """Write a file and create its folders. It is not atomic, so a table row must point to it only afterwards."""
    filesystem, inner = open_filesystem(path)
    filesystem.create_dir(inner.rsplit("/", 1)[0], recursive=True)
    with filesystem.open_output_stream(inner) as stream:
        stream.write(content)


def write_text(path: str, content: str) -> None:
    """Write a text file; see ``write_bytes``."""
    write_bytes(path, content.encode())


def create_folder(path: str) -> None:
    """Create a folder and the folders above it; an existing one is no error."""
    filesystem, inner = open_filesystem(path)
    filesystem.create_dir(inner, recursive=True)


def move(path: str, to: str) -> None:
    """Move a file within its file system; an existing file is replaced."""
    filesystem, inner = open_filesystem(path)
    filesystem.move(inner, open_filesystem(to)[1])


def remove_file(path: str) -> None:
    """Remove a file.

    Raises:
        FileNotFoundError: there is none.
    """
    filesystem, inner = open_filesystem(path)
    filesystem.delete_file(inner)


def remove_folder(path: str) -> None:
    """Remove a folder with all its contents; a missing one is no error."""
    filesystem, inner = open_filesystem(path)
    if filesystem.get_file_info(inner).type == fs.FileType.Directory:
        filesystem.delete_dir(inner)


def folders(path: str) -> list[str]:
    """Paths of the folders in a folder, in the order of their names; empty if it does not exist."""
    filesystem, inner = open_filesystem(path)
    found = filesystem.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return sorted(join(path, info.base_name) for info in found if info.type == fs.FileType.Directory)


def sizes(path: str) -> dict[str, int]:
    """Name -> bytes of the files in a folder; empty if it does not exist."""
    filesystem, inner = open_filesystem(path)
    found = filesystem.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return {info.base_name: info.size for info in found if info.type == fs.FileType.File}


def modified(path: str) -> list[datetime]:
    """Times, UTC, at which the folder and each file below it were last written, as far as the file system knows."""
    filesystem, inner = open_filesystem(path)
    below = filesystem.get_file_info(fs.FileSelector(inner, recursive=True, allow_not_found=True))
    times = [info.mtime for info in [filesystem.get_file_info(inner), *below] if info.mtime]
    return times or [datetime.fromtimestamp(0, UTC)]


def _scheme(path: str) -> str:
    head, separator, _ = path.partition(":")
    # A single letter is a Windows drive and no scheme.
    return head if separator and len(head) > 1 and "/" not in head else ""


def open_filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """File system of a path, and the path inside it."""
    # Databricks mounts these schemes as folders, for Python on driver and workers alike.
    if path.startswith("dbfs:/Volumes/"):
        path = path.removeprefix("dbfs:")
    # Hadoop has another name for the same store.
    if path.startswith("s3a://"):
        path = "s3://" + path.removeprefix("s3a://")
    filesystem, inner = fs.FileSystem.from_uri(path if _scheme(path) else absolute(path))
    return filesystem, inner
