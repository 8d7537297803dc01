"""Sections about a raw log: where it is, what its rows are about, and the rows that count."""

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gur_spark.config.fields import Categorical, Fields, ItemFields, Numeric
from gur_spark.config.section import Section, Share
from gur_spark.errors import ConfigError, nearest

QUOTE = '"'
"""Encloses a CSV value that holds the delimiter; inside a value it is doubled."""


BLANKS = "blanks"
"""Delimiter that stands for any number of blanks and tabs."""

DATE_PARTS = ("year", "month", "day")
"""Named groups of a landing pattern."""


class Source(Section):
    """The raw event log."""

    path: str | None = None
    """A folder, or one file; not used with ``format: table``."""
    format: Literal["csv", "jsonl", "parquet", "orc", "delta", "table"]
    table: str | None = None
    """The catalog table to read, with ``format: table``."""
    layout: Literal["daily", "bulk"]
    """``daily``: each file or sub-folder is a landing dated by ``landing_pattern``; ``bulk``: all of it is one load."""
    landing_pattern: str
    """Expression that is searched in the path below ``path``. Its first group is the landing's date, YYYY-MM-DD or
    YYYYMMDD, or its groups ``year``, ``month`` and ``day`` are."""
    delimiter: str = Field(min_length=1)
    """One character, or ``blanks``: any number of blanks and tabs."""
    widths: list[int] | None = Field(default=None, min_length=1)
    """Characters of each of the ``columns``, where no delimiter is between them; blanks around a value are dropped."""
    encoding: str
    """Any text encoding that Python knows, such as ``latin-1``, ``cp1251`` or ``utf-16``."""
    columns: list[str] | None = None
    """Column names of CSV files that have no header line."""
    multiline: bool = False
    """Whether a quoted CSV value may hold line breaks. Such a file is read by one worker."""
    null_values: list[str] = Field(default_factory=list)
    """Texts that stand for no value in every column, such as ``NULL``, ``\\N`` or ``nan``."""
    decimal_separator: str = Field(default=".", min_length=1, max_length=1)
    """Character before the decimal places of a number."""
    thousands_separator: str | None = Field(default=None, min_length=1, max_length=1)
    """Character between groups of three digits of a number; null: there is none."""
    max_future_days: int = Field(default=1, ge=0)
    """An event may be so many days later than the day of its landing, or in a bulk load than now; later ones are
    quarantined."""
    max_bad_share: Share
    """Above this share of quarantined rows, or of bytes in files that cannot be read, the job fails before anything is
    visible."""
    max_value_chars: int = Field(ge=1)
    """A user id or category longer than this is quarantined."""

    @field_validator("landing_pattern")
    @classmethod
    def _one_group(cls, value: str) -> str:
        try:
            found = re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if found.groups < 1:
            raise ValueError("expected a regular expression with a group around the date")
        if found.groupindex and set(found.groupindex) != set(DATE_PARTS):
            raise ValueError(f"named groups {list(found.groupindex)}; expected {list(DATE_PARTS)}")
        return value

    @field_validator("null_values", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if isinstance(value, list) and None in value:
            raise ValueError("YAML reads NULL and null as nothing; write 'NULL', in quotes")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            found = codecs.lookup(value)
            "\r\n".encode(value)
        except LookupError as error:
            raise ValueError(f"unknown encoding '{value}'; expected one that Python knows, such as cp1251") from error
        return found.name

    @model_validator(mode="after")
    def _separators(self) -> "Source":
        if len(self.delimiter) > 1 and self.delimiter != BLANKS:
            raise ValueError(f"delimiter: expected one character or '{BLANKS}', got {self.delimiter!r}")
        if self.widths and len(self.widths) != len(self.columns or []):
            raise ValueError(f"{len(self.widths)} widths for {len(self.columns or [])} columns; expected one for each")
        if self.decimal_separator == self.thousands_separator:
            raise ValueError(f"decimal_separator and thousands_separator are both {self.decimal_separator!r}")
        if self.format == "jsonl" and (self.decimal_separator != "." or self.thousands_separator):
            raise ValueError("decimal_separator and thousands_separator are about texts, and JSON has numbers")
        if self.multiline and self.format != "csv":
            raise ValueError(f"multiline is about csv, and format is '{self.format}'")
        return self

    @model_validator(mode="after")
    def _complete(self) -> "Source":
        if self.format == "table" and not self.table:
            raise ValueError("format 'table' needs source.table")
        if self.format != "table" and not self.path:
            raise ValueError(f"format '{self.format}' needs source.path")
        if self.format in ("delta", "table") and self.layout != "bulk":
            raise ValueError(f"format '{self.format}' is read with layout 'bulk'")
        return self


class Filter(Section):
    """A row is kept if the raw column passes; if not, it is counted as filtered."""

    column: str
    keep: Literal["not_blank", "in", "not_in"]
    values: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _values(self) -> "Filter":
        if (self.keep == "not_blank") == bool(self.values):
            raise ValueError("'in' and 'not_in' need values, 'not_blank' takes none")
        return self


class Dedupe(Section):
    """Rows that are the same event are stored once."""

    policy: Literal["none", "exact", "key"]
    """``exact``: all mapped fields are equal; ``key``: the named event columns are equal."""
    key: list[str] = Field(default_factory=list)
    keep: Literal["first", "last"] = "first"
    """The row of the first landing stays, or the one of the last, which corrects the others."""
    order: str | None = None
    """Event column that orders rows before their landing does; the greatest value is the last."""

    @model_validator(mode="after")
    def _key(self) -> "Dedupe":
        if (self.policy == "key") != bool(self.key):
            raise ValueError("policy 'key' needs key: [columns], the others take none")
        if self.policy != "key" and (self.keep != "first" or self.order):
            raise ValueError("keep and order are for policy 'key'")
        if self.order and self.keep != "last":
            raise ValueError("order needs keep: last")
        return self

    @property
    def columns(self) -> list[str]:
        """Event columns that it names."""
        return [*self.key, *([self.order] if self.order else [])]

    def key_of(self, column: str) -> str:
        """The key of this section that names a column."""
        return "key" if column in self.key else "order"


MAIN = "main"
"""The name of the log that ``source`` describes, beside further ones."""


class RawLog(Section):
    """A raw log as it is ingested."""

    source: Source
    filters: list[Filter] = Field(default_factory=list)
    dedupe: Dedupe


class Log(RawLog):
    """A further raw log of the same users, with its own fields; fields of one name are one column."""

    kind: Literal["events", "attributes"] = "events"
    """``attributes``: facts about a user (country, plan) that hold from ``event_time`` until the user's next row."""
    fields: Fields

    @property
    def columns(self) -> list[str]:
        """Columns of its events."""
        return ["user_id", "event_time", *self.fields.names()]


class ItemLog(RawLog):
    """A raw log of attributes of items (brand, price), which hold from ``event_time`` until the item's next row."""

    kind: Literal["items"]
    fields: ItemFields

    @property
    def columns(self) -> list[str]:
        """Columns of its rows, as they are parsed."""
        return ["item", "event_time", *self.fields.names()]


LOG_KINDS: dict[str, type[Log] | type[ItemLog]] = {"events": Log, "attributes": Log, "items": ItemLog}


def log_class(value: Mapping[str, Any]) -> type[Log] | type[ItemLog]:
    """The class of a further log, by its ``kind``.

    Raises:
        ValueError: there is no such kind.
    """
    kind = value.get("kind", "events")
    if not isinstance(kind, str) or kind not in LOG_KINDS:
        known = list(LOG_KINDS)
        raise ValueError(f"unknown kind '{kind}'; expected one of {known}{nearest(str(kind), known)}")
    return LOG_KINDS[kind]


def _by_kind(value: Any) -> Any:
    return log_class(value).model_validate(value) if isinstance(value, dict) else value


AnyLog = Annotated[Log | ItemLog, BeforeValidator(_by_kind)]


def check_item_logs(logs: Mapping[str, ItemLog]) -> None:
    """Check that attributes of items from several logs can be one table.

    Raises:
        ValueError: naming the log and the field.
    """
    met: dict[str, str] = {}
    for name, log in logs.items():
        for column in log.dedupe.columns:
            if column not in log.columns:
                hint = nearest(column, log.columns)
                where = f"logs.{name}.dedupe.{log.dedupe.key_of(column)}"
                raise ValueError(f"{where}: '{column}' is not a column of items; available: {log.columns}{hint}")
        if not log.fields.values:
            raise ValueError(f"logs.{name}.fields: attributes of no field; expected a categorical or numeric one")
        for category in log.fields.categorical:
            if category.separator:
                raise ValueError(
                    f"logs.{name}.fields: '{category.name}' has a separator; only attributes of users (kind: "
                    "attributes) may be a set of values"
                )
        for field in log.fields.names():
            if met.setdefault(field, name) != name:
                raise ValueError(f"logs.{name}.fields: '{field}' is a field of {met[field]}, too; rename one of them")


def check_logs(logs: Mapping[str, Log]) -> None:
    """Check that the events of several logs can be one table; the first log is the main one.

    Raises:
        ValueError: naming the log and the field.
    """
    main = next(iter(logs.values()))
    met: dict[str, tuple[str, Categorical | Numeric]] = {}
    for name, log in logs.items():
        where = "" if name == MAIN else f"logs.{name}."
        for column in log.dedupe.columns:
            if column not in log.columns:
                hint = nearest(column, log.columns)
                place = f"{where}dedupe.{log.dedupe.key_of(column)}"
                raise ValueError(f"{place}: '{column}' is not an event column; available: {log.columns}{hint}")
        if log.kind == "attributes" and not log.fields.values:
            raise ValueError(f"{where}fields: attributes of no field; expected a categorical or numeric one")
        if log.kind == "events" and not log.fields.event_time.column:
            raise ValueError(f"{where}fields.event_time.column: required for events")
        if log.fields.user_id.type != main.fields.user_id.type:
            raise ValueError(
                f"{where}fields.user_id.type: '{log.fields.user_id.type}', but the main log's users are "
                f"'{main.fields.user_id.type}'; logs of the same users have ids of one type"
            )
        for category in log.fields.categorical:
            if category.separator and log.kind != "attributes":
                raise ValueError(
                    f"{where}fields: '{category.name}' has a separator; only attributes of users (kind: attributes) "
                    "may be a set of values"
                )
        for field in log.fields.values:
            other, same = met.setdefault(field.name, (name, field))
            if other != name and "attributes" in (log.kind, logs[other].kind):
                raise ValueError(
                    f"{where}fields: '{field.name}' is a field of {other}, too; an attribute's name is its own"
                )
            if other != name and _stored(field) != _stored(same):
                raise ValueError(
                    f"{where}fields: '{field.name}' is another kind of field, or has another step, in {other}"
                )


def _stored(field: Categorical | Numeric) -> tuple[Any, ...]:
    """The settings that two fields of one column must share."""
    return (field.step, field.transform) if isinstance(field, Numeric) else ()


def chosen_logs(known: list[str], names: Sequence[str]) -> Sequence[str]:
    """The logs that ``--log`` names, or all of them where it names none.

    Raises:
        ConfigError: there is no log of a name.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"--log {name}: no such log; available: {known}{nearest(name, known)}")
    return names or known
