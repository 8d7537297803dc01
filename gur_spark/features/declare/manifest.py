"""Manifests, which describe the columns of a snapshot. A model is bound to the hash of its snapshots' manifest."""

import json
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from gur_spark.features.declare.pivots import Pivoted
from gur_spark.features.declare.spec import Aggregation
from gur_spark.features.declare.windows import Length, Window

ID_UNIT = "vocabulary id"
"""Unit of a column whose numbers are ids of categories."""

SECONDS = "seconds since 1970, UTC"
"""Unit of the times in sequences, which pytorch-lifestream expects."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Hashed(_Frozen):
    """A manifest that is stored with a hash of its contents."""

    FORMAT: ClassVar[int]
    """Format that this version of gur_spark writes, and the only one that it reads."""

    format: int

    @property
    def hash(self) -> str:
        """Hash over the canonical JSON of the whole manifest, 16 hex digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The text of ``manifest.json``: the manifest with its hash."""
        return json.dumps({"hash": self.hash, **self.model_dump(mode="json")}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read ``manifest.json``.

        Raises:
            ValueError: it is of another format, or the stored hash is not that of the contents.
        """
        return cls.from_values(json.loads(text))

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """The same of JSON that is parsed already."""
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object")
        if values.get("format") != cls.FORMAT:
            raise ValueError(
                f"manifest has format {values.get('format')}, this version reads {cls.FORMAT}: make it again"
            )
        stored = values.get("hash")
        manifest = cls.model_validate({name: value for name, value in values.items() if name != "hash"})
        if stored != manifest.hash:
            raise ValueError(f"manifest says hash {stored}, its contents have {manifest.hash}: it was altered")
        return manifest


class NumericField(_Frozen):
    """A number of events or attributes, stored as whole counts of its step."""

    name: str
    step: Decimal
    transform: str


class LogFields(_Frozen):
    """Fields of one log of events, where there are several logs."""

    name: str
    fields: tuple[str, ...]


class AttributeField(_Frozen):
    """An attribute of users, valid from a moment on."""

    name: str
    log: str
    numeric: NumericField | None = None
    """The field, if the attribute is a number; None: a category."""
    separator: str | None = None
    """Text between two members, if the attribute is a set of categories, such as genres picked at sign-up."""


