"""Names and types of every table, and the ids that every vocabulary shares.

The Spark side and the torch side meet in Parquet, this module and the manifests; it imports neither.
"""

import re
from collections.abc import Sequence

PADDING_ID, UNKNOWN_ID, MISSING_ID, FIRST_VALUE_ID = 0, 1, 2, 3
"""Category ids: padding, unknown or rare, missing, then the vocabulary's values."""

VALUE_ID = 1
"""In a sequence's ``<number>_missing``: the event has the number; ``MISSING_ID`` where it has not."""

NUMERIC_STATISTICS = ("count", "sum", "mean", "std", "min", "max")

MAX_STEPS = 2**43
"""Largest stored number, in steps: its square still fits the kernel's two limbs."""

FUTURE_EVENTS = "future_events"
"""Of a training pair: events in the days from the snapshot's date on."""

VIEWS = (1, 2)
"""Of a training pair: the numbers of the other looks at its user."""

SQL_USER_ID = {"long": "BIGINT", "string": "STRING"}

QUARANTINE = "landed_on DATE, source STRING, source_file STRING, reason STRING, field STRING, raw STRING"
"""One rejected raw row (or, with a null ``raw``, one broken file); ``source`` is the name of its log."""
VOCABULARY = "field STRING, value STRING, id INT, count BIGINT, version INT, hash STRING, created TIMESTAMP"
SNAPSHOTS = (
    "form STRING, as_of DATE, known_at TIMESTAMP, path STRING, manifest_hash STRING, vocabulary_version INT, "
    "vocabulary_hash STRING, lineage STRING, rows BIGINT, checksum STRING, run_id STRING, created TIMESTAMP"
)
MODELS = (
    "model_version STRING, path STRING, pipeline STRING, kind STRING, upstream STRING, outputs ARRAY<STRING>, "
    "manifest_hash STRING, vocabulary_version INT, "
    "vocabulary_hash STRING, training_snapshots ARRAY<STRING>, metrics MAP<STRING, DOUBLE>, "
    "aligned_to STRING, code_commit STRING, created TIMESTAMP"
)
PUBLISHED = (
    "name STRING, model_version STRING, as_of DATE, outputs ARRAY<STRING>, switched_at TIMESTAMP, switched_by STRING, "
    "reason STRING"
)
DRIFT = (
    "as_of DATE, kind STRING, subject STRING, measure STRING, value DOUBLE, warn_above DOUBLE, alert_above DOUBLE, "
    "status STRING, reference STRING, run_id STRING"
)
RUNS = (
    "run_id STRING, job STRING, parameters MAP<STRING, STRING>, inputs MAP<STRING, STRING>, "
    "counts MAP<STRING, BIGINT>, outputs MAP<STRING, STRING>, started TIMESTAMP, seconds DOUBLE, "
    "status STRING, error STRING"
)

ALIKE = {
    "quarantine": QUARANTINE, "vocabulary": VOCABULARY, "snapshots": SNAPSHOTS, "models": MODELS,
    "published": PUBLISHED, "drift": DRIFT, "runs": RUNS,
}  # fmt: skip
"""Of the tables that are the same in every pipeline."""


def column_names(sql: str) -> list[str]:
    """The names in a schema such as those above."""
    return re.findall(r"([a-z_]+) [A-Z]", sql)


def events_schema(
    user_id_type: str, categorical: Sequence[str], numeric: Sequence[str], several_logs: bool = False
) -> str:
    """One accepted event: categories as text, numbers as whole counts of their step; of several logs, its ``source``.

    A row of user attributes is one, too: ``event_time`` is from when on it holds.
    """
    columns = [f"user_id {SQL_USER_ID[user_id_type]}", "event_time TIMESTAMP", "landed_on DATE"]
    columns += ["source STRING"] if several_logs else []
    columns += [f"{name} STRING" for name in categorical]
    columns += [f"{name} BIGINT" for name in numeric]
    return ", ".join(columns)


def items_schema(categorical: Sequence[str], numeric: Sequence[str]) -> str:
    """What a row of a log of items says: from ``valid_from`` on, an item has these attributes.

    Categories are text, and numbers whole counts of their step. ``source`` is the name of the log.
    """
    columns = ["item STRING", "valid_from TIMESTAMP", "landed_on DATE", "source STRING"]
    columns += [f"{name} STRING" for name in categorical]
    columns += [f"{name} BIGINT" for name in numeric]
    return ", ".join(columns)


def predictions_schema(user_id_type: str) -> str:
    """One probability per (user_id, as_of, model_version); ``trained_on`` is the version that its model learned on."""
    return (
        f"user_id {SQL_USER_ID[user_id_type]}, as_of DATE, model_version STRING, trained_on STRING, probability DOUBLE"
    )


def future_columns(field: str) -> tuple[str, str]:
    """Of a training pair: the ids and counts of a categorical field in the days from the snapshot's date on."""
    return f"future_{field}_ids", f"future_{field}_counts"


def view_column(number: int, name: str) -> str:
    """Of a training pair: a column of the aggregates in another look at the user."""
    return f"view{number}_{name}"
