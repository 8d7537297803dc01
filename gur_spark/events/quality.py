"""Counts of rows by fate and reason, and the refusal of landings with too many bad rows or unread files."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time

from gur_spark.config.fields import EventTime
from gur_spark.config.logs import AnyLog
from gur_spark.errors import SourceError, TooManyBadRows, nearest
from gur_spark.events.files import BrokenFile, File
from gur_spark.events.landings import Landings
from gur_spark.events.names import optional_columns, raw_columns
from gur_spark.events.reports import Report
from gur_spark.events.staging import Staged
from gur_spark.events.times import MICROS

UNITS = ("epoch_s", "epoch_ms", "epoch_us", "epoch_ns")

REASONS_SHOWN = LANDINGS_SHOWN = 5

TRANSIENT = ("vanished_file", "changed_file")
"""Reasons that may be gone the next time, so that the file's landing is tried again."""


@dataclass(frozen=True, kw_only=True)
class BadRows:
    """Rows that are rejected for one reason in one field."""

    reason: str
    field: str | None
    rows: int
    sample: str
    """Text of one of them."""
    time_text: str | None
    """Time of one of them, if times are out of bounds."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of staged rows."""

    accepted: int = 0
    """Accepted rows before duplicates are removed."""
    filtered: int = 0
    bad: Sequence[BadRows] = ()
    rounded: dict[str, int] = field(default_factory=dict)
    first_us: int | None = None
    last_us: int | None = None
    """First and last accepted event time, in microseconds since 1970.

    A datetime would be converted to the driver's time zone.
    """

    @property
    def quarantined(self) -> int:
        return sum(bad.rows for bad in self.bad)

    @property
    def rows(self) -> int:
        return self.accepted + self.filtered + self.quarantined

    def counts(self, written: int) -> dict[str, int]:
        """Counts for the run's row, given the number of events that were written."""
        return {
            "rows_read": self.rows,
            "accepted": written,
            "deduplicated": self.accepted - written,
            "filtered": self.filtered,
            "quarantined": self.quarantined,
            **self.rounded,
        }


def tally(reports: Iterable[Report], log: AnyLog) -> Tally:
    """Add up the reports on the files that are used."""
    whole = Report(file=0, rounded=Counter({f"rounded_{field.name}": 0 for field in log.fields.numeric}))
    for report in reports:
        whole.merge(report)
    bad = [
        BadRows(reason=reason, field=field, rows=bad.rows, sample=bad.sample, time_text=bad.when)
        for (reason, field), bad in whole.bad.items()
    ]
    return Tally(
        accepted=whole.accepted,
        filtered=whole.filtered,
        bad=sorted(bad, key=lambda bad: (-bad.rows, bad.reason, bad.field or "")),
        rounded=dict(whole.rounded),
        first_us=whole.first_us,
        last_us=whole.last_us,
    )


def refuse_lost_landings(files_of: Mapping[str, Sequence[File]], broken: Sequence[BrokenFile]) -> None:
    """Refuse a run with a landing none of whose files can be used, so that the landing is tried again.

    A landing whose files are all empty is not one of these: it holds no rows.

    Raises:
        SourceError: naming the landings and the cause.
    """
    lost = {b.file: b for b in broken if b.is_loss}
    unusable = {b.file for b in broken}
    names = [n for n, files in files_of.items() if files and set(files) <= unusable and set(files) & lost.keys()]
    if not names:
        return
    causes = [lost[file] for name in names for file in files_of[name] if file in lost]
    raise SourceError(
        "\n  ".join(
            [
                f"no file of landing {', '.join(names[:LANDINGS_SHOWN])} can be used; nothing was written",
                *map(str, causes[:REASONS_SHOWN]),
                *([f"and {len(causes) - REASONS_SHOWN} more files"] if len(causes) > REASONS_SHOWN else []),
            ]
        )
    )


def refuse_unread_files(files: Sequence[File], broken: Sequence[BrokenFile], log: AnyLog) -> None:
    """Refuse landings with too many bytes in files that cannot be used.

    Raises:
        TooManyBadRows: naming some of the files and the cause.
    """
    lost, whole = [b for b in broken if b.is_loss], sum(file.length for file in files)
    unread = sum(b.file.length for b in lost)
    if unread <= log.source.max_bad_share * whole:
        return
    raise TooManyBadRows(
        "\n  ".join(
            [
                f"{len(lost):,} of {len(files):,} files cannot be used, {unread / whole:.1%} of the bytes; "
                f"source.max_bad_share allows {log.source.max_bad_share:.1%}; nothing was written",
                *map(str, lost[:REASONS_SHOWN]),
            ]
        )
    )


