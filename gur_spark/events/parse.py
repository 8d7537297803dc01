"""Parsing of raw text into typed fields, or into the reason why a row is rejected.

Each field has a value and a list of problems in a fixed order. The first problem of the first field becomes the row's
``reason`` and ``field``. All rules are Arrow kernels over the rows of a block, so both engines read alike.
"""

# N = rows

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.config.fields import Categorical, EventTime, Numeric
from gur_spark.config.logs import AnyLog, Filter, ItemLog
from gur_spark.config.source import Source
from gur_spark.events.decimals import FACTOR, NUMBER, SIGNED, exact, logarithms, number_type, product, steps
from gur_spark.events.raw import RawRows, nulls
from gur_spark.events.times import INSTANT, instants

_WHOLE = r"^[+-]?[0-9]{1,18}$"
_WHOLE_WITH_POINT = r"^([+-]?[0-9]+)\.0*$"
BETWEEN_PARTS = "|"
"""Character between the parts of an id of several columns."""

_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class ParsedField:
    """One column of ``events``, (N,)."""

    name: str
    value: pa.Array
    problems: Sequence[tuple[str, pa.BooleanArray]]
    """Pairs (reason code, condition) in the order in which they are checked."""
    rounded: pa.BooleanArray | None = None
    """True where the value was rounded to a whole number of steps."""


@dataclass(frozen=True, kw_only=True)
class ParsedRows:
    """N rows with their fates: accepted, filtered, or rejected for a reason."""

    fields: Sequence[ParsedField]
    """The user or item first, then the time."""
    reason: pa.StringArray
    """Reason code of a rejected row, else null."""
    field: pa.StringArray
    """Name of the field that it is about, if it is about one."""
    accepted: pa.BooleanArray
    filtered: int

    @property
    def rejected(self) -> pa.BooleanArray:
        return pc.is_valid(self.reason)

    def rounded(self) -> dict[str, int]:
        """Number of accepted rows with a rounded value, by field."""
        of_fields = {f.name: f.rounded for f in self.fields if f.rounded is not None}
        return {name: pc.sum(pc.and_(some, self.accepted)).as_py() or 0 for name, some in of_fields.items()}


def parse_rows(raw: RawRows, log: AnyLog, latest: datetime) -> ParsedRows:
    """Parse raw rows into the columns of ``events``, or for a log of items of ``items``, without ``landed_on``.

    Args:
        latest: an event at this moment or later is from the future.
    """
    if log.source.null_values:
        raw = _without_null_values(raw, log.source.null_values)
    fields = _fields(raw, log, latest)
    reason, field = raw.problem, nulls(len(raw))
    for one in fields:
        for code, condition in one.problems:
            new = pc.and_(pc.fill_null(condition, False), pc.is_null(reason))
            if pc.any(new).as_py():
                reason, field = pc.if_else(new, code, reason), pc.if_else(new, one.name, field)
    passes = _passes(raw, log.filters)
    if passes is None:
        return ParsedRows(fields=fields, reason=reason, field=field, accepted=pc.is_null(reason), filtered=0)
    # A row that cannot be split into columns has nothing to filter by.
    rejected = pc.or_(pc.is_valid(raw.problem), pc.and_(pc.is_valid(reason), passes))
    accepted = pc.and_(pc.is_null(reason), passes)
    return ParsedRows(
        fields=fields,
        reason=pc.if_else(rejected, reason, None),
        field=pc.if_else(rejected, field, None),
        accepted=accepted,
        filtered=len(raw) - pc.sum(pc.or_(rejected, accepted)).as_py() if len(raw) else 0,
    )


def _without_null_values(raw: RawRows, null_values: Sequence[str]) -> RawRows:
    names = pa.array(null_values, pa.string())
    texts = {name: pc.if_else(pc.is_in(texts, names), None, texts) for name, texts in raw.texts.items()}
    return replace(raw, texts=texts)


