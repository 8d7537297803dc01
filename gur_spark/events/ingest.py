"""Ingest of a raw log into ``events`` (or ``items``) and ``quarantine``, one landing at a time or all at once.

Where there are several logs, each is ingested on its own, with landings and counts of its own.

Rows are parsed once into a staging folder and counted there, and nothing is visible before the counts are good. Then
two commits follow: ``quarantine``, where it has or gets rows, and the log's table. Each replaces the landings of the
run, so after a kill between the two, the same run made again replaces both.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from functools import reduce
from operator import and_

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.config.logs import MAIN, ItemLog, RawLog
from gur_spark.config.pipeline import Config
from gur_spark.errors import TableError
from gur_spark.events.columns import check_columns_of_events, check_columns_of_items
from gur_spark.events.files import BrokenFile
from gur_spark.events.landings import Landings, choose_landings
from gur_spark.events.parse import check_pattern
from gur_spark.events.quality import Tally, refuse_bad_rows, tally
from gur_spark.events.staging import stage
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account, kept_on_failure

log = logging.getLogger("gur_spark")

FATES = ("rows_read", "accepted", "deduplicated", "filtered", "quarantined")
"""Names of the counts of raw rows in ``runs``: all of them, and what became of each."""


def ingest(
    tables: Tables,
    config: Config,
    run_id: str,
    landings: Sequence[date] = (),
    everything: bool = False,
    name: str = MAIN,
) -> Account:
    """Ingest the landings of a log that are new or changed since their last successful run, or those that are named.

    Returns:
        The landings with their fingerprints, the counts of their rows, and the tables that were written.

    Args:
        name: name of the log.
        landings: replace exactly these, changed or not.
        everything: replace every landing of the source, changed or not.

    Raises:
        SourceError: there is nothing to read, or it is not what the configuration describes.
        TooManyBadRows: the share of rejected rows is above ``source.max_bad_share``; nothing was written.
    """
    check_pattern(tables.spark, config.raw_logs[name].fields.event_time)
    chosen = choose_landings(tables, config, name, landings, everything)
    done = Account(
        counts=_named(chosen, dict.fromkeys(FATES, 0) | {"files": len(chosen.files), "files_quarantined": 0})
    )
    if not chosen.files_of:
        log.info("ingest: no new or changed landing%s, nothing to do", chosen.of_log)
        return done
    staging = tables.folder("_staging", run_id)
    try:
        with kept_on_failure(done):
            broken, staged = stage(tables, chosen, staging)
            _publish(tables, config, chosen, broken, staged, done)
    finally:
        storage.remove_folder(staging)
    return done


def _publish(
    tables: Tables,
    config: Config,
    chosen: Landings,
    broken: Sequence[BrokenFile],
    staged: DataFrame | None,
    done: Account,
) -> None:
    """Write the rows of staged landings and what is broken, and say so in the account."""
    found = tally(staged, chosen.log) if staged is not None else Tally()
    refuse_bad_rows(found, chosen.log)
    tables.create("quarantine", schema.QUARANTINE)
    if isinstance(chosen.log, ItemLog):
        tables.create("items", config.items_schema())
        check_columns_of_items(tables, config)
    else:
        tables.create("events", config.events_schema())
        check_columns_of_events(tables, config)
    _replace_quarantine(tables, chosen, broken, staged if found.bad else None)
    for one in broken:
        log.warning("ingest: %s was not read: %s %s", one.file.path, one.reason, one.field or "")
    vanished = [b.file for b in broken if b.reason == "vanished_file"]
    done.inputs.update(chosen.fingerprints(without=vanished))
    unusable = {b.file for b in broken}
    readable = sorted(name for name, files in chosen.files_of.items() if not files or set(files) - unusable)
    written = _replace_rows(tables, chosen, readable, staged, found) if readable else 0
    counts = found.counts(written) | {"files_quarantined": len(broken)}
    _check_counts(counts, chosen.log)
    done.counts.update(_named(chosen, counts))
    done.outputs.update({name: tables.sql_name(name) for name in (chosen.table, "quarantine")})


def _named(chosen: Landings, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by name; where there are several logs, also under the log's name."""
    of_log = {f"{chosen.name} {name}": count for name, count in counts.items()} if chosen.several else {}
    return {**counts, **of_log}


