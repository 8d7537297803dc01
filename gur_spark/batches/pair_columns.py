"""Names of the further columns of training pairs: aggregates with the future and other views of the user."""

FUTURE_EVENTS = "future_events"
"""Number of events in the days from the snapshot's date on."""

VIEWS = (1, 2)
"""Numbers of the user's other views."""


def future_columns(field: str) -> tuple[str, str]:
    """Ids and counts of a categorical field in the days from the snapshot's date on."""
    return f"future_{field}_ids", f"future_{field}_counts"


def view_column(number: int, name: str) -> str:
    """A column of the aggregates in another view of the user."""
    return f"view{number}_{name}"
