"""Choice of the landings that an ingest replaces: those that are new or changed, or those that are named."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.logs import MAIN, AnyLog, ItemLog, Log
from gur_spark.config.pipeline import Config
from gur_spark.errors import SourceError
from gur_spark.events.files import File, fingerprint
from gur_spark.events.listing import list_files
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import WITH_LOSSES

BULK = "bulk"
"""Name of the only landing of a bulk load in ``runs.inputs``."""


@dataclass(frozen=True, kw_only=True)
class Landings:
    """Landings of one log that one run ingests together."""

    log: AnyLog
    name: str
    """Name of the log."""
    several: bool
    """Whether the pipeline has other logs, too."""
    named: bool
    """Whether rows of the log's table have the log's name in ``source``."""
    files_of: Mapping[str, Sequence[File]]
    """Landing (its ISO date, or ``bulk``) -> its files."""
    mapping: str
    """The parts of the configuration that decide how a raw row is read, as text."""

    @property
    def table(self) -> str:
        """The table that accepted rows go to."""
        return "items" if isinstance(self.log, ItemLog) else "events"

    @property
    def time(self) -> str:
        """The table's column for the parsed ``event_time``."""
        return "valid_from" if isinstance(self.log, ItemLog) else "event_time"

    @property
    def files(self) -> list[File]:
        return [file for files in self.files_of.values() for file in files]

    @property
    def of_log(self) -> str:
        """Words for messages: `` of log NAME``, or nothing where there is only one log."""
        return f" of log {self.name}" if self.several else ""

    def fingerprints(self, without: Iterable[File] = ()) -> dict[str, str]:
        """Key of a landing -> fingerprint of its files, except those in ``without``."""
        gone = set(without)
        left = {name: [f for f in files if f not in gone] for name, files in self.files_of.items()}
        return {self.key(name): fingerprint(files, self.mapping) for name, files in left.items() if files or not gone}

    def key(self, landing: str) -> str:
        """Name of a landing in ``runs.inputs``. For further logs it begins with the log's name."""
        return landing if self.name == MAIN else f"{self.name} {landing}"

    def predicate(self, landings: Sequence[str], never_null: str, named: bool) -> str:
        """SQL predicate of a table's rows of these landings. A bulk load is all rows of the log.

        Args:
            never_null: column of the table that is never null, for a predicate that all rows satisfy.
            named: whether rows of the table have the log's name in ``source``.
        """
        of_log = [f"source = '{self.name}'"] if named else []
        if list(landings) == [BULK]:
            return " AND ".join(of_log) or f"{never_null} IS NOT NULL"
        days = ", ".join(f"DATE'{day}'" for day in landings)
        return " AND ".join([*of_log, f"landed_on IN ({days})"])

    def with_source(self, rows: DataFrame) -> DataFrame:
        """Rows with the log's name in ``source``, where the log's table has it."""
        return rows.withColumn("source", F.lit(self.name)) if self.named else rows

    def rows_of_log(self, table: DataFrame) -> DataFrame:
        """The rows of this log in its table."""
        return table.where(F.col("source") == self.name) if self.named else table


def choose_landings(tables: Tables, config: Config, name: str, landings: Sequence[date], everything: bool) -> Landings:
    """Landings of a log that are to be ingested.

    Args:
        landings: choose exactly these; if empty, those that are new or changed since their last successful ingest.
        everything: choose all landings of the source.

    Raises:
        SourceError: the source has no such landing.
    """
    found = _find_landings(tables, config, name)
    wanted = [day.isoformat() for day in landings]
    unknown = sorted(set(wanted) - found.files_of.keys())
    if unknown:
        raise SourceError(
            f"landing {', '.join(unknown)} is not in the source{found.of_log}; available: {_span(found.files_of)}"
        )
    if not everything and not wanted:
        wanted = _new_or_changed(tables, found)
    chosen = {landing: files for landing, files in found.files_of.items() if everything or landing in wanted}
    return replace(found, files_of=chosen)


def _find_landings(tables: Tables, config: Config, name: str) -> Landings:
    log = config.raw_logs[name]
    join = log.join if isinstance(log, Log) else None
    # Events that take fields of items change with these fields.
    taken = (
        [f.model_dump_json() for f in config.item_logs[join.log].fields.values if f.name in join.take] if join else []
    )
    location = {"path", "landing_pattern", "max_bad_share"}
    # A key of a later version of gur_spark, left at its default, makes no landing a changed one.
    mapping = log.model_dump_json(exclude={"kind": True, "source": location}, exclude_defaults=True)
    mapping += "".join(taken)
    files_of: dict[str, list[File]] = defaultdict(list)
    if log.source.format in ("delta", "table"):
        files_of[BULK] = []
    else:
        for file in list_files(log.source, "source" if name == MAIN else f"logs.{name}.source"):
            files_of[file.landing.isoformat() if file.landing else BULK].append(file)
    return Landings(
        log=log,
        name=name,
        several=bool(config.logs),
        named=isinstance(log, ItemLog) or len(config.all_logs) > 1,
        files_of=dict(sorted(files_of.items())),
        mapping=mapping,
    )


def _new_or_changed(tables: Tables, found: Landings) -> list[str]:
    known, now = _known_fingerprints(tables, found.table), found.fingerprints()
    # Changes of a table cannot be seen, so a table, which has no files, is read again each time.
    return [
        name
        for name, files in found.files_of.items()
        if not files or known.get(found.key(name)) != now[found.key(name)]
    ]


def _known_fingerprints(tables: Tables, table: str) -> dict[str, str]:
    """Key of a landing -> fingerprint of its newest successful ingest; empty where the log's table is gone."""
    if not tables.exists("runs") or not tables.exists(table):
        return {}
    done = tables.read("runs").where(f"job = 'ingest' AND status IN ('succeeded', '{WITH_LOSSES}')")
    known: dict[str, str] = {}
    for row in done.orderBy("started").select("inputs").collect():
        known |= row["inputs"]
    return known


def _span(files_of: Mapping[str, Sequence[File]]) -> str:
    return f"{len(files_of)} from {min(files_of)} to {max(files_of)}"
