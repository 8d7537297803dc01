"""Landings parsed into a staging folder, with the files that cannot be used set apart."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.logs import AnyLog
from gur_spark.engines import is_sail
from gur_spark.errors import SourceError
from gur_spark.events.files import BrokenFile
from gur_spark.events.landings import Landings
from gur_spark.events.reading import Read, read_files, read_table
from gur_spark.events.reports import Report
from gur_spark.events.staged_files import FILE, StagedFile
from gur_spark.events.unique import SPLIT, Unique, buckets_for, buckets_of, unique_rows
from gur_spark.tables.paths import plain_path, read_parquet


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Parsed rows of landings, and the files that cannot be used."""

    read: Read
    broken: Sequence[BrokenFile]
    by_path: Mapping[str, Report]
    """Path of a file -> the report on it."""
    left_out: Sequence[int]
    """Positions of files of which rows were staged before they turned out to be broken."""
    unique: Unique | None = None
    """Accepted rows without duplicates; None where the log keeps these."""

    @property
    def used(self) -> Iterable[Report]:
        """Reports on the files that are used."""
        return (report for report in self.by_path.values() if report.problem is None)

    def accepted(self, spark: SparkSession) -> DataFrame | None:
        """Accepted rows, one of each key: the log's columns and ``landed_on``; None where there are none."""
        if self.unique is not None:
            return read_parquet(spark, *self.unique.files) if self.unique.files else None
        return self._rows(spark, self.read.accepted)

    def rejected(self, spark: SparkSession) -> DataFrame | None:
        """Rejected rows: ``landed_on, source_file, reason, field, raw``; None where there are none."""
        return self._rows(spark, self.read.rejected)

    def _rows(self, spark: SparkSession, files: Sequence[StagedFile]) -> DataFrame | None:
        if not files:
            return None
        rows = read_parquet(spark, *sorted(file.path for file in files))
        return (rows.where(~F.col(FILE).isin(list(self.left_out))) if self.left_out else rows).drop(FILE)


def stage(spark: SparkSession, landings: Landings, folder: str) -> Staged:
    """Read landings into a folder.

    Raises:
        SourceError: a table lacks a mapped column, or one has a type that stands for no text.
    """
    if not landings.files:
        return _stage_table(spark, landings.log, folder)
    log = landings.log
    files = [file for file in landings.files if file.length]
    empty = [BrokenFile(file=file, reason="empty_file") for file in landings.files if not file.length]
    buckets = buckets_of(log, buckets_for(files, log.source))
    read = read_files(spark, log, files, folder, buckets) if files else Read()
    problems = {number: report.problem for number, report in read.reports.items() if report.problem}
    broken = [
        BrokenFile(file=files[number], reason=reason, field=field, cause=cause)
        for number, (reason, field, cause) in sorted(problems.items())
    ]
    left_out = [number for number in problems if read.reports[number].rows]
    return Staged(
        read=read,
        broken=[*empty, *broken],
        by_path={files[number].path: report for number, report in read.reports.items()},
        left_out=left_out,
        unique=unique_rows(spark, read.accepted, log, buckets, left_out, folder) if buckets else None,
    )


def _stage_table(spark: SparkSession, log: AnyLog, folder: str) -> Staged:
    """Read a Delta folder or a table of the catalog."""
    source = log.source
    if source.format == "table":
        name, frame = source.table or "", spark.read.table(source.table or "")
    else:
        name = storage.absolute(source.path or "")
        frame = spark.read.format("delta").load(plain_path(name) if is_sail(spark) else name)
    buckets = buckets_of(log, SPLIT)
    read = read_table(frame, name, log, folder, buckets)
    report = read.reports.get(0, Report(file=0))
    if report.problem:
        raise SourceError(f"{name}: {report.problem[2]}")
    unique = unique_rows(spark, read.accepted, log, buckets, (), folder) if buckets else None
    return Staged(read=read, broken=[], by_path={name: report}, left_out=[], unique=unique)
