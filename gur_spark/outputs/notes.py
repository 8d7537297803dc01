"""Notes in the history of an output's table: the rows of each commit, and the data that they were made from.

A note is part of the commit. So rows and their origin stay together, even if a run is killed or another run writes at
the same time.
"""

import json
from dataclasses import dataclass
from datetime import date

from gur_spark.tables.delta import Commit


@dataclass(frozen=True, kw_only=True)
class Note:
    """Note of a commit on the rows that it replaced."""

    model_version: str
    as_of: date
    snapshot: str | None = None
    """Folder of the snapshot that the rows were made from."""
    lineage: str | None = None
    """Lineage of that snapshot."""
    mapped_from: str | None = None
    """The version with the rows that these were mapped from (``gur_spark.spaces.maps``)."""

    def to_json(self) -> str:
        known = {name: value for name, value in vars(self).items() if value is not None}
        return json.dumps({**known, "as_of": self.as_of.isoformat()})


def read_note(commit: Commit) -> Note | None:
    """Read the note of a commit; None for a commit of any other writer."""
    try:
        said = json.loads(commit.note or "")
        return Note(**{**said, "as_of": date.fromisoformat(said["as_of"])})
    except (ValueError, KeyError, TypeError):
        return None
