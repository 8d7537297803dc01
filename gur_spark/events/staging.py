"""Parsing of raw rows into a staging folder, with the files that cannot be read set apart."""

import logging
from collections.abc import Sequence

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from gur_spark.config.logs import AnyLog
from gur_spark.errors import SourceError
from gur_spark.events.files import BrokenFile, File
from gur_spark.events.landings import Landings
from gur_spark.events.listing import list_files
from gur_spark.events.parse import parse_rows
from gur_spark.events.source import check_columns, raw_files, raw_table
from gur_spark.tables.delta import Tables

log = logging.getLogger("gur_spark")

# A failed task is a Py4JJavaError in a classic session and a PySparkException in a Connect session.
SPARK_ERRORS = (PySparkException, Py4JJavaError)

Staged = tuple[list[BrokenFile], DataFrame | None]
"""The files that cannot be used, and the parsed rows of the others; None where there are no others."""


def stage(tables: Tables, landings: Landings, folder: str) -> Staged:
    """Parse landings into a folder.

    Raises:
        SourceError: the rows are not what the configuration describes.
    """
    if not landings.files:
        return [], _write(parse_rows(raw_table(tables.spark, landings.log), landings.log), folder)
    try:
        return _stage_files(tables, landings, landings.files, folder)
    except SPARK_ERRORS:
        unreadable = _unreadable(tables, landings.log, landings.files)
        if not unreadable:
            raise
    listed = {file.path for file in _still_there(tables, landings.log)}
    broken = [
        BrokenFile(file=file, reason="broken_file" if file.path in listed else "vanished_file") for file in unreadable
    ]
    readable = [file for file in landings.files if file not in set(unreadable)]
    more, staged = _stage_files(tables, landings, readable, folder)
    return broken + more, staged


def _stage_files(tables: Tables, landings: Landings, files: Sequence[File], folder: str) -> Staged:
    raw, broken = raw_files(tables.spark, landings.log, files)
    table = landings.table
    if raw is None and (not tables.exists(table) or landings.rows_of_log(tables.read(table)).isEmpty()):
        check_columns(tables.spark, landings.log, broken)
    return broken, _write(parse_rows(raw, landings.log), folder) if raw is not None else None


def _write(rows: DataFrame, folder: str) -> DataFrame:
    """The written rows. Later steps read them and not the source, which may change."""
    rows.write.mode("overwrite").parquet(folder)
    return rows.sparkSession.read.parquet(folder)


def _unreadable(tables: Tables, of_log: AnyLog, files: Sequence[File]) -> list[File]:
    """Files that Spark cannot read to their end, found by halving."""
    try:
        raw, _ = raw_files(tables.spark, of_log, files)
        if raw is not None:
            raw.write.format("noop").mode("overwrite").save()
        return []
    except SPARK_ERRORS as error:
        if len(files) == 1:
            log.warning("ingest: %s cannot be read: %s", files[0].path, str(error).splitlines()[0])
            return list(files)
    half = len(files) // 2
    return _unreadable(tables, of_log, files[:half]) + _unreadable(tables, of_log, files[half:])


def _still_there(tables: Tables, of_log: AnyLog) -> list[File]:
    try:
        return list_files(tables.spark, of_log.source)
    except SourceError:
        return []
