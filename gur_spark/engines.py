"""Engine of a session, for the few places where engines differ."""

from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_on_sail: "WeakSet[SparkSession]" = WeakSet()


def mark_sail(session: "SparkSession") -> None:
    """Remember that a session computes on Sail, which a session itself does not tell."""
    _on_sail.add(session)


def is_sail(session: "SparkSession") -> bool:
    """Whether a session computes on Sail, which must not commit to Delta and reads some texts otherwise than Spark."""
    return session in _on_sail
