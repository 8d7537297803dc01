"""Freshness: age in days of the newest events, landings, snapshot and embeddings at a date.

Without it, a feed that stopped would look like users who fell silent.
"""

from collections.abc import Iterator, Sequence
from datetime import date

from pyspark.sql import functions as F

from gur_spark.config.logs import MAIN
from gur_spark.config.pipeline import Config
from gur_spark.events.ingest import LOST_FILES
from gur_spark.features.spark.selection import known_at, last_landing, midnight
from gur_spark.models.kind import Form
from gur_spark.monitoring.embeddings import ScoredDates
from gur_spark.monitoring.findings import Measurement
from gur_spark.snapshots.visible import visible_snapshots
from gur_spark.tables.delta import Tables

NEVER = float("inf")

RUNS = 200
"""Newest runs of ``ingest`` that are looked through for one of each log."""


def freshness(
    tables: Tables, config: Config, as_of: date, read: tuple[Form, str, str | None], scored: ScoredDates | None
) -> Iterator[Measurement]:
    """Days from the newest event and landing of each log, snapshot and embeddings to ``as_of``; infinite without any.

    Landings that a snapshot of the date does not know are left out, so that a date is measured alike later on. Events
    of the day before as_of are 1 day old. Attributes stay valid for long, so only their landings are measured.

    Args:
        read: form, manifest hash and vocabulary hash of the snapshots that the model reads; only these count. Without
            a vocabulary hash, snapshots of any vocabulary count.

    Raises:
        TableError: there are no events yet.
    """
    found = _newest_days(tables, as_of, config.aggregates.delay_days)
    for name, log in config.all_logs.items():
        event, landing = found.get(name, (None, None))
        if log.kind == "events":
            yield _days(f"log {name}", "event_days", event, as_of)
        yield _days(f"log {name}", "landing_days", landing, as_of)
    yield from _lost_files(tables, list(config.all_logs))
    form, manifest_hash, vocabulary_hash = read
    visible = visible_snapshots(tables, form) if tables.exists("snapshots") else []
    alike = [s for s in visible if s.manifest_hash == manifest_hash and vocabulary_hash in (None, s.vocabulary_hash)]
    snapshots = [s.as_of for s in alike if s.as_of <= as_of]
    yield _days("snapshots", "snapshot_days", max(snapshots, default=None), as_of)
    if scored:
        dates = [day for day in scored.dates if day <= as_of]
        yield _days("embeddings", "embeddings_days", max(dates, default=None), as_of)


def _newest_days(tables: Tables, as_of: date, delay_days: int) -> dict[str, tuple[date, date]]:
    """Log with events before ``as_of`` -> day of the newest event, and newest landing."""
    events = tables.read("events", made_by="ingest")
    log = F.col("source") if "source" in events.columns else F.lit(MAIN)
    landed = F.col("landed_on") <= F.lit(last_landing(known_at(as_of, delay_days)))
    known = events.where((F.col("event_time") < midnight(as_of)) & landed).select(
        log.alias("log"), F.to_date("event_time").alias("day"), "landed_on"
    )
    rows = known.groupBy("log").agg(F.max("day").alias("day"), F.max("landed_on").alias("landed_on")).collect()
    return {row["log"]: (row["day"], row["landed_on"]) for row in rows}


def _lost_files(tables: Tables, logs: Sequence[str]) -> Iterator[Measurement]:
    """Files that the newest ingest of each log left out; nothing for a log without such a run."""
    if not tables.exists("runs"):
        return
    done = tables.read("runs").where(F.col("job").isin("ingest", "stream") & (F.col("status") != "failed"))
    rows = done.orderBy(F.desc("started")).select("started", "counts").limit(RUNS).collect()
    for name in logs:
        key = LOST_FILES if len(logs) == 1 else f"{name} {LOST_FILES}"
        newest = next((row for row in rows if key in row["counts"]), None)
        if newest:
            value, reference = float(newest["counts"][key]), f"ingest of {newest['started']:%Y-%m-%d %H:%M}"
            subject = f"log {name}"
            yield Measurement(kind="freshness", subject=subject, measure="lost_files", value=value, reference=reference)


def _days(subject: str, measure: str, newest: date | None, as_of: date) -> Measurement:
    value = float((as_of - newest).days) if newest else NEVER
    reference = f"newest {newest}" if newest else "there is none"
    return Measurement(kind="freshness", subject=subject, measure=measure, value=value, reference=reference)
