"""Schemas of the tables, and the ids that all vocabularies share.

The Spark side and the torch side share Parquet, this module and the manifests. It imports neither Spark nor torch.
"""

import re
from collections.abc import Sequence

PADDING_ID, UNKNOWN_ID, MISSING_ID, FIRST_VALUE_ID = 0, 1, 2, 3
"""Ids of categories: padding, unknown or rare, missing, and the first of the vocabulary's values."""

VALUE_ID = 1
"""Value of ``<number>_missing`` in sequences where the event has the number; otherwise it is ``MISSING_ID``."""

MAX_STEPS = 2**43
"""Greatest stored number, in steps. Its square fits the two limbs of the kernel."""

SQL_USER_ID = {"long": "BIGINT", "string": "STRING"}
"""Declared type of user ids -> SQL type."""

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
    "name STRING, as_of DATE, kind STRING, subject STRING, measure STRING, value DOUBLE, warn_above DOUBLE, "
    "alert_above DOUBLE, status STRING, reference STRING, run_id STRING"
)
RUNS = (
    "run_id STRING, job STRING, parameters MAP<STRING, STRING>, inputs MAP<STRING, STRING>, "
    "counts MAP<STRING, BIGINT>, outputs MAP<STRING, STRING>, started TIMESTAMP, seconds DOUBLE, "
    "status STRING, error STRING"
)

FIXED_SCHEMAS = {
    "quarantine": QUARANTINE, "vocabulary": VOCABULARY, "snapshots": SNAPSHOTS, "models": MODELS,
    "published": PUBLISHED, "drift": DRIFT, "runs": RUNS,
}  # fmt: skip
"""Table -> schema, for tables that are the same in every pipeline."""


def column_names(sql: str) -> list[str]:
    """Names of the columns in a schema such as those above."""
    return re.findall(r"([a-z_]+) [A-Z]", sql)


def events_schema(
    user_id_type: str, categorical: Sequence[str], numeric: Sequence[str], several_logs: bool = False
) -> str:
    """Schema of ``events``: one row per accepted event, with categories as text and numbers as whole counts of steps.

    Where there are several logs, ``source`` is the name of the event's log. A row of user attributes is an event, too:
    ``event_time`` is the moment from which on it is valid.
    """
    columns = [f"user_id {SQL_USER_ID[user_id_type]}", "event_time TIMESTAMP", "landed_on DATE"]
    columns += ["source STRING"] if several_logs else []
    columns += [f"{name} STRING" for name in categorical]
    columns += [f"{name} BIGINT" for name in numeric]
    return ", ".join(columns)


def items_schema(categorical: Sequence[str], numeric: Sequence[str]) -> str:
    """Schema of ``items``: one row per item and ``valid_from``, the moment from which on its attributes are valid.

    Categories are text, and numbers are whole counts of steps. ``source`` is the name of the log.
    """
    columns = ["item STRING", "valid_from TIMESTAMP", "landed_on DATE", "source STRING"]
    columns += [f"{name} STRING" for name in categorical]
    columns += [f"{name} BIGINT" for name in numeric]
    return ", ".join(columns)


def predictions_schema(user_id_type: str) -> str:
    """Schema of ``predictions``: one probability per (user_id, as_of, model_version).

    ``trained_on`` is the version of the embeddings that the consumer's model was trained on.
    """
    return (
        f"user_id {SQL_USER_ID[user_id_type]}, as_of DATE, model_version STRING, trained_on STRING, probability DOUBLE"
    )
