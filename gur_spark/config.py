"""What a pipeline's configuration may say, as frozen models; ``config_file`` reads one.

Nothing here starts Spark or torch.
"""

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gur_spark.errors import nearest
from gur_spark.features.plan import make_manifest
from gur_spark.features.spec import Aggregation, Days
from gur_spark.schema import Manifest, NumericField

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="lower_snake_case name")]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Spark(Section):
    """How a session is built; see ``gur_spark.session``."""

    cores: int = Field(ge=1)
    memory: str = Field(pattern=r"^\d+[mg]$")
    """Heap of the local driver, such as ``4g``."""
    shuffle_partitions: int = Field(ge=1)
    remote: str | None = None
    """Address of a Spark Connect server, ``sc://host:15002``."""
    conf: dict[str, str] = {}
    """Further Spark settings, passed through as they are."""


class Tables(Section):
    """Where tables live: folders under ``root``, or names under ``catalog.schema``.

    Parquet aggregates and model artefacts are folders under ``root`` in both cases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    root: str
    catalog: str | None = None
    database: str | None = Field(default=None, alias="schema")

    @model_validator(mode="after")
    def _both_or_neither(self) -> "Tables":
        if (self.catalog is None) != (self.database is None):
            raise ValueError("catalog and schema go together: give both, or neither")
        return self


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
    quote: str = Field(min_length=1, max_length=1)
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

    @model_validator(mode="after")
    def _one_derivation(self) -> "Categorical":
        if self.sign and self.prefixes is not None:
            raise ValueError("give sign or prefixes, not both")
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
    """Which columns of the raw log are which fields of an event."""

    user_id: UserId
    event_time: EventTime
    categorical: list[Categorical] = []
    numeric: list[Numeric] = []

    @model_validator(mode="after")
    def _names(self) -> "Fields":
        names = [f.name for f in self.categorical] + [f.name for f in self.numeric]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two fields are named '{name}'; names must differ")
            if name in ("user_id", "event_time", "landed_on", "as_of"):
                raise ValueError(f"'{name}' is a name of gur_spark's own; choose another")
        return self

    def columns(self) -> list[str]:
        """Every raw column that is mapped, each once, in the order of the fields."""
        named = [self.user_id.column, self.event_time.column]
        named += [f.column for f in self.categorical]
        named += [c for f in self.numeric for c in (f.column, f.times) if c]
        return list(dict.fromkeys(named))


class Filter(Section):
    """A row is kept when the raw column passes; it is counted as filtered when not."""

    column: str
    keep: Literal["not_blank", "in", "not_in"]
    values: list[str] = []

    @model_validator(mode="after")
    def _values(self) -> "Filter":
        if (self.keep == "not_blank") == bool(self.values):
            raise ValueError("'in' and 'not_in' need values, 'not_blank' takes none")
        return self


class Dedupe(Section):
    """Which rows are the same event; the first landing wins."""

    policy: Literal["none", "exact", "key"]
    """``exact``: all mapped fields are equal; ``key``: the named event columns are equal."""
    key: list[str] = []

    @model_validator(mode="after")
    def _key(self) -> "Dedupe":
        if (self.policy == "key") != bool(self.key):
            raise ValueError("policy 'key' needs key: [columns], the others take none")
        return self


class Vocabulary(Section):
    min_count: int = Field(ge=1)
    """A value seen less often becomes id 1 (unknown or rare)."""
    max_size: int = Field(ge=1, le=10_000_000)
    """Most values kept per field."""


class Aggregates(Section):
    windows: list[Days] = Field(min_length=1)
    """Lengths in days, ascending."""
    delay_days: int = Field(ge=0, le=365)
    """How long after an as-of midnight landings still count; ``known_at`` is as_of + delay."""
    landing_gap_days: int = Field(ge=0, le=36500)
    """An as_of so many days after the newest event's landing is refused: the days between would count as silence."""
    incremental_days: int = Field(default=0, ge=0, le=31)
    """A full run keeps what the snapshots of so many days after go on from; 0: nothing. See ``gur_spark.bases``."""
    features: list[Aggregation] = []
    """Declared beside the standard ones; see ``gur_spark.features.spec``."""
    users: str | None = None
    """A Parquet folder with a user_id column: these users get a row even without events."""

    @field_validator("windows")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if sorted(set(value)) != value:
            raise ValueError("expected ascending windows, each once")
        return value


