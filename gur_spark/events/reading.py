"""Workers that read files, parse their rows, and write them to a staging folder with a report on every file.

A report is JSON text, so a worker returns one small row, and no row of the log goes through the driver.
"""

import csv
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.fields import Numeric
from gur_spark.config.logs import AnyLog
from gur_spark.events.blocks import EmptyFile, raw_blocks, with_all_columns
from gur_spark.events.files import File
from gur_spark.events.listing import unchanged
from gur_spark.events.names import MissingColumn, optional_columns, paths, quoted, raw_columns, top_columns
from gur_spark.events.parse import ParsedRows, parse_rows
from gur_spark.events.ranges import Range, ranges_of
from gur_spark.events.raw import RawRows
from gur_spark.events.reports import Problem, Report
from gur_spark.events.staged_files import FILE, Buckets, StagedFile, StagedWriter
from gur_spark.events.typed_rows import UnreadableType, typed_rows

CAUSE_CHARS = 500

# A zip archive with a password, or of an unknown method, is a RuntimeError.
READING_ERRORS = (
    OSError, EOFError, ValueError, RuntimeError, csv.Error, zlib.error, zipfile.BadZipFile, pa.ArrowException
)  # fmt: skip

REJECTED = pa.schema(
    [
        (FILE, pa.int32()),
        ("landed_on", pa.date32()),
        ("source_file", pa.string()),
        ("reason", pa.string()),
        ("field", pa.string()),
        ("raw", pa.string()),
    ]
)


@dataclass(frozen=True)
class Read:
    """Staged rows of files, and reports on these."""

    accepted: Sequence[StagedFile] = ()
    """Files of accepted rows: the log's columns, ``landed_on`` and ``FILE``."""
    rejected: Sequence[StagedFile] = ()
    """Files of rejected rows (``REJECTED``)."""
    reports: Mapping[int, Report] = field(default_factory=dict)
    """Position of a file -> its report."""


@dataclass(frozen=True)
class Writers:
    """Writers of the parsed rows of one task."""

    accepted: StagedWriter
    rejected: StagedWriter

    @classmethod
    def to(cls, folder: str, buckets: Buckets | None) -> "Writers":
        """Writers of files below a folder."""
        accepted = StagedWriter(storage.join(folder, "accepted"), buckets)
        return cls(accepted, StagedWriter(storage.join(folder, "rejected")))


def read_files(
    spark: SparkSession, log: AnyLog, files: Sequence[File], folder: str, buckets: Buckets | None = None
) -> Read:
    """Read files into a staging folder, in tasks of about equal bytes."""
    tasks = ranges_of(files, log.source)

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for task in batch.column(0).to_pylist():
                yield _read_task(tasks[task], files, log, Writers.to(folder, buckets))

    return _staged(spark.range(0, len(tasks), 1, len(tasks)).mapInArrow(kernel, "report STRING"))


def read_table(rows: DataFrame, name: str, log: AnyLog, folder: str, buckets: Buckets | None = None) -> Read:
    """Read the rows of a table into a staging folder; its name stands for the file."""

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        report, writers = Report(file=0), Writers.to(folder, buckets)
        for raw in _readable(_table_blocks(batches, log), report):
            _take(raw, log, report, writers, 0, name, None)
        yield _said([report], writers)

    # Columns that nobody asked for may have types that Arrow does not know.
    asked = [F.col(quoted(column)) for column in top_columns(raw_columns(log), rows.columns)]
    return _staged(rows.select(asked).mapInArrow(kernel, "report STRING"))


def _table_blocks(batches: Iterator[pa.RecordBatch], log: AnyLog) -> Iterator[RawRows]:
    for batch in batches:
        if batch.num_rows:
            places = paths(raw_columns(log), batch.schema, optional_columns(log))
            yield with_all_columns(typed_rows(batch, places), log, {})


def _staged(work: DataFrame) -> Read:
    """Run the workers and put their reports together."""
    accepted, rejected, reports = list[StagedFile](), list[StagedFile](), dict[int, Report]()
    for row in work.collect():
        said = json.loads(row["report"])
        for name, files in (("accepted", accepted), ("rejected", rejected)):
            files += [StagedFile(**said[name])] if said[name] else []
        for report in map(Report.from_json, said["reports"]):
            if report.file in reports:
                reports[report.file].merge(report)
            else:
                reports[report.file] = report
    return Read(accepted, rejected, reports)


