"""What a pipeline's configuration may say, as frozen models; ``config_file`` reads one.

Nothing here starts Spark or torch.
"""

import os
from collections.abc import Iterable
from datetime import date
from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from gur_spark import storage
from gur_spark.config.evaluation import Evaluation, Volume
from gur_spark.config.logs import MAIN, Dedupe, Fields, Filter, Log, Numeric, Source, check_logs
from gur_spark.config.monitoring import Monitor
from gur_spark.config.section import Name, Section, Share
from gur_spark.config.training import Scoring, Training
from gur_spark.errors import ConfigError
from gur_spark.features.declare.manifest import AttributeField, LogFields, Manifest, NumericField
from gur_spark.features.declare.plan import make_manifest
from gur_spark.features.declare.spec import Aggregation, Days
from gur_spark.models.catalogue import DEFAULT, find
from gur_spark.models.kind import ModelSection
from gur_spark.schema import events_schema


class Spark(Section):
    """How a session is built; see ``gur_spark.session``."""

    cores: int = Field(ge=1)
    memory: str = Field(pattern=r"^\d+[mg]$")
    """Heap of the local driver, such as ``4g``."""
    shuffle_partitions: int = Field(ge=1)
    remote: str | None = None
    """Address of a Spark Connect server, ``sc://host:15002``."""
    conf: dict[str, str] = Field(default_factory=dict)
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
    """A full run keeps what the snapshots of so many days after go on from (``snapshots.bases``); 0: nothing."""
    features: list[Aggregation] = Field(default_factory=list)
    """Declared beside the standard ones; see ``gur_spark.features.declare.spec``."""
    users: str | None = None
    """A Parquet folder with a user_id column: these users get a row even without events."""

    @field_validator("windows")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if sorted(set(value)) != value:
            raise ValueError("expected ascending windows, each once")
        return value


class Gates(Section):
    """What a publish must pass, against what is published now; null switches one off (``serving.gates``)."""

    min_rows_share: float | None = Field(ge=0)
    max_norm_ratio: float | None = Field(ge=1)
    max_psi: float | None = Field(ge=0)
    max_domain_auc: float | None = Field(ge=0.5, le=1)
    min_neighbours: Share | None
    """Share of the canary users' ten nearest neighbours that stay."""
    task: str | None = None
    """One of ``evaluation.tasks`` or ``evaluation.labels``, by name: asked where another version is published."""
    max_downstream_loss: float | None = Field(default=0.0, ge=0)
    """AUC that it may lose beyond the paired interval, of all users and of cold, light and heavy ones."""
    max_consumer_loss: float | None = Field(default=0.02, ge=0)
    """Relative AUC that who was trained on the published version may lose, where the new rows claim its space."""
    canaries: int = Field(ge=1)
    sample: int = Field(ge=200)
    """Users that are compared."""


MLFLOW = "mlflow"
"""In the place of ``tracking`` or of its store: the store is the one of ``default_store``."""


class Tracking(Section):
    """MLflow, beside the ``models`` table; see ``gur_spark.registry.tracking``."""

    store: str
    """MLflow's tracking URI: ``sqlite:////data/mlflow.db``, ``http://mlflow:5000``, ``databricks``; in a file also the
    word ``mlflow``."""
    artifacts: str | None = None
    """Where a new experiment keeps files; default: where the store does, for sqlite ``mlartifacts`` beside it."""
    name: str | None = None
    """Of the experiment and the registered model; default: the pipeline's."""
    required: bool = False
    """Whether ``train`` fails where a version cannot be logged; the version stands all the same."""


