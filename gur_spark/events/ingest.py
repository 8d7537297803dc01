"""Ingest of a raw log into ``events`` (or ``items``) and ``quarantine``, one landing at a time or all at once.

Where there are several logs, each is ingested on its own, with landings and counts of its own.

Rows are parsed once into a staging folder and counted there, and nothing is visible before the counts are good. Then
two commits follow: ``quarantine``, where it has or gets rows, and the log's table. Each replaces the landings of the
run, so after a kill between the two, the same run made again replaces both.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import date

from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.config.logs import MAIN, ItemLog, Log, RawLog
from gur_spark.config.pipeline import Config
from gur_spark.errors import SourceError, TableError
from gur_spark.events.columns import check_columns_of_events, check_columns_of_items
from gur_spark.events.landings import Landings, choose_landings
from gur_spark.events.lookup import check_items
from gur_spark.events.quality import (
    TRANSIENT,
    check_met_keys,
    lines_about,
    refuse_bad_rows,
    refuse_lost_landings,
    refuse_unread_files,
    tally,
)
from gur_spark.events.replacing import Written, replace_rows
from gur_spark.events.staging import Staged, stage
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account, kept_on_failure

log = logging.getLogger("gur_spark")

LOST_FILES = "files_lost"
"""Count in ``runs`` of files that hold rows and were not used."""

CORRECTED = "corrected landings"
"""Output in ``runs``: landings that lost rows to corrections of this run."""

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
        The landings with their fingerprints, the counts of their rows, the files that were left out, and the tables
        that were written.

    Args:
        name: name of the log.
        landings: replace exactly these, changed or not.
        everything: replace every landing of the source, changed or not.

    Raises:
        TableError: events take attributes of items, and the table ``items`` does not have them.
        SourceError: there is nothing to read, it is not what the configuration describes, or no file of a landing can
            be used; nothing was written.
        TooManyBadRows: the share of rejected rows, or of bytes in files that were not read, is above
            ``source.max_bad_share``; nothing was written.
    """
    chosen = choose_landings(tables, config, name, landings, everything)
    done = Account(
        counts=_named(chosen, dict.fromkeys(FATES, 0) | {"files": len(chosen.files), "files_quarantined": 0})
    )
    if not chosen.files_of:
        log.info("ingest: no new or changed landing%s, nothing to do", chosen.of_log)
        return done
    if isinstance(chosen.log, Log) and chosen.log.join:
        check_items(tables, chosen.log.join)
    staging = tables.folder("_staging", run_id)
    try:
        with kept_on_failure(done):
            staged = stage(tables.spark, chosen, staging)
            _publish(tables, config, chosen, staged, done)
    finally:
        storage.remove_folder(staging)
    return done


def _publish(tables: Tables, config: Config, chosen: Landings, staged: Staged, done: Account) -> None:
    """Write the rows of staged landings and what is broken, and say so in the account."""
    found = tally(staged.used, chosen.log)
    refuse_lost_landings(chosen.files_of, staged.broken)
    _refuse_emptied_landings(tables, chosen)
    refuse_unread_files(chosen.files, staged.broken, chosen.log)
    lacking = check_met_keys(chosen, staged)
    refuse_bad_rows(found, chosen.log)
    had_quarantine = tables.exists("quarantine")
    tables.create("quarantine", schema.QUARANTINE)
    if isinstance(chosen.log, ItemLog):
        tables.create("items", config.items_schema())
        check_columns_of_items(tables, config)
    else:
        tables.create("events", config.events_schema())
        check_columns_of_events(tables, config)
    _replace_quarantine(tables, chosen, staged, had_quarantine)
    done.inputs.update(chosen.fingerprints(without=[b.file for b in staged.broken if b.reason in TRANSIENT]))
    unusable = {b.file for b in staged.broken}
    readable = sorted(name for name, files in chosen.files_of.items() if not files or set(files) - unusable)
    written = replace_rows(tables, config, chosen, readable, staged, found) if readable else Written()
    lost = sum(b.is_loss for b in staged.broken)
    counts = (
        found.counts(written.rows) | written.without_item | {"files_quarantined": len(staged.broken), LOST_FILES: lost}
    )
    _check_counts(counts, chosen.log)
    done.counts.update(_named(chosen, counts | lacking.counts))
    done.losses.extend([*map(str, (b for b in staged.broken if b.is_loss)), *lacking.losses])
    for line in (*done.losses, *(f"quarantined {line}" for line in lines_about(found, chosen.log))):
        log.warning("ingest: %s", line)
    done.outputs.update({name: tables.sql_name(name) for name in (chosen.table, "quarantine")})
    if written.corrected:
        done.outputs[f"{CORRECTED}{chosen.of_log}"] = ", ".join(map(chosen.key, written.corrected))


def corrected_landings(outputs: Mapping[str, str]) -> list[str]:
    """Landings, named as in ``inputs`` of a run, that lost rows to corrections of the run with these outputs."""
    told = [text for name, text in outputs.items() if name.startswith(CORRECTED)]
    return [key for text in told for key in text.split(", ")]


def _refuse_emptied_landings(tables: Tables, chosen: Landings) -> None:
    """Refuse a landing that has only empty files now, while its rows are in the table: an upload may have been cut.

    Raises:
        SourceError: naming the landings.
    """
    empty = [name for name, files in chosen.files_of.items() if files and not any(file.length for file in files)]
    if not empty or not tables.exists(chosen.table):
        return
    if not tables.read(chosen.table).where(chosen.predicate(empty, "landed_on", chosen.named)).isEmpty():
        raise SourceError(
            f"landing {', '.join(empty)}{chosen.of_log} has only empty files now, and its rows are in {chosen.table}; "
            "nothing was written. To remove the rows, deliver a file with a header line, or a blank line"
        )


def _named(chosen: Landings, counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by name; where there are several logs, also under the log's name."""
    of_log = {f"{chosen.name} {name}": count for name, count in counts.items()} if chosen.several else {}
    return {**counts, **of_log}


def _replace_quarantine(tables: Tables, chosen: Landings, staged: Staged, had_rows: bool) -> None:
    """Replace the landings' rows of ``quarantine`` by one row per broken file and per rejected row.

    Args:
        had_rows: whether the table may have rows of these landings.
    """
    within = chosen.predicate(sorted(chosen.files_of), "reason", named=True)
    rejected = staged.rejected(tables.spark)
    nothing = not staged.broken and rejected is None
    if nothing and (not had_rows or tables.read("quarantine").where(within).isEmpty()):
        # An empty commit takes as long as one with rows.
        return
    rows = [(b.file.landing, chosen.name, b.file.path, b.reason, b.field, b.cause) for b in staged.broken]
    frame = tables.spark.createDataFrame(rows, schema.QUARANTINE)
    if rejected is not None:
        frame = frame.unionByName(rejected.withColumn("source", F.lit(chosen.name)).select(frame.columns))
    tables.replace(frame, "quarantine", within)


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
