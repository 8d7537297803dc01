"""Names and types of every table, and the manifest of the aggregates.

With Parquet, this module is the only seam between the Spark side and the torch side:
it imports neither.
"""

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

PADDING_ID, UNKNOWN_ID, MISSING_ID, FIRST_VALUE_ID = 0, 1, 2, 3
"""Category ids: padding, unknown or rare, missing, then the vocabulary's values."""

NUMERIC_STATISTICS = ("count", "sum", "mean", "std", "min", "max")

MAX_STEPS = 2**43
"""Largest stored number, in steps: its square still fits the kernel's two limbs."""

SQL_USER_ID = {"long": "BIGINT", "string": "STRING"}

VOCABULARY = "field STRING, value STRING, id INT, count BIGINT, version INT, hash STRING, created TIMESTAMP"
SNAPSHOTS = (
    "as_of DATE, known_at TIMESTAMP, path STRING, manifest_hash STRING, vocabulary_version INT, "
    "vocabulary_hash STRING, lineage STRING, rows BIGINT, checksum STRING, run_id STRING, created TIMESTAMP"
)
MODELS = (
    "model_version STRING, path STRING, kind STRING, manifest_hash STRING, vocabulary_version INT, "
    "vocabulary_hash STRING, training_snapshots ARRAY<STRING>, metrics MAP<STRING, DOUBLE>, "
    "aligned_to STRING, code_commit STRING, created TIMESTAMP"
)
PUBLISHED = "name STRING, model_version STRING, as_of DATE, switched_at TIMESTAMP, switched_by STRING, reason STRING"
RUNS = (
    "run_id STRING, job STRING, parameters MAP<STRING, STRING>, inputs MAP<STRING, STRING>, "
    "counts MAP<STRING, BIGINT>, outputs MAP<STRING, STRING>, started TIMESTAMP, seconds DOUBLE, "
    "status STRING, error STRING"
)


def quarantine_schema() -> str:
    """One rejected raw row (or, with a null ``raw``, one broken file)."""
    return "landed_on DATE, source_file STRING, reason STRING, field STRING, raw STRING"


def events_schema(user_id_type: str, categorical: Sequence[str], numeric: Sequence[str]) -> str:
    """One accepted event: categories as text, numbers as whole counts of their step."""
    columns = [f"user_id {SQL_USER_ID[user_id_type]}", "event_time TIMESTAMP", "landed_on DATE"]
    columns += [f"{name} STRING" for name in categorical]
    columns += [f"{name} BIGINT" for name in numeric]
    return ", ".join(columns)


def embeddings_schema(user_id_type: str) -> str:
    """One embedding per (user_id, as_of, model_version)."""
    return (
        f"user_id {SQL_USER_ID[user_id_type]}, as_of DATE, model_version STRING, embedding ARRAY<FLOAT>, events BIGINT"
    )


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NumericField(_Frozen):
    name: str
    step: Decimal
    transform: str


class Column(_Frozen):
    """One column of the aggregates."""

    name: str
    dtype: Literal["long", "double", "array<int>", "string", "date"]
    unit: str
    meaning: str
    statistic: str
    field: str | None = None
    window_days: int | None = None
    null: str = "never"
    """When the value is null."""


class Manifest(_Frozen):
    """What the columns of an aggregate snapshot are; its hash is what a model is bound to."""

    format: int = 1
    user_id_type: Literal["long", "string"]
    windows: tuple[int, ...]
    numeric: tuple[NumericField, ...]
    categorical: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def hash(self) -> str:
        """16 hex digits over the canonical JSON of the whole manifest."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()[:16]

    @property
    def dense(self) -> tuple[Column, ...]:
        """The scalar feature columns, in order: everything but keys and histograms."""
        return tuple(c for c in self.columns if c.dtype in ("long", "double") and c.statistic != "key")

    def to_json(self) -> str:
        """The manifest with its hash, as it lies beside the data."""
        return json.dumps({"hash": self.hash, **self.model_dump(mode="json")}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read ``manifest.json``.

        Raises:
            ValueError: the stored hash is not that of the contents.
        """
        values: dict[str, Any] = json.loads(text)
        stored = values.pop("hash", None)
        manifest = cls.model_validate(values)
        if stored != manifest.hash:
            raise ValueError(f"manifest says hash {stored}, its contents have {manifest.hash}: it was altered")
        return manifest


