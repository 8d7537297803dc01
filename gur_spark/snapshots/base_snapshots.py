"""The base snapshot of the incremental route: an earlier snapshot that a date's aggregates can be made from.

A full run with ``aggregates.incremental_days: 6`` saves a state for the next six days. These read only the events that
came since and save nothing, so a week is one full run and six short ones.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from gur_spark.errors import BaseSnapshotError, TableError
from gur_spark.features.kernel.state_files import SavedState
from gur_spark.features.spark.selection import last_landing
from gur_spark.models.kind import Form
from gur_spark.snapshots.visible import Snapshot, is_whole
from gur_spark.tables.delta import Commit, Tables
from gur_spark.tables.lineage import Lineage

LONGEST = 31
"""The greatest ``aggregates.incremental_days``."""

_OF_A_LOG = re.compile(r"source = '\w+' AND ")
_LANDINGS = re.compile(r"landed_on (?:IN \((?P<several>.+)\)|= (?P<one>.+))")
_DAY = re.compile(r"(?:DATE ?)?'(\d{4}-\d{2}-\d{2})'(?:::date)?")


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Inputs that a base snapshot must share."""

    manifest_hash: str
    vocabulary: tuple[int, str]
    """Version and hash."""
    events_id: str
    events_version: int


@dataclass(frozen=True)
class Base:
    """A base snapshot with its saved state."""

    snapshot: Snapshot
    kept: SavedState


def find_base(tables: Tables, visible: Sequence[Snapshot], needed: Needed, as_of: date, known_at: datetime) -> Base:
    """The newest snapshot before ``as_of`` that can be the base: all its events are among the date's events.

    Raises:
        BaseSnapshotError: there is none; the message says, for each snapshot with a saved state, why not.
    """
    reasons = []
    for snapshot, kept in _candidates(visible, as_of):
        try:
            if isinstance(kept, BaseSnapshotError):
                raise kept
            _check(tables, snapshot, kept, needed, as_of, known_at)
            return Base(snapshot, kept)
        except (BaseSnapshotError, TableError) as error:
            reasons.append(f"{snapshot.as_of} (known at {snapshot.known_at:%Y-%m-%d %H:%M}): {error}")
    raise BaseSnapshotError(
        f"no snapshot before {as_of} can be the base: "
        + ("; ".join(reasons) or "none has a saved state (a full run with aggregates.incremental_days saves one)")
    )


def _candidates(visible: Sequence[Snapshot], as_of: date) -> Iterator[tuple[Snapshot, SavedState | BaseSnapshotError]]:
    """Snapshots of aggregates that have a saved state, or should have one, newest first."""
    aggregates = [s for s in visible if s.form == Form.AGGREGATES]
    near = [s for s in aggregates if timedelta(0) < as_of - s.as_of <= timedelta(LONGEST)]
    for snapshot in sorted(near, key=lambda s: s.key, reverse=True):
        try:
            kept = SavedState.read(snapshot.path)
            if kept is not None:
                yield snapshot, kept
        except BaseSnapshotError as error:
            yield snapshot, error


def _check(tables: Tables, base: Snapshot, kept: SavedState, needed: Needed, as_of: date, known_at: datetime) -> None:
    """Refuse a base, by raising BaseSnapshotError, that is too old, knows too much or was made otherwise."""
    if (as_of - base.as_of).days > kept.horizon:
        raise BaseSnapshotError(f"its state is for the {kept.horizon} days after it")
    if base.known_at > known_at:
        raise BaseSnapshotError(f"it counts landings that are not known at {known_at:%Y-%m-%d %H:%M}")
    if base.manifest_hash != needed.manifest_hash:
        raise BaseSnapshotError(f"its manifest is {base.manifest_hash}, expected {needed.manifest_hash}")
    if (base.vocabulary_version, base.vocabulary_hash) != needed.vocabulary:
        raise BaseSnapshotError(f"its vocabulary is version {base.vocabulary_version}, expected {needed.vocabulary[0]}")
    _check_events(tables, base, kept, needed)
    if not is_whole(base):
        raise BaseSnapshotError("its files are not those that were written")


def _check_events(tables: Tables, base: Snapshot, kept: SavedState, needed: Needed) -> None:
    """Refuse a base if landings that it counted were written again since, or may have been."""
    made_from = Lineage.parse(kept.lineage)
    if made_from.events_id != needed.events_id:
        raise BaseSnapshotError("it was made from another events table")
    version, last = made_from.events_version, last_landing(base.known_at)
    if version > needed.events_version:
        raise BaseSnapshotError(f"it was made from events version {version}, wanted is {needed.events_version}")
    for commit in tables.commits("events", version, needed.events_version):
        if commit.harmless:
            continue
        landings = written_landings(commit)
        if landings is None:
            raise BaseSnapshotError(f"events version {commit.version} ({commit.operation}) may have changed any row")
        known = sorted(day for day in landings if day <= last)
        if known:
            raise BaseSnapshotError(
                f"landing {known[0]}, which it counted, was replaced in events version {commit.version}"
            )


def written_landings(commit: Commit) -> list[date] | None:
    """The landings that a commit of ``ingest`` replaced; None for another kind of commit."""
    if commit.operation != "WRITE" or not commit.predicate:
        return None
    # Engines write the predicate in different ways: delta-rs puts two or three alternatives in brackets.
    bare = _OF_A_LOG.sub("", commit.predicate, count=1)
    alternatives = (bare[1:-1] if bare.startswith("(") else bare).split(" OR ")
    found = [_LANDINGS.fullmatch(part) for part in alternatives]
    texts = [text for part in found if part for text in (part["several"] or part["one"]).split(",")]
    days = [_DAY.fullmatch(text.strip()) for text in texts]
    return [date.fromisoformat(day[1]) for day in days if day] if all(found) and all(days) else None
