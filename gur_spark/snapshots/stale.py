"""Snapshots that were made before landings came, or came again, which they would count."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta

from gur_spark.config.logs import AnyLog
from gur_spark.config.pipeline import Config
from gur_spark.errors import GurError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.features.spark import selection
from gur_spark.models.kind import Form
from gur_spark.snapshots.visible import MADE_BY, Snapshot, visible_snapshots
from gur_spark.snapshots.wanted import wanted_manifest
from gur_spark.tables.delta import Tables

_DAY = timedelta(days=1)
_AHEAD = 2 * _DAY
"""Events may be a little ahead of the date of their landing."""


def stale_snapshots(tables: Tables, config: Config, landings: Collection[str]) -> list[Snapshot]:
    """The visible snapshots, of every form, that these landings, just ingested, may change.

    A landing is an ISO date, after the log's name and a space where it is a further one; another name is the whole log.

    A landing counts for a snapshot when it came before ``known_at`` and its events, which may be a little ahead of the
    landing's date, reach the window of the snapshot. The window is not asked where the snapshot has another manifest
    than the configuration. Attributes of users change aggregates alone, and attributes of items no snapshot.
    """
    if not tables.exists("snapshots"):
        return []
    reaches = _reaches(tables, config)

    def reach(snapshot: Snapshot) -> timedelta | None:
        return reaches.get((snapshot.form, snapshot.manifest_hash))

    visible = visible_snapshots(tables)
    return [s for s in visible if any(_may_change(landing, s, reach(s), config.logs) for landing in landings)]


def _reaches(tables: Tables, config: Config) -> dict[tuple[Form, str], timedelta | None]:
    """Time from the window's beginning to as_of (None: it begins at the first event), of snapshots as configured."""
    found = {}
    for form in Form:
        # There may be no section for the form, a name that it cannot have, or no value of a pivot.
        with suppress(GurError):
            wanted = wanted_manifest(tables, config, form)
            found[form, wanted.hash] = wanted.reach if isinstance(wanted, Manifest) else wanted.window.reach
    return found


def _may_change(landing: str, snapshot: Snapshot, reach: timedelta | None, logs: Mapping[str, AnyLog]) -> bool:
    """Whether a landing may change a snapshot that looks back so far; None: without end, or it is not known."""
    *log, last = landing.split(" ")
    kind = logs[log[0]].kind if log and log[0] in logs else "events"
    if kind == "items" or (kind == "attributes" and snapshot.form != Form.AGGREGATES):
        return False
    try:
        day = date.fromisoformat(last)
    except ValueError:
        return True
    # Attributes of a user may have held for any time.
    began = kind == "attributes" or reach is None or day >= snapshot.as_of + (-reach // _DAY) * _DAY - _AHEAD
    return began and selection.known_at(day, 0) < snapshot.known_at


def commands_for(tables: Tables, stale: Sequence[Snapshot], config: Config, vocabulary: int | None = None) -> list[str]:
    """The jobs, with options, that bring these snapshots up to date; of a usual one, without the moment.

    A snapshot of another manifest needs the configuration that it was made with; the line says so. The lines name the
    vocabulary if there are several.

    Args:
        vocabulary: the version that the jobs take by themselves, if it is known.
    """
    lines: list[str] = []
    wanted, forms = _reaches(tables, config), list(Form)
    several = len({s.vocabulary_version for s in stale} | ({vocabulary} - {None})) > 1
    groups = {(s.form, s.manifest_hash, s.vocabulary_version) for s in stale}
    for group in sorted(groups, key=lambda one: (one[:2] not in wanted, forms.index(one[0]), *one[1:])):
        form, manifest_hash, version = group
        alike = [s for s in stale if (s.form, s.manifest_hash, s.vocabulary_version) == group]
        encoded = f" --vocabulary {version}" if several else ""
        usual = [s for s in alike if is_usual(s, config.aggregates.delay_days)]
        jobs = [f"{MADE_BY[form]} --as-of {' '.join(str(s.as_of) for s in usual)}"] if usual else []
        jobs += [
            f"{MADE_BY[form]} --as-of {s.as_of} --known-at {s.known_at:%Y-%m-%dT%H:%M:%S.%f}"
            for s in alike
            if s not in usual
        ]
        other = "" if (form, manifest_hash) in wanted else f" (with the configuration of manifest {manifest_hash})"
        lines += [f"{job}{encoded}{other}" for job in jobs]
    return lines


def is_usual(snapshot: Snapshot, delay_days: int) -> bool:
    """Whether a snapshot is known at the configured delay (``aggregates.delay_days``)."""
    return snapshot.known_at == selection.known_at(snapshot.as_of, delay_days)