def default_store(root: str) -> str:
    """MLflow's tracking URI where none is named: the environment's, else a database file in ``tables.root``.

    Raises:
        ValueError: there is none in the environment, and a database file cannot lie in this root.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named
    if not storage.is_local(root):
        raise ValueError(
            f"tables.root {root} is not a local path, where MLflow's database could lie: give tracking.store, such as "
            "http://mlflow:5000, or set MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{storage.join(storage.absolute(root), 'mlflow.db')}"


class Config(Section):
    """One pipeline."""

    name: Name
    engine: Literal["local", "sail", "connect", "databricks", "spark"]
    spark: Spark
    tables: Tables
    source: Source
    fields: Fields
    filters: list[Filter] = Field(default_factory=list)
    dedupe: Dedupe
    logs: dict[Name, Log] = Field(default_factory=dict)
    """Further logs of the same users, beside the one above."""
    vocabulary: Vocabulary
    aggregates: Aggregates
    model: SerializeAsAny[ModelSection]
    """The section of the kind that ``model.kind`` names."""
    training: Training
    scoring: Scoring
    tracking: Tracking | None = None
    gates: Gates
    monitor: Monitor
    evaluation: Evaluation

    @field_validator("model", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        try:
            kind = find(value.get("kind", DEFAULT))
        except ConfigError as error:
            unknown = PydanticCustomError("value_error", "{error}", {"error": str(error)})
            wrong = InitErrorDetails(type=unknown, loc=("kind",), input=value)
            raise ValidationError.from_exception_data("model", [wrong]) from error
        return kind.config.model_validate(value)

    @field_validator("tracking", mode="before")
    @classmethod
    def _named_store(cls, value: Any, info: ValidationInfo) -> Any:
        given = {"store": MLFLOW} if value == MLFLOW else value
        if not (given is None or isinstance(given, dict | Tracking)):
            raise ValueError(f"expected '{MLFLOW}', a mapping with a store, or null")
        # Tables that are wrong have an error of their own.
        if isinstance(given, dict) and given.get("store") == MLFLOW and "tables" in info.data:
            return {**given, "store": default_store(info.data["tables"].root)}
        return given

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        if self.engine == "connect" and not self.spark.remote:
            raise ValueError("engine 'connect' needs spark.remote")
        formats = [log.source.format for log in self.all_logs.values()]
        if self.engine == "sail" and (self.tables.catalog or "table" in formats):
            raise ValueError("engine 'sail' knows folders only: no tables.catalog, no source.format 'table'")
        if MAIN in self.logs:
            raise ValueError(f"logs.{MAIN}: is the name of the log that 'source' describes; choose another")
        check_logs(self.all_logs)
        tasks = [t.name for t in (*self.evaluation.tasks, *self.evaluation.labels) if not isinstance(t, Volume)]
        if self.gates.task is not None and self.gates.task not in tasks:
            raise ValueError(f"gates.task: no task '{self.gates.task}'; available: {tasks}")
        cutoff = self.training.cutoff
        for judged in self.evaluation.as_of:
            if cutoff and cutoff > judged:
                raise ValueError(
                    f"training.cutoff {cutoff} is after evaluation.as_of {judged}: the model would be judged by "
                    "what it has seen"
                )
            if self.scoring.as_of and judged not in self.scoring.as_of:
                raise ValueError(
                    f"evaluation.as_of {judged} is not among scoring.as_of: {list(map(str, self.scoring.as_of))}"
                )
        self._check_tasks()
        try:
            self.manifest()
        except ValueError as error:
            raise ValueError(f"aggregates.{error}" if str(error).startswith("features.") else str(error)) from error
        return self

    def _check_tasks(self) -> None:
        of_events = [log.fields for log in self.all_logs.values() if log.kind == "events"]
        try:
            self.evaluation.check_fields(
                [f.name for of in of_events for f in of.categorical], [f.name for of in of_events for f in of.numeric]
            )
        except ValueError as error:
            raise ValueError(f"evaluation.tasks: {error}") from error

    @property
    def training_cutoff(self) -> date | None:
        """The first date whose events training must not see."""
        return self.training.cutoff or min([*self.scoring.as_of, *self.evaluation.as_of], default=None)

    @property
    def main(self) -> Log:
        """The log that ``source`` and ``fields`` describe."""
        return Log(source=self.source, fields=self.fields, filters=self.filters, dedupe=self.dedupe)

    @property
    def all_logs(self) -> dict[str, Log]:
        """Every log by its name, the main one first."""
        return {MAIN: self.main, **self.logs}

    @property
    def categorical(self) -> list[str]:
        """The categories of all logs."""
        return _each_once(f.name for log in self.all_logs.values() for f in log.fields.categorical)

    @property
    def numeric(self) -> list[str]:
        """The numbers of all logs."""
        return _each_once(f.name for log in self.all_logs.values() for f in log.fields.numeric)

    @property
    def event_columns(self) -> list[str]:
        """Those of ``events``, in its order."""
        named = ["source"] if self.logs else []
        return ["user_id", "event_time", "landed_on", *named, *self.categorical, *self.numeric]

    def events_schema(self) -> str:
        """DDL of ``events``."""
        return events_schema(self.fields.user_id.type, self.categorical, self.numeric, several_logs=bool(self.logs))

    def manifest(self) -> Manifest:
        """What the columns of its aggregates are."""
        a, logs = self.aggregates, self.all_logs
        events = {name: log.fields for name, log in logs.items() if log.kind == "events"}
        known = {name: log.fields for name, log in logs.items() if log.kind == "attributes"}
        numeric = {f.name: f for fields in events.values() for f in fields.numeric}
        return make_manifest(
            self.fields.user_id.type,
            a.windows,
            [_numeric(field) for field in numeric.values()],
            _each_once(f.name for fields in events.values() for f in fields.categorical),
            a.features,
            [LogFields(name=name, fields=tuple(fields.names())) for name, fields in events.items()]
            if self.logs
            else [],
            [
                field
                for name, fields in known.items()
                for field in (
                    *(AttributeField(name=f.name, log=name, separator=f.separator) for f in fields.categorical),
                    *(AttributeField(name=f.name, log=name, numeric=_numeric(f)) for f in fields.numeric),
                )
            ],
        )


def _numeric(field: Numeric) -> NumericField:
    return NumericField(name=field.name, step=field.step, transform=field.transform)


def _each_once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
