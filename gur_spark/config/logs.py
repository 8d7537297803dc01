"""Sections about a raw log: what its rows are about, and the rows that count."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gur_spark.config.fields import Categorical, Fields, ItemFields, Numeric
from gur_spark.config.section import Name, Section
from gur_spark.config.source import Source
from gur_spark.errors import ConfigError, nearest


class Filter(Section):
    """A row is kept if the raw column passes; if not, it is counted as filtered."""

    column: str
    keep: Literal["not_blank", "in", "not_in"]
    values: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _values(self) -> "Filter":
        if (self.keep == "not_blank") == bool(self.values):
            raise ValueError("'in' and 'not_in' need values, 'not_blank' takes none")
        return self


class Dedupe(Section):
    """Rows that are the same event are stored once."""

    policy: Literal["none", "exact", "key"]
    """``exact``: all mapped fields are equal; ``key``: the named event columns are equal."""
    key: list[str] = Field(default_factory=list)
    keep: Literal["first", "last"] = "first"
    """The row of the first landing stays, or the one of the last, which corrects the others."""
    order: str | None = None
    """Event column that orders rows before their landing does; the greatest value is the last."""

    @model_validator(mode="after")
    def _key(self) -> "Dedupe":
        if (self.policy == "key") != bool(self.key):
            raise ValueError("policy 'key' needs key: [columns], the others take none")
        if self.policy != "key" and (self.keep != "first" or self.order):
            raise ValueError("keep and order are for policy 'key'")
        if self.order and self.keep != "last":
            raise ValueError("order needs keep: last")
        return self

    @property
    def columns(self) -> list[str]:
        """Event columns that it names."""
        return [*self.key, *([self.order] if self.order else [])]

    def key_of(self, column: str) -> str:
        """The key of this section that names a column."""
        return "key" if column in self.key else "order"


MAIN = "main"
"""The name of the log that ``source`` describes, beside further ones."""


class RawLog(Section):
    """A raw log as it is ingested."""

    source: Source
    filters: list[Filter] = Field(default_factory=list)
    dedupe: Dedupe


class Join(Section):
    """A lookup of attributes of items: each event takes what holds of its item at its time."""

    log: Name
    """The log of items."""
    on: Name
    """The categorical field of events that names the item."""
    take: list[Name] = Field(min_length=1)
    """Fields of the log of items that become fields of events."""
    late: bool = False
    """Whether rows of items count that landed after the event did. The events then depend on when they are ingested."""

    @model_validator(mode="before")
    @classmethod
    def _key_of_yaml(cls, value: Any) -> Any:
        # YAML 1.1 reads the bare key `on` as true.
        return {"on" if key is True else key: v for key, v in value.items()} if isinstance(value, dict) else value


class Log(RawLog):
    """A further raw log of the same users, with its own fields; fields of one name are one column."""

    join: Join | None = None
    kind: Literal["events", "attributes"] = "events"
    """``attributes``: facts about a user (country, plan) that hold from ``event_time`` until the user's next row."""
    fields: Fields

    @property
    def columns(self) -> list[str]:
        """Columns of its events."""
        return ["user_id", "event_time", *self.fields.names()]


class ItemLog(RawLog):
    """A raw log of attributes of items (brand, price), which hold from ``event_time`` until the item's next row."""

    kind: Literal["items"]
    fields: ItemFields

    @property
    def columns(self) -> list[str]:
        """Columns of its rows, as they are parsed."""
        return ["item", "event_time", *self.fields.names()]


LOG_KINDS: dict[str, type[Log] | type[ItemLog]] = {"events": Log, "attributes": Log, "items": ItemLog}


def log_class(value: Mapping[str, Any]) -> type[Log] | type[ItemLog]:
    """The class of a further log, by its ``kind``.

    Raises:
        ValueError: there is no such kind.
    """
    kind = value.get("kind", "events")
    if not isinstance(kind, str) or kind not in LOG_KINDS:
        known = list(LOG_KINDS)
        raise ValueError(f"unknown kind '{kind}'; expected one of {known}{nearest(str(kind), known)}")
    return LOG_KINDS[kind]


def _by_kind(value: Any) -> Any:
    return log_class(value).model_validate(value) if isinstance(value, dict) else value


AnyLog = Annotated[Log | ItemLog, BeforeValidator(_by_kind)]


