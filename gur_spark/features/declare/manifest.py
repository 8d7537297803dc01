"""Manifests: what the columns of a snapshot are. A model is bound to the hash of its snapshots' manifest."""

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from gur_spark.errors import ConfigError
from gur_spark.features.declare.spec import Aggregation, Window
from gur_spark.schema import MISSING_ID, PADDING_ID, UNKNOWN_ID, VALUE_ID

MANIFEST_FORMAT = 4

ID_UNIT = "vocabulary id"
"""The unit of a column whose numbers are names."""

SECONDS = "seconds since 1970, UTC"
"""The unit of the times of sequences, as pytorch-lifestream has them."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NumericField(_Frozen):
    name: str
    step: Decimal
    transform: str


class LogFields(_Frozen):
    """The fields that the events of a log have, where there are several logs."""

    name: str
    fields: tuple[str, ...]


class AttributeField(_Frozen):
    """What is known of a user from a moment on."""

    name: str
    log: str
    numeric: NumericField | None = None
    """None: a category."""
    separator: str | None = None
    """Of a set of categories, such as the genres picked at sign-up: what stands between them in the text."""


class Column(_Frozen):
    """One column of the aggregates."""

    name: str
    dtype: Literal["long", "double", "array<int>", "array<double>", "string", "date"]
    unit: str
    meaning: str
    statistic: str
    field: str | None = None
    window_days: int | None = None
    """None: from the first event on (or a key)."""
    before_days: int = 0
    """Days from the window's end to as_of."""
    where: str | None = None
    """The condition that its events satisfy."""
    by: str | None = None
    """The categorical field for each of whose ids the list has an element."""
    null: str = "never"
    """When the value is null."""


