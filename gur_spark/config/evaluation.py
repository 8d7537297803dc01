"""What a configuration says of evaluation: what is asked, of whom, and beside what the embedding is shown."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gur_spark.config.section import Name, Section
from gur_spark.features.declare.spec import Days

RESERVED = ("user_id", "embedding", "events")


class Churn(Section):
    """Which active users have no event in the horizon."""

    kind: Literal["churn"]
    name: Name = "churn"


class Volume(Section):
    """How much a user does in the horizon: a regression."""

    kind: Literal["volume"]
    name: Name = "volume"
    of: Name = "events"
    """The number of events, or the sum of this numeric field, 0 for who has none."""


class NextCategory(Section):
    """The category of a user's first event in the horizon, of those who have one."""

    kind: Literal["next_category"]
    name: Name = "next_category"
    field: Name
    classes: int = Field(default=10, ge=2, le=50)
    """The most frequent ones; a user whose next category is another one is not asked about."""


Task = Annotated[Churn | Volume | NextCategory, Field(discriminator="kind")]


class Label(Section):
    """A table of labels: one row per user, a column with the class."""

    name: Name
    path: str
    format: Literal["csv", "parquet"] = "csv"
    user_column: str
    label_column: str


class Evaluation(Section):
    as_of: list[date] = Field(default_factory=list)
    """One date, or several that are asked together: figures are means over them too, and intervals narrower."""
    horizon_days: Days
    """Of the tasks: ``[as_of, as_of + horizon_days)``."""
    tasks: list[Task] = Field(default_factory=list)
    labels: list[Label] = Field(default_factory=list)
    seeds: int = Field(default=1, ge=1, le=100)
    """So many splits of the users, each with a seed of its own for what is fitted; figures are means over them."""
    hand_made: bool = True
    """Show pytorch-lifestream's ``AggFeatureSeqEncoder`` beside (extra ``sequences``)."""
    coles_seconds: int = Field(default=0, ge=0)
    """Train pytorch-lifestream's CoLES for so long, and show it beside; 0: leave it out."""
    segments: tuple[int, int] | None = None
    """Events in the longest window from which a user is light, and heavy; default: terciles of the active users."""
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
        """Raise ``ValueError`` where a task is about a field that no log has."""
        for task in self.tasks:
            if isinstance(task, Volume) and task.of not in ("events", *numeric):
                raise ValueError(
                    f"task '{task.name}': no numeric field '{task.of}'; expected events or {list(numeric)}"
                )
            if isinstance(task, NextCategory) and task.field not in categorical:
                raise ValueError(f"task '{task.name}': no category '{task.field}'; available: {list(categorical)}")