def joined(log: Log, name: str, items: Mapping[str, ItemLog]) -> Log:
    """The log with the fields that its events take from items.

    Raises:
        ValueError: the join names a log or a field that is not there.
    """
    if log.join is None:
        return log
    join, where = log.join, "join" if name == MAIN else f"logs.{name}.join"
    if log.kind != "events":
        raise ValueError(f"{where}: only events take attributes of items")
    if join.log not in items:
        known = list(items)
        raise ValueError(
            f"{where}.log: no log '{join.log}' of kind items; available: {known}{nearest(join.log, known)}"
        )
    own = [field.name for field in log.fields.categorical]
    if join.on not in own:
        raise ValueError(f"{where}.on: no category '{join.on}'; available: {own}{nearest(join.on, own)}")
    known = items[join.log].fields.names()
    for field in join.take:
        if join.take.count(field) > 1:
            raise ValueError(f"{where}.take: '{field}' is named twice")
        if field not in known:
            raise ValueError(f"{where}.take: no field '{field}' of items; available: {known}{nearest(field, known)}")
        if field in log.fields.names():
            raise ValueError(f"{where}.take: '{field}' is a field of the events already; rename one of them")
    _check_dedupe(log, name)
    fields = {
        kind: [*getattr(log.fields, kind), *(f for f in getattr(items[join.log].fields, kind) if f.name in join.take)]
        for kind in ("categorical", "numeric")
    }
    return log.model_copy(update={"fields": log.fields.model_copy(update=fields)})


def _check_dedupe(log: Log, name: str) -> None:
    """Check that duplicates are told by columns of the log itself: they are dropped before a join."""
    for column in log.dedupe.columns:
        if column not in log.columns:
            where = "" if name == MAIN else f"logs.{name}."
            hint = nearest(column, log.columns)
            place = f"{where}dedupe.{log.dedupe.key_of(column)}"
            raise ValueError(f"{place}: '{column}' is not an event column; available: {log.columns}{hint}")


def check_item_logs(logs: Mapping[str, ItemLog]) -> None:
    """Check that attributes of items from several logs can be one table.

    Raises:
        ValueError: naming the log and the field.
    """
    met: dict[str, str] = {}
    for name, log in logs.items():
        for column in log.dedupe.columns:
            if column not in log.columns:
                hint = nearest(column, log.columns)
                where = f"logs.{name}.dedupe.{log.dedupe.key_of(column)}"
                raise ValueError(f"{where}: '{column}' is not a column of items; available: {log.columns}{hint}")
        if not log.fields.values:
            raise ValueError(f"logs.{name}.fields: attributes of no field; expected a categorical or numeric one")
        for category in log.fields.categorical:
            if category.separator:
                raise ValueError(
                    f"logs.{name}.fields: '{category.name}' has a separator; only attributes of users (kind: "
                    "attributes) may be a set of values"
                )
        for field in log.fields.names():
            if met.setdefault(field, name) != name:
                raise ValueError(f"logs.{name}.fields: '{field}' is a field of {met[field]}, too; rename one of them")


def check_logs(logs: Mapping[str, Log]) -> None:
    """Check that the events of several logs can be one table; the first log is the main one.

    Raises:
        ValueError: naming the log and the field.
    """
    main = next(iter(logs.values()))
    met: dict[str, tuple[str, Categorical | Numeric]] = {}
    for name, log in logs.items():
        where = "" if name == MAIN else f"logs.{name}."
        _check_dedupe(log, name)
        if log.kind == "attributes" and not log.fields.values:
            raise ValueError(f"{where}fields: attributes of no field; expected a categorical or numeric one")
        if log.kind == "events" and not log.fields.event_time.column:
            raise ValueError(f"{where}fields.event_time.column: required for events")
        if log.fields.user_id.type != main.fields.user_id.type:
            raise ValueError(
                f"{where}fields.user_id.type: '{log.fields.user_id.type}', but the main log's users are "
                f"'{main.fields.user_id.type}'; logs of the same users have ids of one type"
            )
        for category in log.fields.categorical:
            if category.separator and log.kind != "attributes":
                raise ValueError(
                    f"{where}fields: '{category.name}' has a separator; only attributes of users (kind: attributes) "
                    "may be a set of values"
                )
        for field in log.fields.values:
            other, same = met.setdefault(field.name, (name, field))
            if other != name and "attributes" in (log.kind, logs[other].kind):
                raise ValueError(
                    f"{where}fields: '{field.name}' is a field of {other}, too; an attribute's name is its own"
                )
            if other != name and _stored(field) != _stored(same):
                raise ValueError(
                    f"{where}fields: '{field.name}' is another kind of field, or has another step, in {other}"
                )


def _stored(field: Categorical | Numeric) -> tuple[Any, ...]:
    """The settings that two fields of one column must share."""
    return (field.step, field.transform) if isinstance(field, Numeric) else ()


def chosen_logs(known: list[str], names: Sequence[str]) -> Sequence[str]:
    """The logs that ``--log`` names, or all of them where it names none.

    Raises:
        ConfigError: there is no log of a name.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"--log {name}: no such log; available: {known}{nearest(name, known)}")
    return names or known
