"""The section ``evaluation``: the tasks that embeddings are judged by, the users, and the baselines."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gur_spark.config.section import Name, Section
from gur_spark.features.declare.windows import Days

RESERVED = ("user_id", "embedding", "events")


class Churn(Section):
    """Churn: an active user has no event in the horizon. A classification."""

    kind: Literal["churn"]
    name: Name = "churn"
    positive: Literal["active", "churned"] = "churned"
    """The positive class of AUC and average precision."""


class Volume(Section):
    """Volume of a user's events in the horizon. A regression."""

    kind: Literal["volume"]
    name: Name = "volume"
    of: Name = "events"
    """``events`` counts them; a numeric field sums it. A user without events has 0."""


class NextCategory(Section):
    """The category of a user's first event in the horizon; users without one are not asked. A classification."""

    kind: Literal["next_category"]
    name: Name = "next_category"
    field: Name
    classes: int = Field(default=10, ge=2, le=50)
    """So many categories, the most frequent ones; users whose next category is another one are not asked."""


Task = Annotated[Churn | Volume | NextCategory, Field(discriminator="kind")]


class Label(Section):
    """A table of labels: one row per user, with a column that holds the class."""

    name: Name
    path: str | None = None
    """A file or folder; not used with ``format: table``."""
    format: Literal["csv", "parquet", "delta", "table"] = "csv"
    table: str | None = None
    """The catalog table to read, with ``format: table``."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Character between the values of a CSV file."""
    user_column: str
    label_column: str
    positive: str | None = None
    """The positive one of two classes; default: the second in alphabetical order."""
    date_column: str | None = None
    """The column with the date of a row's answer. A user may then have one row per date, and each counts at the newest
    judged date that is not after it."""

    @model_validator(mode="after")
    def _located(self) -> "Label":
        if self.format == "table" and not self.table:
            raise ValueError("format 'table' needs table")
        if self.format != "table" and not self.path:
            raise ValueError(f"format '{self.format}' needs path")
        read = {"table": (self.table, ["table"]), "path": (self.path, ["csv", "parquet", "delta"])}
        read["delimiter"] = None if self.delimiter == "," else self.delimiter, ["csv"]
        unread = [key for key, (value, formats) in read.items() if value is not None and self.format not in formats]
        if unread:
            raise ValueError(f"format '{self.format}' has no {' and no '.join(unread)}; remove it, or give its format")
        return self


class Evaluation(Section):
    """How embeddings are judged: dates, tasks, splits of the users, and baselines."""

    as_of: list[date] = Field(default_factory=list)
    """One date, or several: figures are then means over the dates, and intervals are narrower."""
    horizon_days: Days
    """Days that the tasks ask about: ``[as_of, as_of + horizon_days)``."""
    tasks: list[Task] = Field(default_factory=list)
    labels: list[Label] = Field(default_factory=list)
    seeds: int = Field(default=1, ge=1, le=100)
    """Number of splits of the users, each with its own seed; figures are means over them."""
    hand_made: bool = True
    """Compare with pytorch-lifestream's ``AggFeatureSeqEncoder`` (extra ``sequences``)."""
    coles_epochs: int = Field(default=0, ge=0)
    """Compare with CoLES, trained for the report until its validation loss stops falling, for so many epochs at most;
    0: leave it out."""
    beside: list[Name] = Field(default_factory=list)
    """Pipelines over the same tables whose published embeddings are compared with, by name."""
    segments: tuple[int, int] | None = None
    """Events in the longest window from which a user is light, and heavy; default: terciles of the active users."""
    smallest_difference: float = Field(default=0.005, ge=0)
    """The smallest relevant difference of a metric: below it nothing is called win or loss."""
    label_shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=lambda: [0.1])
    """Shares of the train users' labels that raw windows, PCA and the embedding are also measured with."""
    test_share: float = Field(gt=0, lt=1)
    bootstrap: int = Field(ge=10)
    max_users: int = Field(ge=10)
    seed: int = Field(ge=0, lt=2**31)

    @field_validator("as_of", mode="before")
    @classmethod
    def _one_date(cls, value: Any) -> Any:
        return [] if value is None else value if isinstance(value, list | tuple) else [value]

    @field_validator("as_of")
    @classmethod
    def _ascending(cls, value: list[date]) -> list[date]:
        if sorted(set(value)) != value:
            raise ValueError(f"expected ascending dates, each once, got {list(map(str, value))}")
        return value

    @field_validator("label_shares")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if sorted(set(value)) != value:
            raise ValueError(f"expected ascending shares, each once, got {value}")
        return value

    def positive_of(self, name: str) -> str | None:
        """Find the declared positive class of a task or label."""
        asked = {one.name: one for one in (*self.tasks, *self.labels)}.get(name)
        return asked.positive if isinstance(asked, Churn | Label) else None

    @model_validator(mode="after")
    def _consistent(self) -> "Evaluation":
        names = [asked.name for asked in (*self.tasks, *self.labels)]
        for name in names:
            if name in RESERVED:
                raise ValueError(f"a task or label cannot be named '{name}'; choose another name")
            if names.count(name) > 1:
                raise ValueError(f"two tasks or labels are named '{name}'; give one of them another name")
        if self.segments and not 1 <= self.segments[0] < self.segments[1]:
            raise ValueError(f"segments: expected two ascending numbers from 1 on, got {list(self.segments)}")
        return self

    def check_fields(self, categorical: Sequence[str], numeric: Sequence[str]) -> None:
        """Check that every task is about a field that some log has.

        Raises:
            ValueError: naming the task and the fields there are.
        """
        for task in self.tasks:
            if isinstance(task, Volume) and task.of not in ("events", *numeric):
                raise ValueError(
                    f"task '{task.name}': no numeric field '{task.of}'; expected events or {list(numeric)}"
                )
            if isinstance(task, NextCategory) and task.field not in categorical:
                raise ValueError(f"task '{task.name}': no category '{task.field}'; available: {list(categorical)}")
