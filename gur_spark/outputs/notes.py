"""What the history of an output's table keeps of each commit: which rows it wrote, and what they were made from.

The note is part of the commit, so rows and what they were made from cannot come apart, however often a run is killed or
raced by another.
"""

import json
from dataclasses import dataclass
from datetime import date

from gur_spark.tables.delta import Commit


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a commit says of the rows that it replaced."""

    model_version: str
    as_of: date
    snapshot: str | None = None
    """Folder of the snapshot that they were made from."""
    lineage: str | None = None
    """What that snapshot was made from."""
    mapped_from: str | None = None
    """The version whose rows they were mapped from (``gur_spark.spaces.maps``)."""

    def to_json(self) -> str:
        known = {name: value for name, value in vars(self).items() if value is not None}
        return json.dumps({**known, "as_of": self.as_of.isoformat()})


def read_note(commit: Commit) -> Note | None:
    """The note of a commit; None for a commit of anybody else, whatever it says."""
    try:
        said = json.loads(commit.note or "")
        return Note(**{**said, "as_of": date.fromisoformat(said["as_of"])})
    except (ValueError, KeyError, TypeError):
        return None
