"""Staged rows of landings in the place of those that the log's table has."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.logs import Join, Log
from gur_spark.config.pipeline import Config
from gur_spark.events.duplicates import correct, new_events
from gur_spark.events.landings import BULK, Landings
from gur_spark.events.lookup import with_attributes
from gur_spark.events.quality import Tally
from gur_spark.events.staging import Staged
from gur_spark.tables.delta import Tables


@dataclass(frozen=True)
class Written:
    """Rows that the landings of a run have in the log's table."""

    rows: int = 0
    without_item: dict[str, int] = field(default_factory=dict)
    """``rows_without_<log>`` -> events with an item and without any attribute of it, where events take some."""
    corrected: Sequence[str] = ()
    """Other landings, ISO dates, that lost rows to corrections."""


def replace_rows(
    tables: Tables, config: Config, chosen: Landings, names: Sequence[str], staged: Staged, found: Tally
) -> Written:
    """Replace rows of some landings, by name, in the log's table.

    Args:
        names: landings of which a file can be used.
        found: counts and time range of the accepted rows.
    """
    whole = list(names) == [BULK] and not chosen.named
    if whole and staged.unique and staged.unique.files and not _join(chosen):
        tables.replace_by_files(staged.unique.files, chosen.table)
        return Written(staged.unique.rows)
    table = tables.read(chosen.table).withColumnRenamed(chosen.time, "event_time")
    rows, replaced = _new_rows(tables, config, chosen, names, staged, found, table)
    mine = set(rows.columns)
    # The fields of other logs are null.
    filled = [F.col(f.name) if f.name in mine else F.lit(None).cast(f.dataType).alias(f.name) for f in table.schema]
    rows = rows.select(filled).withColumnRenamed("event_time", chosen.time)
    tables.replace(rows, chosen.table, None if whole else chosen.predicate(replaced, "landed_on", chosen.named))
    corrected = sorted(set(replaced) - set(names))
    return replace(_written(tables, chosen, names, staged, found), corrected=corrected)


def _join(chosen: Landings) -> Join | None:
    return chosen.log.join if isinstance(chosen.log, Log) else None


def _new_rows(
    tables: Tables,
    config: Config,
    chosen: Landings,
    names: Sequence[str],
    staged: Staged,
    found: Tally,
    table: DataFrame,
) -> tuple[DataFrame, Sequence[str]]:
    """The rows to write, and the landings whose rows they replace."""
    accepted, log = staged.accepted(tables.spark), chosen.log
    if accepted is None:
        return table.limit(0), names
    columns = [name for name in table.columns if name in {*log.columns, "landed_on"}]
    rows, replaced = accepted.select(columns), names
    if log.dedupe.policy != "none" and log.source.layout != "bulk":
        within = chosen.predicate(names, "landed_on", chosen.named)
        others = chosen.rows_of_log(table).where(f"NOT ({within})").select(columns)
        if log.dedupe.keep == "last":
            made = correct(rows, others, log)
            rows, replaced = made.rows, sorted({*names, *made.landings})
        else:
            rows = new_events(rows, others, log, found)
    join = _join(chosen)
    if join:
        rows = with_attributes(tables, rows, join, config.item_logs[join.log])
    return chosen.with_source(rows), replaced


def _written(tables: Tables, chosen: Landings, names: Sequence[str], staged: Staged, found: Tally) -> Written:
    """Count the rows of the landings in the log's table, where the staged rows do not tell their number."""
    join = _join(chosen)
    if join is None and staged.unique is None:
        return Written(found.accepted)
    if join is None and staged.unique and chosen.log.source.layout == "bulk":
        return Written(staged.unique.rows)
    rows = tables.read(chosen.table).where(chosen.predicate(names, "landed_on", chosen.named))
    if join is None:
        return Written(rows.count())
    lacking = reduce(and_, [F.col(join.on).isNotNull(), *(F.col(name).isNull() for name in join.take)])
    count, without = rows.agg(F.count(F.lit(1)), F.count_if(lacking)).collect()[0]
    return Written(count, {f"rows_without_{join.log}": without})
