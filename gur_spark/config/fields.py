"""Sections about the fields of a row: its user or item, its time, its categories and its numbers."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import Field, field_validator, model_validator

from gur_spark.config.section import Name, Section
from gur_spark.config.time_pattern import time_pattern
from gur_spark.errors import nearest

COUNTED = ("epoch_s", "epoch_ms", "epoch_us", "epoch_ns", "epoch_m", "epoch_h", "epoch_d", "elapsed")
"""Formats of times that count from an origin."""

TIME_FORMATS = ("iso8601", *COUNTED, "excel")
"""Formats of times that are no patterns."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UserId(Section):
    """The column with the user."""

    column: str | list[str]
    """A list: the texts of several columns, with ``|`` between them, are the id."""
    type: Literal["long", "string"]

    @property
    def columns(self) -> list[str]:
        """The columns that make the id."""
        return [self.column] if isinstance(self.column, str) else self.column

    @model_validator(mode="after")
    def _text(self) -> "UserId":
        if not self.columns:
            raise ValueError("column: expected at least one")
        if self.type == "long" and len(self.columns) > 1:
            raise ValueError("an id of several columns has type 'string'")
        return self


class EventTime(Section):
    """The time of an event. Its unit is stated, never guessed."""

    column: str | None = None
    """Attributes alone may have no column: they hold from ``min`` on."""
    format: str | list[str] = "iso8601"
    """One of ``TIME_FORMATS``, or a pattern of letters such as ``dd/MM/yyyy HH:mm``.

    ``epoch_s``, ``_ms``, ``_us``, ``_ns``, ``_m`` (minutes), ``_h`` and ``_d`` count from the origin, and so does
    ``elapsed``, hours and minutes such as ``36:15``. ``excel`` counts days as spreadsheets do. The first of a list that
    reads a text counts.
    """
    time_zone: str = "UTC"
    """Zone of times that carry no offset of their own."""
    dst: Literal["reject", "shift"] = "reject"
    """Wall-clock times that the clocks skip: reject the row, or move the time on by the length of the gap."""
    origin: datetime = EPOCH
    """The moment from which units are counted; UTC where it has no offset."""
    origin_column: str | None = None
    """The column with the moment from which units of its row are counted, such as an admission."""
    origin_format: str | list[str] = "iso8601"
    """The format of ``origin_column``, or several, as in ``format``."""
    pivot_year: int | None = Field(default=None, ge=1, le=9900)
    """First of the hundred years that two digits (``yy``) stand for."""
    min: date
    """First accepted UTC date."""
    max: date
    """First UTC date that is no longer accepted."""

    @property
    def formats(self) -> list[str]:
        """The formats in the order in which they are tried."""
        return [self.format] if isinstance(self.format, str) else self.format

    @property
    def columns(self) -> list[str]:
        """The columns that make the time."""
        return [column for column in (self.column, self.origin_column) if column]

    def of_origin(self) -> "EventTime":
        """The rules by which the texts of ``origin_column`` are read."""
        return self.model_copy(update={"format": self.origin_format, "origin": EPOCH, "origin_column": None})

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        known = available_timezones()
        if value not in known:
            raise ValueError(f"unknown time zone '{value}'{nearest(value, sorted(known))}")
        return str(ZoneInfo(value))

    @field_validator("origin")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @model_validator(mode="after")
    def _known_formats(self) -> "EventTime":
        for key, formats in (("format", self.formats), ("origin_format", self.of_origin().formats)):
            if not formats:
                raise ValueError(f"{key}: expected at least one")
            for format in formats:
                self._check_format(key, format)
        return self

    def _check_format(self, key: str, format: str) -> None:
        if format in TIME_FORMATS:
            return
        try:
            time_pattern(format, self.pivot_year)
        except ValueError as error:
            raise ValueError(
                f"{key}: expected {', '.join(TIME_FORMATS)} or a pattern such as dd/MM/yyyy HH:mm; got "
                f"{format!r}: {error}"
            ) from error

    @model_validator(mode="after")
    def _one_origin(self) -> "EventTime":
        absolute = [format for format in self.formats if format not in COUNTED]
        if self.origin_column and absolute:
            raise ValueError(
                f"origin_column: '{absolute[0]}' counts from no origin; formats that do are {', '.join(COUNTED)}"
            )
        if self.origin_column and self.origin != EPOCH:
            raise ValueError("give origin or origin_column, not both")
        if "elapsed" in self.formats and not self.origin_column and "origin" not in self.model_fields_set:
            raise ValueError("format 'elapsed' needs an origin: give origin (a date) or origin_column")
        if self.origin_format != "iso8601" and not self.origin_column:
            raise ValueError("origin_format is the format of origin_column, which is not given")
        return self


class Categorical(Section):
    """A category, from one column as it is, or derived from it by its sign or its prefix."""

    name: Name
    column: str
    optional: bool = False
    """Whether files, or all rows of a landing, may lack the column."""
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
    optional: bool = False
    """Whether files, or all rows of a landing, may lack the column."""
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


class ItemId(Section):
    """The column with the item, whose text is a value of a categorical field of events."""

    column: str


OWN_NAMES = ("user_id", "item", "event_time", "valid_from", "landed_on", "source", "as_of")
"""Columns of gur_spark's own, in ``events`` and ``items``."""


class ValueFields(Section):
    """The time, the categories and the numbers of a row, and the raw columns they come from."""

    event_time: EventTime
    categorical: list[Categorical] = Field(default_factory=list)
    numeric: list[Numeric] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = self.names()
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two fields are named '{name}'; names must differ")
            if name in self.reserved():
                raise ValueError(f"'{name}' is a name of gur_spark's own; choose another")
        return self

    @classmethod
    def reserved(cls) -> Sequence[str]:
        """Names that no field may have."""
        return OWN_NAMES

    @property
    def key_columns(self) -> list[str]:
        """The raw columns of the user or item."""
        raise NotImplementedError

    @property
    def values(self) -> list[Categorical | Numeric]:
        """Categories, then numbers."""
        return [*self.categorical, *self.numeric]

    def names(self) -> list[str]:
        """Names of the categories, then of the numbers."""
        return [field.name for field in self.values]

    def columns(self) -> list[str]:
        """Every raw column that is mapped, each once, in the order of the fields."""
        named = [*self.key_columns, *self.event_time.columns]
        named += [f.column for f in self.categorical]
        named += [c for f in self.numeric for c in (f.column, f.times) if c]
        return list(dict.fromkeys(named))


class Fields(ValueFields):
    """The fields of an event, and the columns of the raw log they come from."""

    user_id: UserId

    @classmethod
    def reserved(cls) -> Sequence[str]:
        """Events may have a field ``item``."""
        return [name for name in OWN_NAMES if name not in ("item", "valid_from")]

    @property
    def key_columns(self) -> list[str]:
        return self.user_id.columns


class ItemFields(ValueFields):
    """The fields of a row about an item, and the columns of the raw log they come from."""

    item: ItemId

    @property
    def key_columns(self) -> list[str]:
        return [self.item.column]
