"""The sections ``vocabulary``, ``aggregates``, ``sequences`` and ``interactions``: snapshots, and the ids in them."""

from typing import Annotated

from pydantic import Field, field_validator

from gur_spark.config.section import Name, Section
from gur_spark.errors import nearest
from gur_spark.features.declare.pivots import Pivot
from gur_spark.features.declare.spec import Aggregation
from gur_spark.features.declare.windows import Length, Window, hours_of

MinCount = Annotated[int, Field(ge=1)]
MaxSize = Annotated[int, Field(ge=1, le=10_000_000)]


class FieldVocabulary(Section):
    """Limits of one field; a limit that is not given is that of all fields."""

    min_count: MinCount | None = None
    max_size: MaxSize | None = None


class Vocabulary(Section):
    """Rules by which category values get an id of their own."""

    min_count: MinCount
    """A value seen less often becomes id 1 (unknown or rare)."""
    max_size: MaxSize
    """Values kept per field, the most frequent ones."""
    fields: dict[Name, FieldVocabulary] = Field(default_factory=dict)
    """Limits of single fields, such as the items of a large catalogue: ``{item: {max_size: 1000000}}``."""

    def min_count_of(self, field: str) -> int:
        """The least count of a value of this field that has an id of its own."""
        own = self.fields.get(field)
        return self.min_count if own is None or own.min_count is None else own.min_count

    def max_size_of(self, field: str) -> int:
        """The most values of this field that are kept."""
        own = self.fields.get(field)
        return self.max_size if own is None or own.max_size is None else own.max_size

    def check_fields(self, known: list[str]) -> None:
        """Raise ``ValueError`` where limits are given for a field that is no category."""
        for name in self.fields:
            if name not in known:
                raise ValueError(f"fields.{name}: no category '{name}'; available: {known}{nearest(name, known)}")


class Aggregates(Section):
    """Windowed aggregates: one row per user and as-of date."""

    windows: list[Length] = Field(min_length=1)
    """Lengths, ascending: days such as ``7`` or ``7d``, hours such as ``6h``. ``24h`` is the same as ``1d``."""
    delay_days: int = Field(ge=0, le=365)
    """Days after midnight of an as-of date in which landings still count: ``known_at`` is as_of plus these days."""
    landing_gap_days: int = Field(ge=0, le=36500)
    """An as-of date so many days after the newest landing is refused: the days between would count as silence."""
    incremental_days: int = Field(default=0, ge=0, le=31)
    """A full run keeps what the snapshots of the next so many days continue from (``snapshots.base_snapshots``); 0:
    nothing."""
    features: list[Aggregation] = Field(default_factory=list)
    """Features beside the standard ones; see ``gur_spark.features.declare.spec``."""
    pivots: list[Pivot] = Field(default_factory=list)
    """Operations on a number with one column per value of a category; see ``gur_spark.features.declare.pivots``."""
    users: str | None = None
    """A Parquet folder with a user_id column: these users get a row even without events."""

    @field_validator("windows")
    @classmethod
    def _ascending(cls, value: list[int | str]) -> list[int | str]:
        if sorted(set(value), key=hours_of) != value:
            raise ValueError("expected ascending windows, each once (24h and 1d are the same)")
        return value

    @field_validator("pivots")
    @classmethod
    def _different(cls, value: list[Pivot]) -> list[Pivot]:
        if any(value.count(pivot) > 1 for pivot in value):
            raise ValueError("the same pivot is given twice")
        return value


class Sequences(Section):
    """Sequences of events: one row per user with lists in the order of time."""

    window: Window
    """Days before as_of whose events are taken: ``180``, ``6h``, ``lifetime``, or ``{days: 180, before: 7}``."""
    max_events: int | None = Field(ge=1)
    """Greatest number of a user's events that are taken, the newest ones; null: all of them."""
    fields: list[Name] | None = None
    """Categories and numbers that are taken; null: all fields of events."""

    def check_fields(self, known: list[str]) -> None:
        """Raise ``ValueError`` where a field is not one of the events."""
        for name in self.fields or ():
            if name not in known:
                raise ValueError(f"fields: no field '{name}' of events; available: {known}{nearest(name, known)}")


class Interactions(Section):
    """Interactions of users with items: one row per user and item, how often, and when first and last."""

    field: Name
    """The categorical field that names the item."""
    window: Window = Window(days=180)
    """Days before as_of whose events count, as in ``sequences.window``."""

    def check_field(self, known: list[str]) -> None:
        """Raise ``ValueError`` where the field is no category of the events."""
        if self.field not in known:
            raise ValueError(
                f"field: no category '{self.field}' of events; available: {known}{nearest(self.field, known)}"
            )
