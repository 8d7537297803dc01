"""Raw log to ``events`` and ``quarantine``, one landing at a time or all at once.

Where there are several logs, each is ingested on its own: a landing is one of a log, and so are its counts.

The rows are parsed once into a staging folder and counted there; nothing is visible before the counts are good.
Then two commits follow, ``quarantine`` (where it has or gets rows) and ``events``, each replacing the landings of the
run: after a kill between them the same run, made again, replaces both.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce
from operator import and_

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.config.logs import MAIN, Log
from gur_spark.config.pipeline import Config
from gur_spark.errors import SourceError, TableError
from gur_spark.events.columns import check_columns_of_events
from gur_spark.events.files import BrokenFile, File, fingerprint
from gur_spark.events.listing import list_files
from gur_spark.events.parse import check_pattern, parse_rows
from gur_spark.events.quality import Tally, refuse_bad_rows, tally
from gur_spark.events.source import check_columns, raw_files, raw_table
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run

log = logging.getLogger("gur_spark")

# A task that fails reaches a classic session as the second, a Connect session as the first.
SPARK_ERRORS = (PySparkException, Py4JJavaError)

FATES = ("rows_read", "accepted", "deduplicated", "filtered", "quarantined")

BULK = "bulk"
"""Name of the one landing of a bulk load in ``runs.inputs``."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one run ingests of a log."""

    log: Log
    name: str
    several: bool
    """Whether there are other logs."""
    landings: Mapping[str, Sequence[File]]
    """Landing (its ISO date, or ``bulk``) -> its files."""
    mapping: str
    """The parts of the configuration that decide what becomes of a raw row, as text."""

    @property
    def files(self) -> list[File]:
        return [file for files in self.landings.values() for file in files]

    def fingerprints(self, without: Iterable[File] = ()) -> dict[str, str]:
        """By landing, as a run names them."""
        gone = set(without)
        kept = {name: [f for f in files if f not in gone] for name, files in self.landings.items()}
        return {self.key(name): fingerprint(files, self.mapping) for name, files in kept.items() if files or not gone}

    def key(self, landing: str) -> str:
        """How a run names a landing: those of further logs begin with the log's name."""
        return landing if self.name == MAIN else f"{self.name} {landing}"

    def within(self, landings: Sequence[str], always: str) -> str:
        """Predicate of the rows of these landings; a bulk load is all that the table has of the log."""
        mine = [f"source = '{self.name}'"] if self.several else []
        if list(landings) == [BULK]:
            return " AND ".join(mine) or f"{always} IS NOT NULL"
        days = ", ".join(f"DATE'{day}'" for day in landings)
        return " AND ".join([*mine, f"landed_on IN ({days})"])

    @property
    def of(self) -> str:
        """For messages."""
        return f" of log {self.name}" if self.several else ""

    def named(self, frame: DataFrame) -> DataFrame:
        """Rows with the log's name, where there are several."""
        return frame.withColumn("source", F.lit(self.name)) if self.several else frame

    def of_the_log(self, table: DataFrame) -> DataFrame:
        return table.where(F.col("source") == self.name) if self.several else table


def ingest(
    tables: Tables,
    config: Config,
    run: Run,
    landings: Sequence[date] = (),
    everything: bool = False,
    name: str = MAIN,
) -> None:
    """Ingest the landings that are new or changed since their last successful run, or those that are named.

    Adds what became of their rows to the run's counts.

    Args:
        name: the log whose landings these are.
        landings: replace exactly these, changed or not.
        everything: replace every landing of the source, changed or not.

    Raises:
        SourceError: there is nothing to read, or it is not what the configuration describes.
        TooManyBadRows: the share of rejected rows is above ``source.max_bad_share``; nothing was written.
    """
    check_pattern(tables.spark, config.all_logs[name].fields.event_time)
    batch = _choose(tables, config, name, landings, everything)
    _count(run, batch, {**dict.fromkeys(FATES, 0), "files": len(batch.files), "files_quarantined": 0})
    if not batch.landings:
        log.info("ingest: no new or changed landing%s, nothing to do", batch.of)
        return
    staging = tables.folder("_staging", run.id)
    try:
        broken, staged = _stage(tables, batch, staging)
        _publish(tables, config, run, batch, broken, staged)
    finally:
        storage.remove_folder(staging)