class Manifest(_Frozen):
    """What the columns of an aggregate snapshot are; its hash is what a model is bound to."""

    format: int = MANIFEST_FORMAT
    user_id_type: Literal["long", "string"]
    windows: tuple[int, ...]
    numeric: tuple[NumericField, ...]
    categorical: tuple[str, ...]
    features: tuple[Aggregation, ...] = ()
    """Declared beside the standard ones."""
    logs: tuple[LogFields, ...] = ()
    """Whose events they are of; none where there is one log only."""
    attributes: tuple[AttributeField, ...] = ()
    """What is known of a user."""
    columns: tuple[Column, ...]

    @property
    def hash(self) -> str:
        """16 hex digits over the canonical JSON of the whole manifest."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()[:16]

    @property
    def attribute_categories(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.attributes if field.numeric is None)

    @property
    def separators(self) -> dict[str, str]:
        """Of the attributes that are sets of categories, what stands between two of them."""
        return {field.name: field.separator for field in self.attributes if field.separator}

    @property
    def attribute_logs(self) -> tuple[str, ...]:
        """The logs of attributes, in the order of the attributes."""
        return tuple(dict.fromkeys(field.log for field in self.attributes))

    @property
    def declared_windows(self) -> tuple[Window, ...]:
        """Windows of declared features that are not the standard ones, each once."""
        standard = [Window(days=days) for days in self.windows]
        declared = dict.fromkeys(window for feature in self.features for window in feature.windows)
        return tuple(window for window in declared if window not in standard)

    @property
    def reach(self) -> int | None:
        """Days before as_of at which the longest window begins; None where one has no end."""
        if any(window.days is None for window in self.declared_windows):
            return None
        return max(self.windows[-1], *(w.before + (w.days or 0) for w in self.declared_windows), 0)

    @property
    def dense(self) -> tuple[Column, ...]:
        """The columns that hold one number, in order; an id of a category is a name."""
        return tuple(
            c for c in self.columns if c.dtype in ("long", "double") and c.statistic != "key" and c.unit != ID_UNIT
        )

    @property
    def ids(self) -> tuple[Column, ...]:
        """The columns that hold one category's id, such as an attribute, in order."""
        return tuple(c for c in self.columns if c.dtype == "long" and c.unit == ID_UNIT)

    @property
    def sets(self) -> tuple[Column, ...]:
        """The columns that hold a set of a category's ids, such as an attribute of several values, in order."""
        return tuple(c for c in self.columns if c.dtype == "array<int>" and c.statistic == "attribute")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that a model takes: numbers, single ids and sets of ids, the standard windows' histograms."""
        histograms = [[f"{name}_ids", *(f"{name}_counts_{w}d" for w in self.windows)] for name in self.categorical]
        named = [column.name for column in (*self.dense, *self.ids, *self.sets)]
        return tuple(named + [name for names in histograms for name in names])

    def to_json(self) -> str:
        """The manifest with its hash, as it lies beside the data."""
        return json.dumps({"hash": self.hash, **self.model_dump(mode="json")}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read ``manifest.json``.

        Raises:
            ValueError: it is of another format, or the stored hash is not that of the contents.
        """
        values: dict[str, Any] = json.loads(text)
        if values.get("format") != MANIFEST_FORMAT:
            raise ValueError(
                f"manifest has format {values.get('format')}, this version reads {MANIFEST_FORMAT}: make it again"
            )
        stored = values.pop("hash", None)
        manifest = cls.model_validate(values)
        if stored != manifest.hash:
            raise ValueError(f"manifest says hash {stored}, its contents have {manifest.hash}: it was altered")
        return manifest


class SequenceColumn(_Frozen):
    """One column of the sequences."""

    name: str
    dtype: Literal["long", "string", "array<long>", "array<int>", "array<double>"]
    unit: str
    meaning: str
    ids: int | None = None
    """Of a category: greatest id + 1, which is the height of an embedding table."""


class SequenceManifest(_Frozen):
    """What a folder of sequences holds."""

    format: int = 1
    as_of: date
    known_at: datetime
    days: int | None
    """Of the window; None: from the first event on."""
    before_days: int
    """Days from the window's end to as_of."""
    max_events: int | None
    """Of a user with more, only the newest are here."""
    user_id_type: Literal["long", "string"]
    vocabulary_version: int
    vocabulary_hash: str
    lineage: str
    """The ``events`` table and its commit."""
    rows: int
    """Users with an event in the window."""
    events: int
    checksum: str
    """Over the rows, whatever their order and files."""
    columns: tuple[SequenceColumn, ...]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def missing_column(numeric: str) -> str:
    """The sequences' category that says whether a number is there."""
    return f"{numeric}_missing"


def sequence_columns(manifest: Manifest, sizes: Mapping[str, int]) -> tuple[SequenceColumn, ...]:
    """The columns of the sequences, in order; ``sizes`` is greatest id + 1 of each categorical field.

    Raises:
        ConfigError: a field has a name that pytorch-lifestream takes for something else, or that is ours.
    """
    columns = [
        SequenceColumn(name="user_id", dtype=manifest.user_id_type, unit="", meaning="the user"),
        SequenceColumn(name="as_of", dtype="long", unit=SECONDS, meaning="midnight before which the events are"),
        SequenceColumn(name="event_time", dtype="array<long>", unit=SECONDS, meaning="when it was, ascending"),
    ]
    if manifest.logs:
        names = [entry.name for entry in manifest.logs]
        meaning = "the event's log: " + ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
        columns.append(
            SequenceColumn(name="source", dtype="array<int>", unit="id", meaning=meaning, ids=len(names) + 1)
        )
    for name in manifest.categorical:
        without = f"; {PADDING_ID}: its log has no such field" if manifest.logs else ""
        meaning = f"{name}; {UNKNOWN_ID}: unknown or rare, {MISSING_ID}: missing{without}"
        columns.append(
            SequenceColumn(name=name, dtype="array<int>", unit=ID_UNIT, meaning=meaning, ids=sizes.get(name))
        )
    for field in manifest.numeric:
        value = field.name if field.transform == "none" else f"{field.transform}({field.name})"
        there = f"{VALUE_ID}: {field.name} is there, {MISSING_ID}: it is missing"
        name = missing_column(field.name)
        columns.append(
            SequenceColumn(name=field.name, dtype="array<double>", unit=value, meaning=f"{value}; 0 where missing")
        )
        columns.append(SequenceColumn(name=name, dtype="array<int>", unit="id", meaning=there, ids=MISSING_ID + 1))
    _check_sequence_names([column.name for column in columns])
    return tuple(columns)


def _check_sequence_names(names: Sequence[str]) -> None:
    for name in names:
        if name.startswith("target") or name == "trans_time":
            kind = "a time of its own" if name == "trans_time" else "no sequence but a label"
            raise ConfigError(f"field '{name}': pytorch-lifestream takes it for {kind}; rename the field for sequences")
        if names.count(name) > 1:
            raise ConfigError(f"two columns of the sequences would be named '{name}'; rename the field")