def _fields(raw: RawRows, log: AnyLog, latest: datetime) -> list[ParsedField]:
    source = log.source
    if isinstance(log, ItemLog):
        key = _item(raw.texts[log.fields.item.column], source)
    else:
        key = _user([raw.texts[column] for column in log.fields.user_id.columns], log.fields.user_id.type, source)
    return [
        key,
        _time(raw, log.fields.event_time, latest),
        *(_categorical(raw, field, source) for field in log.fields.categorical),
        *(_numeric(raw, field, source) for field in log.fields.numeric),
    ]


def _passes(raw: RawRows, filters: Sequence[Filter]) -> pa.BooleanArray | None:
    """The rows that all filters keep; None: there are no filters."""
    kept = [_keeps(raw.texts[rule.column], rule) for rule in filters]
    return reduce(pc.and_, kept) if kept else None


def _keeps(texts: pa.StringArray, rule: Filter) -> pa.BooleanArray:
    if rule.keep == "not_blank":
        return pc.invert(_blank(texts))
    among = pc.and_(pc.is_valid(texts), pc.is_in(texts, pa.array(rule.values, pa.string())))
    return among if rule.keep == "in" else pc.invert(among)


def _user(parts: Sequence[pa.StringArray], kind: str, source: Source) -> ParsedField:
    texts = parts[0] if len(parts) == 1 else _joined(parts)
    problems = [("null_user", _blank(texts)), ("too_long", _too_long(texts, source))]
    if kind == "string":
        return ParsedField(name="user_id", value=pc.utf8_trim(texts, " "), problems=problems)
    value = _longs(texts)
    return ParsedField(name="user_id", value=value, problems=[*problems, ("bad_user_id", pc.is_null(value))])


def _joined(parts: Sequence[pa.StringArray]) -> pa.StringArray:
    """Ids of several columns; null where a part is blank, or holds the character between two parts."""
    bad = [pc.or_(_blank(part), pc.fill_null(pc.match_substring(part, BETWEEN_PARTS), False)) for part in parts]
    trimmed = [pc.utf8_trim(part, " ") for part in parts]
    return pc.if_else(reduce(pc.or_, bad), None, pc.binary_join_element_wise(*trimmed, BETWEEN_PARTS))


def _longs(texts: pa.StringArray) -> pa.Int64Array:
    """Whole numbers of 64 bits; null for other text. Exports through a float column write 17850 as 17850.0."""
    texts = pc.ascii_trim_whitespace(texts)
    if pc.any(pc.match_substring(texts, ".")).as_py():
        texts = pc.replace_substring_regex(texts, _WHOLE_WITH_POINT, r"\1")
    plain = pc.fill_null(pc.match_substring_regex(texts, _WHOLE), False)
    odd = pc.and_(pc.is_valid(texts), pc.invert(plain))
    signed = pc.replace_substring_regex(pc.if_else(plain, texts, None), r"^\+", "")
    numbers = signed.cast(pa.int64())
    if not pc.any(odd).as_py():
        return numbers
    return pc.replace_with_mask(numbers, odd, pa.array(map(_long, texts.filter(odd).to_pylist()), pa.int64()))


def _long(text: str) -> int | None:
    """A whole number with many digits."""
    if not text.lstrip("+-").isdigit() or not text.isascii() or len(text) > 100:
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    return number if _LONG_MIN <= number <= _LONG_MAX else None


def _item(texts: pa.StringArray, source: Source) -> ParsedField:
    """The item's text, unchanged as a category of events has it."""
    problems = [("null_item", _blank(texts)), ("too_long", _too_long(texts, source))]
    return ParsedField(name="item", value=texts, problems=problems)


