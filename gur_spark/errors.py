"""What the jobs say when they cannot go on.

Every message names what was expected, what came and what is available, so that
the engineer who reads it in a scheduler's log can act on it without the code.
"""

from collections.abc import Sequence
from difflib import get_close_matches


class GurError(Exception):
    """Base of every error the package raises on purpose; a job exits with ``exit_code``."""

    exit_code = 1


class ConfigError(GurError):
    """The configuration cannot be used; nothing was started."""

    exit_code = 2


class SourceError(GurError):
    """The raw source cannot be read as the configuration describes it."""


class TooManyBadRows(GurError):
    """The share of rejected rows is above ``source.max_bad_share``; nothing was published."""


class TableError(GurError):
    """A table is missing, or a frame does not keep the table's contract."""


class WriteConflict(TableError):
    """Another run wrote to the table at the same time; nothing of this one was written."""


class SnapshotError(GurError):
    """A snapshot is missing, empty, or not the one a model was trained on."""


class BaseSnapshotError(SnapshotError):
    """No earlier snapshot can be the base of an incremental one; the message says why."""


class AggregateOverflow(GurError):
    """An exact integer sum left its range; the message names the field and the user."""


class TrainingError(GurError):
    """Training cannot start or went wrong (no rows, a loss that is not finite)."""


class ModelError(GurError):
    """A model version is missing, damaged, or does not fit the snapshot it is asked to score."""


class GateError(GurError):
    """Embeddings did not pass a gate; consumers read what they read before. ``outcomes`` are those of all gates."""

    def __init__(self, message: str, outcomes: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.outcomes = outcomes


class MissingExtra(GurError):
    """A library of an optional extra is asked for, and is not installed."""


class ConsumerError(GurError):
    """What a consumer asks of the embeddings cannot be given (an unknown user or metric, a folder that is taken)."""


class TrackingError(GurError):
    """A model version could not be logged to MLflow; it is registered in ``models`` all the same."""


class EvaluationError(GurError):
    """A report cannot be made (one class only, a future window that is not complete)."""


def nearest(name: str, known: list[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string."""
    close = get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