def _replace_quarantine(
    tables: Tables, chosen: Landings, broken: Sequence[BrokenFile], staged: DataFrame | None
) -> None:
    """Replace the landings' rows of ``quarantine`` by one row per broken file and per rejected row."""
    within = chosen.predicate(sorted(chosen.files_of), "reason", named=True)
    if not broken and staged is None and tables.read("quarantine").where(within).isEmpty():
        # An empty commit takes as long as one with rows.
        return
    rows = [(b.file.landing, chosen.name, b.file.path, b.reason, b.field, None) for b in broken]
    frame = tables.spark.createDataFrame(rows, schema.QUARANTINE)
    if staged is not None:
        rejected = staged.where(F.col("status") == "rejected").withColumn("source", F.lit(chosen.name))
        frame = frame.unionByName(rejected.select(frame.columns))
    tables.replace(frame, "quarantine", within)


def _replace_rows(
    tables: Tables, chosen: Landings, names: Sequence[str], staged: DataFrame | None, found: Tally
) -> int:
    """Replace rows of some landings, by name, in the log's table; returns their number of rows afterwards."""
    table = tables.read(chosen.table).withColumnRenamed(chosen.time, "event_time")
    within = chosen.predicate(names, "landed_on", chosen.named)
    if staged is None:
        rows = table.limit(0)
    else:
        columns = [name for name in table.columns if name in {*chosen.log.columns, "landed_on"}]
        accepted = staged.where(F.col("status") == "accepted").select(columns)
        others = chosen.rows_of_log(table).where(f"NOT ({within})") if found.accepted else table.limit(0)
        rows = chosen.with_source(deduplicate(accepted, others.select(columns), chosen.log, found))
    mine = set(rows.columns)
    # The fields of other logs are null.
    filled = [F.col(f.name) if f.name in mine else F.lit(None).cast(f.dataType).alias(f.name) for f in table.schema]
    tables.replace(rows.select(filled).withColumnRenamed("event_time", chosen.time), chosen.table, within)
    return tables.read(chosen.table).where(within).count()


def deduplicate(accepted: DataFrame, others: DataFrame, log: RawLog, found: Tally) -> DataFrame:
    """Accepted rows without duplicates, and without events that other landings have.

    Among equal events the first landing's stays. With a key, rows of one landing are compared by their columns in
    order, and the least one stays.

    Args:
        others: events of other landings.
        found: counts and time range of the accepted rows.
    """
    if log.dedupe.policy == "none":
        return accepted
    columns = [name for name in accepted.columns if name != "landed_on"]
    key = log.dedupe.key or columns
    rest = [name for name in columns if name not in key]
    grouped = accepted.groupBy(*key)
    if rest:
        # The least struct is that of the first landing, and then the least by its columns: a total order.
        unique = grouped.agg(F.min(F.struct("landed_on", *rest)).alias("first")).select(*key, "first.*")
    else:
        # Spark aggregates a date by hashing, and a struct by sorting.
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


def _check_counts(counts: Mapping[str, int], of: RawLog) -> None:
    """Check that each raw row was counted once.

    Raises:
        TableError: the counts of staged rows and of written events do not add up.
    """
    fates = sum(counts[fate] for fate in ("accepted", "deduplicated", "filtered", "quarantined"))
    lost = counts["deduplicated"] < 0 or (counts["deduplicated"] > 0 and of.dedupe.policy == "none")
    if fates != counts["rows_read"] or lost:
        raise TableError(
            f"the counts of ingest do not add up: expected {counts['rows_read']} rows in all, got {counts}; "
            "run it again, and report this if it happens again"
        )