def _time(raw: RawRows, time: EventTime, latest: datetime) -> ParsedField:
    if time.column is None:
        return ParsedField(name="event_time", value=pa.repeat(_midnight(time.min), len(raw)), problems=[])
    found = instants(raw.texts[time.column], time, raw.texts.get(time.origin_column or ""))
    instant = found.instant_N
    problems = [("bad_time", pc.is_null(instant))]
    if found.skipped_N is not None and time.dst == "reject":
        problems.append(("dst_gap", found.skipped_N))
    outside = pc.or_(pc.less(instant, _midnight(time.min)), pc.greater_equal(instant, _midnight(time.max)))
    problems.append(("time_out_of_bounds", outside))
    problems.append(("from_the_future", pc.greater_equal(instant, pa.scalar(latest, INSTANT))))
    return ParsedField(name="event_time", value=instant, problems=problems)


def _midnight(day: date) -> pa.TimestampScalar:
    return pa.scalar(datetime.combine(day, time(), UTC), INSTANT)


def _categorical(raw: RawRows, field: Categorical, source: Source) -> ParsedField:
    texts = raw.texts[field.column]
    if field.sign:
        number = exact(with_point(raw, field.column, source), SIGNED).cast(pa.float64())
        names = pc.if_else(pc.less(number, 0.0), "negative", pc.if_else(pc.greater(number, 0.0), "positive", "zero"))
        bad = pc.and_(pc.invert(_blank(texts)), pc.is_null(number))
        return ParsedField(name=field.name, value=names, problems=[("not_a_number", bad)])
    kept = texts
    if field.prefixes is not None:
        kept = pc.if_else(pc.is_valid(texts), field.otherwise, None)
        for prefix, label in reversed(field.prefixes.items()):
            kept = pc.if_else(pc.starts_with(texts, prefix), label, kept)
    value = pc.if_else(_blank(texts), None, kept)
    return ParsedField(name=field.name, value=value, problems=[("too_long", _too_long(texts, source))])


def _numeric(raw: RawRows, field: Numeric, source: Source) -> ParsedField:
    """A number in whole steps, rounded half to even."""
    texts = [with_point(raw, column, source) for column in (field.column, field.times) if column]
    kind = number_type(field.step)
    number = exact(texts[0], kind) if len(texts) == 1 else product(*[exact(t, FACTOR) for t in texts], kind=kind)
    if field.transform == "signed_log1p":
        value, rounded = logarithms(number, field.step), pa.repeat(False, len(raw))
    else:
        value, rounded = steps(number, field.step)
    unknown = pc.and_(pc.is_null(value), pc.invert(reduce(pc.or_, map(_blank, texts))))
    problems = []
    if pc.any(unknown).as_py():
        looks_right = reduce(pc.and_, [pc.fill_null(pc.match_substring_regex(t, NUMBER), False) for t in texts])
        problems = [("not_a_number", pc.and_(unknown, pc.invert(looks_right))), ("number_out_of_range", unknown)]
    return ParsedField(name=field.name, value=value, problems=problems, rounded=rounded)


def with_point(raw: RawRows, column: str, source: Source) -> pa.StringArray:
    """Numbers as a program writes them, with a decimal point and without separators of thousands."""
    texts = pc.ascii_trim_whitespace(raw.texts[column])
    if column in raw.numbers:
        return texts
    point, thousands = source.decimal_separator, source.thousands_separator
    if thousands:
        t, p = re.escape(thousands), re.escape(point)
        grouped = pc.match_substring_regex(texts, rf"^[+-]?[0-9]{{1,3}}(?:{t}[0-9]{{3}})+(?:{p}[0-9]*)?$")
        texts = pc.if_else(pc.fill_null(grouped, False), pc.replace_substring(texts, thousands, ""), texts)
    if point != ".":
        # A point is no part of such a number.
        texts = pc.replace_substring(pc.replace_substring(texts, ".", "?"), point, ".")
    return texts


def _blank(texts: pa.StringArray) -> pa.BooleanArray:
    return pc.fill_null(pc.equal(pc.utf8_trim(texts, " "), ""), True)


def _too_long(texts: pa.StringArray, source: Source) -> pa.BooleanArray:
    return pc.greater(pc.utf8_length(texts), source.max_value_chars)
