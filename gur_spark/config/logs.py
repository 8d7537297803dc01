"""Sections about a raw log: where it is, the columns of its fields, and the rows that count."""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator, model_validator

from gur_spark.config.section import Name, Section, Share
from gur_spark.errors import nearest

QUOTE = '"'
"""Encloses a CSV value that holds the delimiter; inside a value it is doubled."""


class Source(Section):
    """The raw event log."""

    path: str | None = None
    """A folder, or one file; not used with ``format: table``."""
    format: Literal["csv", "jsonl", "parquet", "delta", "table"]
    table: str | None = None
    """The catalog table to read, with ``format: table``."""
    layout: Literal["daily", "bulk"]
    """``daily``: each file or sub-folder is a landing dated by ``landing_pattern``; ``bulk``: all of it is one load."""
    landing_pattern: str
    """Its first group is the landing's date, YYYY-MM-DD or YYYYMMDD; searched in the path below ``path``."""
    delimiter: str = Field(min_length=1, max_length=1)
    encoding: Literal["utf-8", "latin-1"]
    columns: list[str] | None = None
    """Column names of CSV files that have no header line."""
    max_bad_share: Share
    """Above this share of quarantined rows the job fails before anything is visible."""
    max_value_chars: int = Field(ge=1)
    """A user id or category longer than this is quarantined."""

    @field_validator("landing_pattern")
    @classmethod
    def _one_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups < 1:
            raise ValueError("expected a regular expression with a group around the date")
        return value

    @model_validator(mode="after")
    def _complete(self) -> "Source":
        if self.format == "table" and not self.table:
            raise ValueError("format 'table' needs source.table")
        if self.format != "table" and not self.path:
            raise ValueError(f"format '{self.format}' needs source.path")
        if self.format in ("delta", "table") and self.layout != "bulk":
            raise ValueError(f"format '{self.format}' is read with layout 'bulk'")
        return self


class UserId(Section):
    """The column with the user."""

    column: str
    type: Literal["long", "string"]


class EventTime(Section):
    """The time of an event. Its unit is stated, never guessed."""

    column: str
    format: str
    """``epoch_s``, ``epoch_ms``, ``epoch_us``, ``iso8601``, or a Spark pattern such as ``dd/MM/yyyy HH:mm``."""
    time_zone: str = "UTC"
    """Zone of times that carry no offset of their own."""
    min: date
    """First accepted UTC date."""
    max: date
    """First UTC date that is no longer accepted."""

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        known = available_timezones()
        if value not in known:
            raise ValueError(f"unknown time zone '{value}'{nearest(value, sorted(known))}")
        return str(ZoneInfo(value))


class Categorical(Section):
    """A category, from one column as it is, or derived from it by its sign or its prefix."""

    name: Name
    column: str
    sign: bool = False
    """Take ``negative``, ``zero`` or ``positive`` of a number instead of its text."""
    prefixes: dict[str, str] | None = None
    """Take the label of the first prefix the text starts with; ``otherwise`` for the rest."""
    otherwise: str = "other"
    separator: str | None = Field(default=None, min_length=1)
    """Attributes alone: the text is a set of values with this between them, ``rock|jazz``."""

    @model_validator(mode="after")
    def _one_derivation(self) -> "Categorical":
        if self.sign and self.prefixes is not None:
            raise ValueError("give sign or prefixes, not both")
        if self.separator and (self.sign or self.prefixes is not None):
            raise ValueError("a set of values (separator) is taken as it is, without sign or prefixes")
        if self.prefixes is not None and (not self.prefixes or "" in self.prefixes):
            raise ValueError("expected at least one prefix, none of them empty")
        return self