def _read_task(parts: Sequence[Range], files: Sequence[File], log: AnyLog, writers: Writers) -> pa.RecordBatch:
    return _said([_read_part(part, files[part.file], log, writers) for part in parts], writers)


def _said(reports: Sequence[Report], writers: Writers) -> pa.RecordBatch:
    """Close the files of a task, and report on them."""
    made = {"accepted": writers.accepted.close(), "rejected": writers.rejected.close()}
    files = {name: file and asdict(file) for name, file in made.items()}
    text = json.dumps({**files, "reports": [report.to_json() for report in reports]})
    return pa.RecordBatch.from_arrays([pa.array([text])], names=["report"])


def _read_part(part: Range, file: File, log: AnyLog, writers: Writers) -> Report:
    """Read a part of a file. An error is about the file alone, and stands in its report."""
    report = Report(file=part.file)
    for raw in _readable(raw_blocks(file.place, part, log, report.met), report):
        _take(raw, log, report, writers, part.file, file.path, file.landing)
    if not report.problem and not unchanged(file):
        report.problem = "changed_file", None, "it was replaced while it was read"
    return report


def _readable(blocks: Iterator[RawRows], report: Report) -> Iterator[RawRows]:
    """The blocks until reading fails. An error of parsing them is none of the file, and is raised."""
    while True:
        try:
            block = next(blocks, None)
        except READING_ERRORS as error:
            report.problem = _problem(error)
            return
        if block is None:
            return
        yield block


def _problem(error: Exception) -> Problem:
    cause = " ".join(str(error).split())[:CAUSE_CHARS] or type(error).__name__
    if isinstance(error, MissingColumn):
        return "missing_column", error.column, cause
    if isinstance(error, EmptyFile):
        return "empty_file", None, cause
    if isinstance(error, UnreadableType):
        return "unreadable_type", None, cause
    if isinstance(error, FileNotFoundError):
        return "vanished_file", None, cause
    return "broken_file", None, cause


def _take(
    raw: RawRows, log: AnyLog, report: Report, writers: Writers, number: int, path: str, landing: date | None
) -> None:
    """Parse, count and write a block of rows."""
    parsed = parse_rows(raw, log, _latest(landing, log.source.max_future_days))
    accepted = _accepted(parsed, log, number, landing)
    report.add(raw, parsed, log, accepted.column("event_time").combine_chunks())
    writers.accepted.add(accepted)
    rejected = parsed.rejected
    if pc.any(rejected).as_py():
        lines, count = raw.delivered(rejected), pc.sum(rejected).as_py()
        columns = [
            pa.repeat(pa.scalar(number, pa.int32()), count),
            pa.repeat(pa.scalar(landing, pa.date32()), count),
            pa.repeat(path, count),
            parsed.reason.filter(rejected),
            parsed.field.filter(rejected),
            lines,
        ]
        writers.rejected.add(pa.Table.from_arrays(columns, schema=REJECTED))


def _latest(landing: date | None, max_future_days: int) -> datetime:
    """The moment from which an event is from the future: days after its landing ended, or in a bulk load after now."""
    if landing is None:
        return datetime.now(UTC) + timedelta(max_future_days)
    return datetime.combine(landing, time(), UTC) + timedelta(1 + max_future_days)


def _accepted(parsed: ParsedRows, log: AnyLog, number: int, landing: date | None) -> pa.Table:
    kept = {one.name: one.value.filter(parsed.accepted) for one in parsed.fields}
    times = kept["event_time"]
    count = len(times)
    # A bulk load has no landing dates, so each row counts as landed on its own day.
    bulk = log.source.layout == "bulk"
    landed = (
        times.cast(pa.timestamp("us")).cast(pa.date32()) if bulk else pa.repeat(pa.scalar(landing, pa.date32()), count)
    )
    types = {field.name: pa.int64() if isinstance(field, Numeric) else pa.string() for field in log.fields.values}
    columns = {name: values.cast(types.get(name, values.type)) for name, values in kept.items()}
    return pa.table({**columns, "landed_on": landed, FILE: pa.repeat(pa.scalar(number, pa.int32()), count)})
