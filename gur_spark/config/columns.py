"""Columns that the sections of a configuration lead to: of ``events``, and of aggregates."""

from collections.abc import Iterable, Mapping, Sequence

from gur_spark.config.fields import Numeric
from gur_spark.config.logs import AnyLog, Log
from gur_spark.config.snapshots import Aggregates
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import AttributeField, LogFields, Manifest, NumericField
from gur_spark.features.declare.pivots import Pivoted


def categories(logs: Iterable[AnyLog]) -> list[str]:
    """Names of the categorical fields of these logs, each once."""
    return list(dict.fromkeys(field.name for log in logs for field in log.fields.categorical))


def numbers(logs: Iterable[AnyLog]) -> list[str]:
    """Names of the numeric fields of these logs, each once."""
    return list(dict.fromkeys(field.name for log in logs for field in log.fields.numeric))


def aggregates_manifest(
    aggregates: Aggregates, logs: Mapping[str, Log], pivots: Sequence[Pivoted] | None = None
) -> Manifest:
    """The manifest of the aggregates of these logs, the main one first.

    Args:
        pivots: the pivots with their values; None: they are not known, and the manifest lacks their columns.

    Raises:
        ValueError: a declared feature is about a field that no log has.
    """
    events = {name: log for name, log in logs.items() if log.kind == "events"}
    numeric = {field.name: field for log in events.values() for field in log.fields.numeric}
    several = len(logs) > 1
    return make_manifest(
        next(iter(logs.values())).fields.user_id.type,
        aggregates.windows,
        [_numeric(field) for field in numeric.values()],
        categories(events.values()),
        [*aggregates.features, *([p.pivoted(None) for p in aggregates.pivots] if pivots is None else pivots)],
        [LogFields(name=name, fields=tuple(log.fields.names())) for name, log in events.items()] if several else [],
        [field for name, log in logs.items() if log.kind == "attributes" for field in _attributes(name, log)],
    )


def _attributes(name: str, log: Log) -> list[AttributeField]:
    categorical = [
        AttributeField(name=field.name, log=name, separator=field.separator) for field in log.fields.categorical
    ]
    return categorical + [
        AttributeField(name=field.name, log=name, numeric=_numeric(field)) for field in log.fields.numeric
    ]


def _numeric(field: Numeric) -> NumericField:
    return NumericField(name=field.name, step=field.step, transform=field.transform)