def _choose(tables: Tables, config: Config, name: str, landings: Sequence[date], everything: bool) -> Batch:
    found = _landings(tables, config, name)
    wanted = [day.isoformat() for day in landings]
    unknown = sorted(set(wanted) - found.landings.keys())
    if unknown:
        raise SourceError(
            f"landing {', '.join(unknown)} is not in the source{found.of}; available: {_span(found.landings)}"
        )
    if not everything and not wanted:
        known = _known_fingerprints(tables)
        # A table has no files whose changes could be seen: it is read again each time.
        made = found.fingerprints()
        wanted = [
            n for n, files in found.landings.items() if known.get(found.key(n)) != made[found.key(n)] or not files
        ]
    chosen = {landing: files for landing, files in found.landings.items() if everything or landing in wanted}
    return replace(found, landings=chosen)


def _landings(tables: Tables, config: Config, name: str) -> Batch:
    log = config.all_logs[name]
    where = {"path", "landing_pattern", "max_bad_share"}
    mapping = log.model_dump_json(exclude={"kind": True, "source": where})
    landings: dict[str, list[File]] = defaultdict(list)
    if log.source.format in ("delta", "table"):
        landings[BULK] = []
    else:
        for file in list_files(tables.spark, log.source):
            landings[file.landing.isoformat() if file.landing else BULK].append(file)
    return Batch(
        log=log, name=name, several=bool(config.logs), landings=dict(sorted(landings.items())), mapping=mapping
    )


def _span(landings: Mapping[str, Sequence[File]]) -> str:
    return f"{len(landings)} from {min(landings)} to {max(landings)}"


def _known_fingerprints(tables: Tables) -> dict[str, str]:
    """Landing -> fingerprint of its newest successful ingest."""
    if not tables.exists("runs") or not tables.exists("events"):
        return {}
    done = tables.read("runs").where("job = 'ingest' AND status = 'succeeded'")
    known: dict[str, str] = {}
    for row in done.orderBy("started").select("inputs").collect():
        known |= row["inputs"]
    return known


Staged = tuple[list[BrokenFile], DataFrame | None]
"""The files that could not be used, and the parsed rows of the others (None: there are no others)."""


def _stage(tables: Tables, batch: Batch, staging: str) -> Staged:
    """Parse the batch into the staging folder."""
    if not batch.files:
        return [], _write(parse_rows(raw_table(tables.spark, batch.log), batch.log), staging)
    try:
        return _stage_files(tables, batch, batch.files, staging)
    except SPARK_ERRORS:
        unreadable = _unreadable(tables, batch.log, batch.files)
        if not unreadable:
            raise
    listed = {file.path for file in _still_there(tables, batch.log)}
    broken = [
        BrokenFile(file=file, reason="broken_file" if file.path in listed else "vanished_file") for file in unreadable
    ]
    readable = [file for file in batch.files if file not in set(unreadable)]
    more, staged = _stage_files(tables, batch, readable, staging)
    return broken + more, staged


def _stage_files(tables: Tables, batch: Batch, files: Sequence[File], staging: str) -> Staged:
    raw, broken = raw_files(tables.spark, batch.log, files)
    if raw is None and (not tables.exists("events") or batch.of_the_log(tables.read("events")).isEmpty()):
        check_columns(tables.spark, batch.log, broken)
    return broken, _write(parse_rows(raw, batch.log), staging) if raw is not None else None


def _write(rows: DataFrame, staging: str) -> DataFrame:
    """The rows as they were written: later steps read them and not the source, which may change."""
    rows.write.mode("overwrite").parquet(staging)
    return rows.sparkSession.read.parquet(staging)


def _unreadable(tables: Tables, of: Log, files: Sequence[File]) -> list[File]:
    """The files that Spark cannot read to their end, found by halves."""
    try:
        raw, _ = raw_files(tables.spark, of, files)
        if raw is not None:
            raw.write.format("noop").mode("overwrite").save()
        return []
    except SPARK_ERRORS as error:
        if len(files) == 1:
            log.warning("ingest: %s cannot be read: %s", files[0].path, str(error).splitlines()[0])
            return list(files)
    half = len(files) // 2
    return _unreadable(tables, of, files[:half]) + _unreadable(tables, of, files[half:])


def _still_there(tables: Tables, of: Log) -> list[File]:
    try:
        return list_files(tables.spark, of.source)
    except SourceError:
        return []


def _publish(
    tables: Tables, config: Config, run: Run, batch: Batch, broken: Sequence[BrokenFile], staged: DataFrame | None
) -> None:
    found = tally(staged, batch.log) if staged is not None else Tally()
    refuse_bad_rows(found, batch.log)
    tables.create("quarantine", schema.quarantine_schema(batch.several))
    tables.create("events", config.events_schema())
    check_columns_of_events(tables, config)
    _replace_quarantine(tables, batch, broken, staged if found.bad else None)
    for one in broken:
        log.warning("ingest: %s was not read: %s %s", one.file.path, one.reason, one.field or "")
    vanished = [b.file for b in broken if b.reason == "vanished_file"]
    run.inputs |= batch.fingerprints(without=vanished)
    unusable = {b.file for b in broken}
    readable = sorted(name for name, files in batch.landings.items() if not files or set(files) - unusable)
    written = _replace_events(tables, batch, readable, staged, found) if readable else 0
    counts = found.counts(written) | {"files_quarantined": len(broken)}
    _check_counts(counts, batch.log)
    _count(run, batch, counts)
    run.outputs |= {"events": tables.sql_name("events"), "quarantine": tables.sql_name("quarantine")}