class Model(Section):
    """The GUR autoencoder; the meaning of each value is in ``gur_spark.models.autoencoder``."""

    latent_dim: int = Field(ge=1, le=4096)
    dropout: Share
    block_dropout: Share
    """Chance that a whole field or window is hidden from the encoder."""
    loss: Literal["mse", "likelihood"]
    tables: Literal["trained", "frozen"]
    """Category embeddings learned with the model, or truncated SVD of co-occurrence (shifted PMI)."""
    embedding_dim: int | None = Field(default=None, ge=1, le=1024)
    """Width of a category table; default min(24, 1.6 V^0.56)."""
    dense_scale: Literal["none", "signed_log1p"]
    """Applied to the dense columns before they are standardised."""

    @model_validator(mode="after")
    def _targets(self) -> "Model":
        if self.loss == "mse" and self.tables == "trained":
            raise ValueError("loss 'mse' needs tables 'frozen': trained tables shrink to make it small")
        return self


class Training(Section):
    as_of: list[date] = []
    """Snapshots to train on."""
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    patience: int = Field(ge=1)
    """Epochs without a better validation loss before training stops."""
    validation_share: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0, lt=2**31)
    device: Literal["auto", "cpu", "gpu"]
    threads: int = Field(ge=1)


class Scoring(Section):
    as_of: list[date] = []
    batch_rows: int = Field(ge=1)


class Label(Section):
    """A table of labels: one row per user, a column with the class."""

    name: Name
    path: str
    format: Literal["csv", "parquet"] = "csv"
    user_column: str
    label_column: str


class Evaluation(Section):
    as_of: date | None = None
    horizon_days: Days
    """Churned = active in the longest window and no event in this many days after as_of."""
    churn: bool
    labels: list[Label] = []
    test_share: float = Field(gt=0, lt=1)
    bootstrap: int = Field(ge=10)
    max_users: int = Field(ge=10)
    seed: int = Field(ge=0, lt=2**31)


class Config(Section):
    """One pipeline."""

    name: Name
    engine: Literal["local", "sail", "connect", "databricks", "spark"]
    spark: Spark
    tables: Tables
    source: Source
    fields: Fields
    filters: list[Filter] = []
    dedupe: Dedupe
    vocabulary: Vocabulary
    aggregates: Aggregates
    model: Model
    training: Training
    scoring: Scoring
    evaluation: Evaluation

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        if self.engine == "connect" and not self.spark.remote:
            raise ValueError("engine 'connect' needs spark.remote")
        if self.engine == "sail" and (self.tables.catalog or self.source.format == "table"):
            raise ValueError("engine 'sail' knows folders only: no tables.catalog, no source.format 'table'")
        categorical = [f.name for f in self.fields.categorical]
        numeric = [f.name for f in self.fields.numeric]
        event_columns = ["user_id", "event_time", *categorical, *numeric]
        for column in self.dedupe.key:
            if column not in event_columns:
                hint = nearest(column, event_columns)
                raise ValueError(f"dedupe.key: '{column}' is not an event column; available: {event_columns}{hint}")
        judged = self.evaluation.as_of
        if judged is not None and self.scoring.as_of and judged not in self.scoring.as_of:
            raise ValueError(
                f"evaluation.as_of {judged} is not among scoring.as_of: {list(map(str, self.scoring.as_of))}"
            )
        try:
            self.manifest()
        except ValueError as error:
            raise ValueError(f"aggregates.{error}" if str(error).startswith("features.") else str(error)) from error
        return self

    def manifest(self) -> Manifest:
        """What the columns of its aggregates are."""
        numeric = [NumericField(name=f.name, step=f.step, transform=f.transform) for f in self.fields.numeric]
        categorical = [f.name for f in self.fields.categorical]
        a = self.aggregates
        return make_manifest(self.fields.user_id.type, a.windows, numeric, categorical, a.features)
