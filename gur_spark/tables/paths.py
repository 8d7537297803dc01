"""Paths that engines take literally: their readers and table formats give a meaning to some characters."""

import os
import re
import tempfile
from hashlib import sha256
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from gur_spark import storage
from gur_spark.engines import is_sail
from gur_spark.errors import TableError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@=+,~-]+")


def check_root(root: str) -> None:
    """Refuse a folder of tables that Sail, or its library of Delta, takes for another one.

    Raises:
        TableError: naming the characters.
    """
    if storage.is_local(root) and (odd := re.findall(r"%[0-9A-Fa-f]{2}|[\^|\[\]\\{}*?]", root)):
        raise TableError(
            f"tables.root '{root}' has {', '.join(map(repr, odd))} in its path, which engine 'sail' takes for "
            "something else; rename the folder, or use another engine"
        )


def literal(spark: SparkSession, path: str) -> str:
    """A path for Spark's readers, which take ``[x]``, ``*`` and the like for patterns."""
    return plain_path(path) if is_sail(spark) else re.sub(r"([\\{}\[\]*?])", r"\\\1", path)


def read_parquet(spark: SparkSession, *paths: str) -> DataFrame:
    """Read folders or files of Parquet."""
    return spark.read.parquet(*[literal(spark, path) for path in paths])


def plain_path(path: str) -> str:
    """A path to the same folder with characters that no library takes for something else.

    Libraries of Delta outside Java take a path for a URL, and read ``#``, ``%`` or a space in it in another way. For a
    local folder with such a character in its path this is a link, in the temporary folder, to the folder above.
    """
    if not storage.is_local(path) or _PLAIN.fullmatch(path):
        return path
    parent, _, name = path.rstrip("/").rpartition("/")
    if not _PLAIN.fullmatch(name):
        parent, name = path, ""
    links = Path(tempfile.gettempdir()) / f"gur_spark_{os.getuid()}"
    links.mkdir(mode=0o700, exist_ok=True)
    link = links / sha256(parent.encode()).hexdigest()[:16]
    if not link.is_symlink():
        # Another process may make it at the same time.
        made = links / f"{link.name}.{os.getpid()}"
        made.symlink_to(parent)
        made.replace(link)
    return str(link / name) if name else str(link)