class Column(_Frozen):
    """One column of the aggregates."""

    name: str
    dtype: Literal["long", "double", "array<int>", "array<double>", "string", "date"]
    unit: str
    meaning: str
    statistic: str
    field: str | None = None
    window_days: int | None = None
    """Whole days of the window's length; None: from the first event on, or the column is a key."""
    window_hours: int = Field(default=0, exclude_if=lambda hours: not hours)
    """Hours of the window's length beyond the whole days."""
    before_days: int = 0
    """Whole days from the window's end to as_of."""
    before_hours: int = Field(default=0, exclude_if=lambda hours: not hours)
    """Hours from the window's end to as_of beyond the whole days."""
    where: str | None = None
    """Condition on the events that count."""
    by: str | None = None
    """Categorical field: the list has one element for each of its ids, or the column is that of ``value``."""
    value: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Value of the field ``by`` whose events count, in a column of a pivot."""
    null: str = "never"
    """When the value is null."""

    @property
    def window(self) -> Window:
        """The window of the events that count."""
        return Window(
            days=self.window_days, hours=self.window_hours, before=self.before_days, before_hours=self.before_hours
        )


class Manifest(_Hashed):
    """Description of the columns of a snapshot of aggregates."""

    FORMAT = 4

    format: int = FORMAT
    user_id_type: Literal["long", "string"]
    windows: tuple[Length, ...]
    """Lengths of the standard windows, ascending."""
    numeric: tuple[NumericField, ...]
    categorical: tuple[str, ...]
    features: tuple[Pivoted | Aggregation, ...] = ()
    """Declared features and pivots, beside the standard ones."""
    logs: tuple[LogFields, ...] = ()
    """Logs of events; empty where there is only one log."""
    attributes: tuple[AttributeField, ...] = ()
    columns: tuple[Column, ...]

    @property
    def attribute_categories(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.attributes if field.numeric is None)

    @property
    def separators(self) -> dict[str, str]:
        """Attributes that are sets of categories -> text between two members."""
        return {field.name: field.separator for field in self.attributes if field.separator}

    @property
    def attribute_logs(self) -> tuple[str, ...]:
        """Logs of attributes, in the order of the attributes."""
        return tuple(dict.fromkeys(field.log for field in self.attributes))

    @property
    def declared_windows(self) -> tuple[Window, ...]:
        """Windows of declared features that are not standard windows, each once."""
        declared = dict.fromkeys(window for feature in self.features for window in feature.windows)
        return tuple(window for window in declared if window not in self.standard_windows)

    @property
    def standard_windows(self) -> tuple[Window, ...]:
        """The windows of the standard features, ascending."""
        return tuple(map(Window.of, self.windows))

    @property
    def reach(self) -> timedelta | None:
        """Time from the beginning of the longest window to as_of; None where a window begins with the first event."""
        reaches = [window.reach for window in (*self.standard_windows, *self.declared_windows)]
        found = [reach for reach in reaches if reach is not None]
        return max(found) if len(found) == len(reaches) else None

    @property
    def dense(self) -> tuple[Column, ...]:
        """Columns that hold one number, in order. An id of a category is no number."""
        return tuple(
            c for c in self.columns if c.dtype in ("long", "double") and c.statistic != "key" and c.unit != ID_UNIT
        )

    @property
    def ids(self) -> tuple[Column, ...]:
        """Columns that hold one id of a category, such as an attribute, in order."""
        return tuple(c for c in self.columns if c.dtype == "long" and c.unit == ID_UNIT)

    @property
    def sets(self) -> tuple[Column, ...]:
        """Columns that hold a set of ids of a category, such as an attribute of several values, in order."""
        return tuple(c for c in self.columns if c.dtype == "array<int>" and c.statistic == "attribute")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns that a model reads: numbers, single ids, sets of ids, and histograms of the standard windows."""
        histograms = [
            [f"{name}_ids", *(f"{name}_counts_{w.name}" for w in self.standard_windows)] for name in self.categorical
        ]
        named = [column.name for column in (*self.dense, *self.ids, *self.sets)]
        return tuple(named + [name for names in histograms for name in names])


def missing_column(numeric: str) -> str:
    """The name of the sequences' category that says whether a number is there."""
    return f"{numeric}_missing"


class SequenceColumn(_Frozen):
    """One column of the sequences."""

    name: str
    dtype: Literal["long", "string", "array<long>", "array<int>", "array<double>"]
    unit: str
    meaning: str
    ids: int | None = None
    """Greatest id + 1 of a category that is not in the vocabulary, such as the log of an event."""


class SequenceManifest(_Hashed):
    """Description of the columns of a snapshot of sequences."""

    FORMAT = 2

    format: int = FORMAT
    form: Literal["sequences"] = "sequences"
    user_id_type: Literal["long", "string"]
    window: Window
    """Days whose events are in the lists."""
    max_events: int | None
    """Greatest number of events of a user, the newest ones; None: all events in the window."""
    columns: tuple[SequenceColumn, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """The categorical fields, whose ids are those of the vocabulary, in order."""
        return tuple(column.name for column in self.columns if column.unit == ID_UNIT)


class InteractionColumn(_Frozen):
    """One column of the interactions."""

    name: str
    dtype: Literal["long", "string", "date", "int", "timestamp"]
    unit: str
    meaning: str


class InteractionManifest(_Hashed):
    """Description of the columns of a snapshot of interactions."""

    FORMAT = 1

    format: int = FORMAT
    form: Literal["interactions"] = "interactions"
    user_id_type: Literal["long", "string"]
    window: Window
    """Days whose events count."""
    field: str
    """Categorical field that names the item."""
    columns: tuple[InteractionColumn, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """The categorical fields, whose ids are those of the vocabulary."""
        return (self.field,)


AnyManifest = Manifest | SequenceManifest | InteractionManifest


def parse_manifest(text: str) -> AnyManifest:
    """Read ``manifest.json`` of a snapshot of any form.

    Raises:
        ValueError: it is none, is of another format, or was altered.
    """
    values = json.loads(text)
    match values.get("form") if isinstance(values, dict) else None:
        case "sequences":
            return SequenceManifest.from_values(values)
        case "interactions":
            return InteractionManifest.from_values(values)
        case _:
            return Manifest.from_values(values)
