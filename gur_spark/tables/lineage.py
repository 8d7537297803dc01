"""Lineage: the origin of a snapshot's rows, a value of the table ``snapshots``."""

import re
from dataclasses import dataclass

from gur_spark.errors import TableError

_TEXT = re.compile(r"events (?P<events_id>\S+) version (?P<version>\d+)(?:, users (?P<users>.+))?")


@dataclass(frozen=True)
class Lineage:
    """One version of one events table and, where only some users are wanted, the list of them."""

    events_id: str
    """Identity of the table. A new table in the same place has another one."""
    events_version: int
    users: str | None = None
    """Path of the users list."""

    def __str__(self) -> str:
        users = f", users {self.users}" if self.users else ""
        return f"events {self.events_id} version {self.events_version}{users}"

    @classmethod
    def parse(cls, text: str) -> "Lineage":
        """Read what ``str`` wrote.

        Raises:
            TableError: the text is no lineage.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise TableError(f"expected a lineage such as 'events ID version 3', got '{text}'")
        return cls(found["events_id"], int(found["version"]), found["users"])
