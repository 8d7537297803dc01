"""The whole configuration of one pipeline, as a frozen model; ``gur_spark.config.file`` reads one.

Nothing here starts Spark or torch.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from gur_spark.config.checks import (
    check_capabilities,
    check_engine,
    check_forms,
    check_gates,
    check_judged_dates,
    check_tasks,
    check_vocabulary,
)
from gur_spark.config.columns import aggregates_manifest, categories, numbers
from gur_spark.config.evaluation import Evaluation
from gur_spark.config.fields import Fields
from gur_spark.config.gates import Gates
from gur_spark.config.logs import (
    MAIN,
    AnyLog,
    Dedupe,
    Filter,
    ItemLog,
    Join,
    Log,
    check_item_logs,
    check_logs,
    joined,
)
from gur_spark.config.monitoring import Monitor
from gur_spark.config.section import Name, Section
from gur_spark.config.session import Spark
from gur_spark.config.snapshots import Aggregates, Interactions, Sequences, Vocabulary
from gur_spark.config.source import Source
from gur_spark.config.tables import Tables
from gur_spark.config.tracking import Tracking, with_store
from gur_spark.config.training import Scoring, Training
from gur_spark.errors import ConfigError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.declare.pivots import Pivoted
from gur_spark.models.catalogue import DEFAULT, find
from gur_spark.models.kind import ModelSection
from gur_spark.schema import events_schema, items_schema


class Config(Section):
    """One pipeline: one model over the tables of one set of logs."""

    name: Name
    engine: Literal["local", "sail", "connect", "databricks", "spark"]
    spark: Spark
    tables: Tables
    source: Source
    fields: Fields
    filters: list[Filter] = Field(default_factory=list)
    dedupe: Dedupe
    join: Join | None = None
    """Attributes of items that become fields of the main log's events."""
    logs: dict[Name, AnyLog] = Field(default_factory=dict)
    """Further logs, of the same users or of items, beside the main one that ``source`` describes."""
    vocabulary: Vocabulary
    aggregates: Aggregates
    sequences: Sequences
    interactions: Interactions | None = None
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
        name = value.get("kind", DEFAULT)
        if not isinstance(name, str):
            wrong = InitErrorDetails(type="string_type", loc=("kind",), input=name)
            raise ValidationError.from_exception_data("model", [wrong])
        try:
            kind = find(name)
        except ConfigError as error:
            unknown = PydanticCustomError("value_error", "{error}", {"error": str(error)})
            wrong = InitErrorDetails(type=unknown, loc=("kind",), input=value)
            raise ValidationError.from_exception_data("model", [wrong]) from error
        return kind.config.model_validate(value)

    @field_validator("tracking", mode="before")
    @classmethod
    def _named_store(cls, value: Any, info: ValidationInfo) -> Any:
        return with_store(value, info.data["tables"].root if "tables" in info.data else None)

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        if MAIN in self.logs:
            raise ValueError(f"logs.{MAIN}: is the name of the log that 'source' describes; choose another")
        check_engine(self.engine, self.spark, self.tables, self.raw_logs)
        check_logs(self.all_logs)
        check_item_logs(self.item_logs)
        check_gates(self.gates, self.evaluation)
        check_judged_dates(self.evaluation, self.scoring, self.training.cutoff)
        check_tasks(self.evaluation, self.all_logs)
        check_vocabulary(self.vocabulary, self.all_logs)
        check_forms(self.sequences, self.interactions, self.all_logs)
        check_capabilities(self.scoring, self.model.kind, find(self.model.kind).can)
        try:
            self.manifest()
        except ValueError as error:
            placed = str(error).startswith(("features.", "pivots."))
            raise ValueError(f"aggregates.{error}" if placed else str(error)) from error
        return self

    @property
    def training_cutoff(self) -> date | None:
        """The first date whose events training must not see."""
        return self.training.cutoff or min([*self.scoring.as_of, *self.evaluation.as_of], default=None)

    @property
    def main(self) -> Log:
        """The log that ``source`` and ``fields`` describe."""
        return Log(source=self.source, fields=self.fields, filters=self.filters, dedupe=self.dedupe, join=self.join)

    @property
    def all_logs(self) -> dict[str, Log]:
        """Every log of users by its name, the main one first, with the fields that it takes from items."""
        of_users = {MAIN: self.main, **{name: log for name, log in self.logs.items() if isinstance(log, Log)}}
        return {name: joined(log, name, self.item_logs) for name, log in of_users.items()}

    @property
    def item_logs(self) -> dict[str, ItemLog]:
        """Every log of items by its name."""
        return {name: log for name, log in self.logs.items() if isinstance(log, ItemLog)}

    @property
    def raw_logs(self) -> dict[str, Log | ItemLog]:
        """Every log that is ingested by its name, as it lies in files; the main one first."""
        return {MAIN: self.main, **self.logs}

    @property
    def ingest_order(self) -> list[str]:
        """Names of all logs in the order of ingest: logs of items first, because events may take their attributes."""
        return [*self.item_logs, *(name for name in self.raw_logs if name not in self.item_logs)]

    @property
    def categorical(self) -> list[str]:
        """Names of the categorical fields of all logs."""
        return categories(self.all_logs.values())

    @property
    def numeric(self) -> list[str]:
        """Names of the numeric fields of all logs."""
        return numbers(self.all_logs.values())

    @property
    def event_columns(self) -> list[str]:
        """Columns of ``events``, in its order."""
        named = ["source"] if len(self.all_logs) > 1 else []
        return ["user_id", "event_time", "landed_on", *named, *self.categorical, *self.numeric]

    def events_schema(self) -> str:
        """DDL of ``events``."""
        several = len(self.all_logs) > 1
        return events_schema(self.fields.user_id.type, self.categorical, self.numeric, several_logs=several)

    def items_schema(self) -> str:
        """DDL of ``items``."""
        return items_schema(categories(self.item_logs.values()), numbers(self.item_logs.values()))

    def manifest(self, pivots: Sequence[Pivoted] | None = None) -> Manifest:
        """The manifest of the pipeline's aggregates.

        Args:
            pivots: the pivots with their values, which depend on the vocabulary (``snapshots.pivots``); without them,
                the manifest lacks their columns.
        """
        return aggregates_manifest(self.aggregates, self.all_logs, pivots)
