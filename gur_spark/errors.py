"""Errors that the package raises on purpose.

Every message names what was expected, what came and what is available, so that an engineer who reads it in a
scheduler's log can act on it without the code.
"""

from collections.abc import Sequence
from difflib import get_close_matches


class GurError(Exception):
    """Base class of these errors."""

    exit_code = 1
    """Exit code of the job."""


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
    """No snapshot can serve as the base of an incremental run; the message has the reason for each candidate."""


class AggregateOverflow(GurError):
    """An exact integer sum left its range; the message names the field and the user."""


class TrainingError(GurError):
    """Training cannot start or went wrong (no rows, a loss that is not finite)."""


class ModelError(GurError):
    """A model version is missing, damaged, or does not fit the snapshot that it should score."""


class GateError(GurError):
    """A gate refused a version, and consumers read what they read before.

    ``outcomes`` has the outcomes of all gates.
    """

    def __init__(self, message: str, outcomes: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.outcomes = outcomes


class MissingExtra(GurError):
    """A library of an optional extra is needed and not installed."""


class ConsumerError(GurError):
    """A consumer's request cannot be served: an unknown user or metric, a folder with other contents."""


class TrackingError(GurError):
    """A model version could not be logged to MLflow; it is registered in ``models`` all the same."""


class EvaluationError(GurError):
    """A report cannot be made: labels of one class only, a future window that is not complete."""


def nearest(name: str, known: list[str]) -> str:
    """Hint ``"; did you mean 'x'?"`` at the closest known name, or an empty text."""
    close = get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