@dataclass(frozen=True, kw_only=True)
class LackingKeys:
    """Mapped keys that no row of a landing has, although other landings have them."""

    counts: dict[str, int]
    """``rows_without_<key>`` -> rows of these landings."""
    losses: Sequence[str]


def check_met_keys(chosen: Landings, staged: Staged) -> LackingKeys:
    """Compare the mapped keys of JSON lines with those that rows have.

    Raises:
        SourceError: no row of any landing has a mapped key; the message names the keys of a row and the nearest one.
    """
    counts: Counter[str] = Counter()
    losses: list[str] = []
    if chosen.log.source.format != "jsonl":
        return LackingKeys(counts=counts, losses=losses)
    optional = optional_columns(chosen.log)
    wanted = [column for column in raw_columns(chosen.log) if column not in optional]
    by_landing = {name: _merged(staged, files) for name, files in chosen.files_of.items()}
    read = {name: report for name, report in by_landing.items() if report.rows}
    for key in wanted:
        lacking = [name for name, report in read.items() if key not in report.met.wanted]
        if not lacking:
            continue
        report = read[lacking[0]]
        if len(lacking) == len(read):
            raise SourceError(
                f"no row of landing {', '.join(lacking[:LANDINGS_SHOWN])} has the key '{key}'; keys of a row: "
                f"{report.met.sample}{nearest(key, report.met.sample)}; nothing was written"
            )
        counts[f"rows_without_{key}"] = sum(read[name].rows for name in lacking)
        losses.append(
            f"no row of landing {', '.join(lacking[:LANDINGS_SHOWN])} has the key '{key}'; keys of a row: "
            f"{report.met.sample}{nearest(key, report.met.sample)}"
        )
    return LackingKeys(counts=counts, losses=losses)


def _merged(staged: Staged, files: Sequence[File]) -> Report:
    whole = Report(file=0)
    for file in files:
        report = staged.by_path.get(file.path)
        if report and report.problem is None:
            whole.merge(report)
    return whole


def refuse_bad_rows(found: Tally, log: AnyLog) -> None:
    """Refuse landings whose share of bad rows is above ``source.max_bad_share``.

    Raises:
        TooManyBadRows: the message has the reasons, a raw row of each, and a hint.
    """
    if found.quarantined <= log.source.max_bad_share * found.rows:
        return
    first = (
        f"{found.quarantined:,} of {found.rows:,} rows are bad ({found.quarantined / found.rows:.1%}); "
        f"source.max_bad_share allows {log.source.max_bad_share:.1%}; nothing was written"
    )
    raise TooManyBadRows("\n  ".join([first, *lines_about(found, log)]))


def lines_about(found: Tally, log: AnyLog) -> list[str]:
    """Lines on the most frequent reasons of rejected rows, with a row of each."""
    lines = []
    for bad in found.bad[:REASONS_SHOWN]:
        where = f" in {bad.field}" if bad.field else ""
        lines.append(f"{bad.rows:,} x {bad.reason}{where}, such as: {bad.sample!r}{_rule(bad, log)}")
        lines += _unit_hint(bad, log.fields.event_time)
    return lines


def _rule(bad: BadRows, log: AnyLog) -> str:
    """The keys by which rows of a reason were judged."""
    times, source = log.fields.event_time, log.source
    if bad.reason == "time_out_of_bounds":
        return f"; accepted from fields.event_time.min, {times.min}, until fields.event_time.max, {times.max}"
    if bad.reason == "bad_time":
        origin = f", '{times.origin_column}' by origin_format {times.origin_format}" if times.origin_column else ""
        return f"; '{times.column}' is read by fields.event_time.format {times.format}{origin}"
    if bad.reason == "not_a_number" and source.format != "jsonl":
        return f"; source.decimal_separator is {source.decimal_separator!r}"
    return ""


def _unit_hint(bad: BadRows, times: EventTime) -> list[str]:
    """Hints at epoch units in which a time that is out of bounds would be inside them."""
    format = times.formats[0]
    if bad.time_text is None or format not in UNITS:
        return []
    low, high = (datetime.combine(day, time(), UTC).timestamp() for day in (times.min, times.max))
    try:
        seconds = {unit: float(bad.time_text) * float(MICROS[unit]) / 1e6 for unit in UNITS}
    except ValueError:  # read by another of the formats
        return []
    units = [unit for unit, value in seconds.items() if low <= value < high and unit != format]
    column = times.column
    return [f"the values of '{column}' look like {unit}; fields.event_time.format is {format}" for unit in units]
