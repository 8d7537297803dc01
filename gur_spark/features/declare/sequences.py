"""Manifests of sequences and of interactions, made from the fields of logs."""

from collections.abc import Collection, Sequence

from gur_spark.errors import ConfigError
from gur_spark.features.declare.manifest import (
    ID_UNIT,
    SECONDS,
    InteractionColumn,
    InteractionManifest,
    Manifest,
    NumericField,
    SequenceColumn,
    SequenceManifest,
    missing_column,
)
from gur_spark.features.declare.windows import Window
from gur_spark.schema import MISSING_ID, PADDING_ID, UNKNOWN_ID, VALUE_ID


def sequence_manifest(
    manifest: Manifest, window: Window, max_events: int | None = None, fields: Collection[str] | None = None
) -> SequenceManifest:
    """The manifest of sequences of the events whose aggregates have ``manifest``.

    Args:
        window: the days whose events are in the lists.
        max_events: greatest number of events of a user, the newest ones; None: all events.
        fields: the categories and numbers that are taken; None: all of them.

    Raises:
        ConfigError: pytorch-lifestream takes a field's name for something else, or the name is that of another column.
    """
    columns = [
        SequenceColumn(name="user_id", dtype=manifest.user_id_type, unit="", meaning="the user"),
        SequenceColumn(name="as_of", dtype="long", unit=SECONDS, meaning="midnight before which the events are"),
        SequenceColumn(name="event_time", dtype="array<long>", unit=SECONDS, meaning="time of the event, ascending"),
    ]
    if manifest.logs:
        columns.append(_source([entry.name for entry in manifest.logs]))
    columns += [
        _category(name, bool(manifest.logs)) for name in manifest.categorical if fields is None or name in fields
    ]
    for number in manifest.numeric:
        if fields is None or number.name in fields:
            columns += _number(number)
    _check_names([column.name for column in columns])
    return SequenceManifest(
        user_id_type=manifest.user_id_type, window=window, max_events=max_events, columns=tuple(columns)
    )


def _source(logs: Sequence[str]) -> SequenceColumn:
    meaning = "log of the event: " + ", ".join(f"{number} {name}" for number, name in enumerate(logs, 1))
    return SequenceColumn(name="source", dtype="array<int>", unit="id", meaning=meaning, ids=len(logs) + 1)


def _category(name: str, several_logs: bool) -> SequenceColumn:
    without = f"; {PADDING_ID}: its log has no such field" if several_logs else ""
    meaning = f"{name}; {UNKNOWN_ID}: unknown or rare, {MISSING_ID}: missing{without}"
    return SequenceColumn(name=name, dtype="array<int>", unit=ID_UNIT, meaning=meaning)


def _number(field: NumericField) -> tuple[SequenceColumn, SequenceColumn]:
    value = field.name if field.transform == "none" else f"{field.transform}({field.name})"
    meaning = f"{value} in steps of {field.step}; 0 where missing"
    there = f"{VALUE_ID}: {field.name} is there, {MISSING_ID}: it is missing"
    return (
        SequenceColumn(name=field.name, dtype="array<double>", unit=value, meaning=meaning),
        SequenceColumn(
            name=missing_column(field.name), dtype="array<int>", unit="id", meaning=there, ids=MISSING_ID + 1
        ),
    )


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name.startswith("target") or name == "trans_time":
            kind = "a time of its own" if name == "trans_time" else "no sequence but a label"
            raise ConfigError(f"field '{name}': pytorch-lifestream takes it for {kind}; rename the field for sequences")
        if names.count(name) > 1:
            raise ConfigError(f"two columns of the sequences would be named '{name}'; rename the field")


def interaction_manifest(manifest: Manifest, field: str, window: Window) -> InteractionManifest:
    """The manifest of interactions of the events whose aggregates have ``manifest``; ``field`` names the item."""
    item = f"{field}; {UNKNOWN_ID}: all unknown or rare ones together"
    columns = (
        InteractionColumn(name="user_id", dtype=manifest.user_id_type, unit="", meaning="the user"),
        InteractionColumn(name="as_of", dtype="date", unit="UTC", meaning="midnight before which the events are"),
        InteractionColumn(name="item", dtype="int", unit=ID_UNIT, meaning=item),
        InteractionColumn(name="count", dtype="long", unit="events", meaning=f"the user's events {window.meaning}"),
        InteractionColumn(name="first_time", dtype="timestamp", unit="UTC", meaning="time of the first of them"),
        InteractionColumn(name="last_time", dtype="timestamp", unit="UTC", meaning="time of the last of them"),
    )
    return InteractionManifest(user_id_type=manifest.user_id_type, window=window, field=field, columns=columns)
