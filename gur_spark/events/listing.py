"""Listing of a source's files, by Spark or by Python, with the landing of each."""

import re
from datetime import date
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.logs import Source
from gur_spark.engines import is_sail
from gur_spark.errors import SourceError
from gur_spark.events import sail
from gur_spark.events.files import File, escaped


def list_files(spark: SparkSession, source: Source) -> list[File]:
    """Files below ``source.path``, in the order of their paths, without hidden ones (``_`` or ``.`` first).

    Raises:
        SourceError: nothing is there, or a file of a daily layout has no date in its path.
    """
    root = storage.absolute(source.path or "")
    found = _listed_by_python(root) if is_sail(spark) else _listed_by_spark(spark, root)
    if not found:
        raise SourceError(f"source.path '{root}': expected {source.format} files, found none")
    return [
        File(path=path, uri=uri, length=length, modified=modified, landing=_landing(path, root, source))
        for path, (uri, length, modified) in sorted(found.items())
    ]


Listing = dict[str, tuple[str, int, int | None]]
"""Path -> (URI, bytes, time of the last change in microseconds)."""


def _listed_by_python(root: str) -> Listing:
    try:
        return sail.find_files(root)
    except OSError as error:
        raise SourceError(f"source.path '{root}' cannot be listed: {error}") from error


def _listed_by_spark(spark: SparkSession, root: str) -> Listing:
    try:
        listing = spark.read.format("binaryFile").option("recursiveFileLookup", True).load(escaped(root))
        # Only columns of the listing are selected, so the contents are not read.
        found = listing.select(
            "path", "_metadata.file_path", "length", F.unix_micros("modificationTime").alias("modified")
        ).collect()
        files: Listing = {row["path"]: (row["file_path"], row["length"], row["modified"]) for row in found}
        # A scan leaves out empty files, but the relation lists them.
        for uri in listing.inputFiles():
            files.setdefault(unquote(uri).replace("file:///", "file:/", 1), (uri, 0, None))
    except AnalysisException as error:
        raise SourceError(f"source.path '{root}' cannot be listed: {error}") from error
    return files


def _landing(path: str, root: str, source: Source) -> date | None:
    if source.layout == "bulk":
        return None
    # Spark writes `file:/a` for `/a`, so the root is searched without its scheme.
    below = path.split(re.sub(r"^\w+:/*", "/", root), 1)[-1] or path.rsplit("/", 1)[-1]
    match = re.search(source.landing_pattern, below)
    if match is None:
        raise SourceError(f"'{path}' has no landing date: '{source.landing_pattern}' is not found in '{below}'")
    try:
        return date.fromisoformat(match.group(1))
    except ValueError as error:
        raise SourceError(f"'{path}': landing date '{match.group(1)}' is no date YYYY-MM-DD or YYYYMMDD") from error