def _count(run: Run, batch: Batch, counts: Mapping[str, int]) -> None:
    """Add to the run's counts; where there are several logs, also those of each."""
    for name, count in counts.items():
        run.counts[name] = run.counts.get(name, 0) + count
        if batch.several:
            run.counts[f"{batch.name} {name}"] = run.counts.get(f"{batch.name} {name}", 0) + count


def _replace_quarantine(tables: Tables, batch: Batch, broken: Sequence[BrokenFile], staged: DataFrame | None) -> None:
    """Replace the landings' rows by the broken files and the rejected ones of the staged rows, if there are any."""
    within = batch.within(sorted(batch.landings), "reason")
    if not broken and staged is None and tables.read("quarantine").where(within).isEmpty():
        # An empty commit takes as long as one with rows.
        return
    rows = [(b.file.landing, b.file.path, b.reason, b.field, None) for b in broken]
    frame = tables.spark.createDataFrame(rows, schema.quarantine_schema())
    if staged is not None:
        rejected = staged.where(F.col("status") == "rejected")
        frame = frame.unionByName(rejected.select("landed_on", "source_file", "reason", "field", "raw"))
    tables.replace(batch.named(frame).select(tables.read("quarantine").columns), "quarantine", within)


def _replace_events(
    tables: Tables, batch: Batch, landings: Sequence[str], staged: DataFrame | None, found: Tally
) -> int:
    """Replace the landings' rows; returns how many they have now."""
    table = tables.read("events")
    within = batch.within(landings, "landed_on")
    if staged is None:
        events = table.limit(0)
    else:
        columns = [name for name in table.columns if name in {*batch.log.columns, "landed_on"}]
        accepted = staged.where(F.col("status") == "accepted").select(columns)
        others = batch.of_the_log(table).where(f"NOT ({within})") if found.accepted else table.limit(0)
        events = batch.named(deduplicate(accepted, others.select(columns), batch.log, found))
    mine = set(events.columns)
    # The fields of other logs are null.
    filled = [F.col(f.name) if f.name in mine else F.lit(None).cast(f.dataType).alias(f.name) for f in table.schema]
    tables.replace(events.select(filled), "events", within)
    return tables.read("events").where(within).count()


def deduplicate(accepted: DataFrame, others: DataFrame, log: Log, found: Tally) -> DataFrame:
    """One row per event of the batch that ``others``, the events of other landings, do not have.

    Of equal events the first landing wins; with a key, rows of one landing are put in the order of their columns.
    """
    if log.dedupe.policy == "none":
        return accepted
    columns = [name for name in accepted.columns if name != "landed_on"]
    key = log.dedupe.key or columns
    rest = [name for name in columns if name not in key]
    grouped = accepted.groupBy(*key)
    if rest:
        # The least struct is the first landing's, then the first by the order of the columns: a total order.
        unique = grouped.agg(F.min(F.struct("landed_on", *rest)).alias("first")).select(*key, "first.*")
    else:
        # A plain date is aggregated by hashing, a struct by sorting.
        unique = grouped.agg(F.min("landed_on").alias("landed_on"))
    unique = unique.select(accepted.columns)
    if log.source.layout == "bulk":
        return unique
    if "event_time" in key and found.first_us is not None and found.last_us is not None:
        first, last = (F.timestamp_micros(F.lit(us)) for us in (found.first_us, found.last_us))
        others = others.where(F.col("event_time").between(first, last))
    seen = others.select([F.col(name).alias(f"seen {name}") for name in key])
    same = reduce(and_, [F.col(name).eqNullSafe(F.col(f"`seen {name}`")) for name in key])
    return unique.join(seen, same, "left_anti")


def _check_counts(counts: Mapping[str, int], of: Log) -> None:
    """Every raw row has one fate.

    Raises:
        TableError: the counts of the staged rows and of the written events do not add up.
    """
    fates = sum(counts[fate] for fate in ("accepted", "deduplicated", "filtered", "quarantined"))
    lost = counts["deduplicated"] < 0 or (counts["deduplicated"] > 0 and of.dedupe.policy == "none")
    if fates != counts["rows_read"] or lost:
        raise TableError(f"ingest lost count of its rows: {counts}; run it again, and report this if it stays")