class Numeric(Section):
    """A number, stored as a whole count of ``step``."""

    name: Name
    column: str
    times: str | None = None
    """A second column to multiply with, such as a quantity with a unit price."""
    step: Decimal = Field(gt=0)
    """Fixed-point step of the stored value; rounding is half to even."""
    transform: Literal["none", "signed_log1p"] = "none"
    """``signed_log1p``: sign(x) * ln(1 + \\|x\\|), applied before quantisation."""

    @field_validator("step", mode="before")
    @classmethod
    def _exact(cls, value: Any) -> Any:
        # YAML reads 0.01 as a float; its shortest text is the decimal that was written.
        return str(value) if isinstance(value, float) else value

    @field_validator("step")
    @classmethod
    def _few_digits(cls, value: Decimal) -> Decimal:
        if not value.is_finite() or value < Decimal("1e-9") or value > Decimal("1e9"):
            raise ValueError("expected a step between 1e-9 and 1e9")
        if len(value.normalize().as_tuple().digits) > 9:
            raise ValueError("expected a step of at most 9 significant digits")
        return value.normalize()


class Fields(Section):
    """The fields of an event, and the columns of the raw log they come from."""

    user_id: UserId
    event_time: EventTime
    categorical: list[Categorical] = Field(default_factory=list)
    numeric: list[Numeric] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names(self) -> "Fields":
        names = self.names()
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two fields are named '{name}'; names must differ")
            if name in ("user_id", "event_time", "landed_on", "source", "as_of"):
                raise ValueError(f"'{name}' is a name of gur_spark's own; choose another")
        return self

    @property
    def values(self) -> list[Categorical | Numeric]:
        """Categories, then numbers."""
        return [*self.categorical, *self.numeric]

    def names(self) -> list[str]:
        """Names of the categories, then of the numbers."""
        return [field.name for field in self.values]

    def columns(self) -> list[str]:
        """Every raw column that is mapped, each once, in the order of the fields."""
        named = [self.user_id.column, self.event_time.column]
        named += [f.column for f in self.categorical]
        named += [c for f in self.numeric for c in (f.column, f.times) if c]
        return list(dict.fromkeys(named))


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
    """Rows that are the same event are stored once; the first landing wins."""

    policy: Literal["none", "exact", "key"]
    """``exact``: all mapped fields are equal; ``key``: the named event columns are equal."""
    key: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _key(self) -> "Dedupe":
        if (self.policy == "key") != bool(self.key):
            raise ValueError("policy 'key' needs key: [columns], the others take none")
        return self


MAIN = "main"
"""The name of the log that ``source`` describes, beside further ones."""


class Log(Section):
    """A further raw log of the same users, with its own fields; fields of one name are one column."""

    kind: Literal["events", "attributes"] = "events"
    """``attributes``: facts about a user (country, plan) that hold from ``event_time`` until the user's next row."""
    source: Source
    fields: Fields
    filters: list[Filter] = Field(default_factory=list)
    dedupe: Dedupe

    @property
    def columns(self) -> list[str]:
        """Columns of its events."""
        return ["user_id", "event_time", *self.fields.names()]


def check_logs(logs: Mapping[str, Log]) -> None:
    """Check that the events of several logs can be one table; the first log is the main one.

    Raises:
        ValueError: naming the log and the field.
    """
    main = next(iter(logs.values()))
    met: dict[str, tuple[str, Categorical | Numeric]] = {}
    for name, log in logs.items():
        where = "" if name == MAIN else f"logs.{name}."
        for column in log.dedupe.key:
            if column not in log.columns:
                hint = nearest(column, log.columns)
                raise ValueError(
                    f"{where}dedupe.key: '{column}' is not an event column; available: {log.columns}{hint}"
                )
        if log.kind == "attributes" and not log.fields.values:
            raise ValueError(f"{where}fields: attributes of no field; expected a categorical or numeric one")
        if log.fields.user_id.type != main.fields.user_id.type:
            raise ValueError(
                f"{where}fields.user_id.type: '{log.fields.user_id.type}', but the main log's users are "
                f"'{main.fields.user_id.type}'; logs of the same users have ids of one type"
            )
        for category in log.fields.categorical:
            if category.separator and log.kind != "attributes":
                raise ValueError(
                    f"{where}fields: '{category.name}' has a separator; only what is known of users (kind: attributes) "
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