def make_manifest(
    user_id_type: Literal["long", "string"],
    windows: Sequence[int],
    numeric: Sequence[NumericField],
    categorical: Sequence[str],
) -> Manifest:
    """The manifest of a pipeline's aggregates; column order here is the order in the Parquet files."""
    columns = [*_key_columns(user_id_type), *_activity_columns(windows)]
    for field in numeric:
        columns += _numeric_columns(field, windows)
    for name in categorical:
        columns += _categorical_columns(name, windows)
    return Manifest(
        user_id_type=user_id_type,
        windows=tuple(windows),
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        columns=tuple(columns),
    )


def aggregate_names(windows: Sequence[int], numeric: Sequence[str], categorical: Sequence[str]) -> list[str]:
    """Names of all aggregate columns, before they are known to be unique."""
    fields = [NumericField(name=n, step=Decimal(1), transform="none") for n in numeric]
    return [c.name for c in make_manifest("long", windows, fields, categorical).columns]


def _key_columns(user_id_type: Literal["long", "string"]) -> Iterator[Column]:
    yield Column(name="user_id", dtype=user_id_type, unit="", meaning="the user", statistic="key")
    yield Column(name="as_of", dtype="date", unit="", meaning="the UTC date the row is for", statistic="key")


def _activity_columns(windows: Sequence[int]) -> Iterator[Column]:
    longest = windows[-1]
    for w in windows:
        within = f"in the {w} days before as_of"
        yield Column(
            name=f"events_{w}d",
            dtype="long",
            unit="events",
            meaning=f"events {within}",
            statistic="events",
            window_days=w,
        )
        yield Column(
            name=f"active_days_{w}d",
            dtype="long",
            unit="days",
            meaning=f"UTC days with an event {within}",
            statistic="active_days",
            window_days=w,
        )
    for name, which in (("recency", "last"), ("tenure", "first")):
        yield Column(
            name=f"{name}_days",
            dtype="double",
            unit="days",
            statistic=name,
            window_days=longest,
            meaning=f"time from the {which} event of the {longest} days before as_of to as_of midnight UTC",
            null=f"no event in {longest} days",
        )


def _numeric_columns(field: NumericField, windows: Sequence[int]) -> Iterator[Column]:
    value = field.name if field.transform == "none" else f"{field.transform}({field.name})"
    meanings = {
        "count": f"events with a {field.name}",
        "sum": f"sum of {value}",
        "mean": f"mean of {value}",
        "std": f"population standard deviation of {value}",
        "min": f"least {value}",
        "max": f"greatest {value}",
    }
    for w in windows:
        for statistic in NUMERIC_STATISTICS:
            counted = statistic == "count"
            yield Column(
                name=f"{field.name}_{statistic}_{w}d",
                dtype="long" if counted else "double",
                unit="events" if counted else value,
                meaning=f"{meanings[statistic]} in the {w} days before as_of",
                statistic=statistic,
                field=field.name,
                window_days=w,
                null="never" if statistic in ("count", "sum") else f"no {field.name} in {w} days",
            )


def _categorical_columns(name: str, windows: Sequence[int]) -> Iterator[Column]:
    for w in windows:
        yield Column(
            name=f"{name}_distinct_{w}d",
            dtype="long",
            unit="ids",
            field=name,
            window_days=w,
            statistic="distinct",
            meaning=f"different {name} ids in the {w} days before as_of",
        )
    yield Column(
        name=f"{name}_ids",
        dtype="array<int>",
        unit="vocabulary ids",
        field=name,
        statistic="ids",
        window_days=windows[-1],
        meaning=f"{name} ids of the longest window, ascending",
    )
    for w in windows:
        yield Column(
            name=f"{name}_counts_{w}d",
            dtype="array<int>",
            unit="events",
            field=name,
            window_days=w,
            statistic="histogram",
            meaning=f"events per id of {name}_ids in the {w} days before as_of",
        )
