"""The sequences that pytorch-lifestream's baselines are made from, written for one report and removed after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from uuid import uuid4

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.config.snapshots import Sequences
from gur_spark.features.declare.spec import Window
from gur_spark.snapshots.sequences import write_sequences
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables


@dataclass(frozen=True)
class Folders:
    """Of sequences with the vocabulary of the evaluated snapshots."""

    asked: tuple[str, ...]
    """At each date, as it was known."""
    trained_on: str
    """At the cutoff of training; that of the first date where this is the cutoff."""


@contextmanager
def sequence_folders(tables: Tables, config: Config, snapshots: Sequence[Snapshot]) -> Iterator[Folders]:
    """Write them, and remove them at the end.

    What learns from sequences sees no event at or after the first date of scoring and evaluation
    (``training.cutoff``), nor after the first date that it is judged at.

    Raises:
        SnapshotError: nobody had an event before one of the dates.
        ConfigError: a field has a name that means something else to pytorch-lifestream.
    """
    first = min(snapshot.as_of for snapshot in snapshots)
    cutoff = min(config.training_cutoff or first, first)
    vocabulary = snapshots[0].vocabulary_version
    everything = Sequences(window=Window(days=config.aggregates.windows[-1]), max_events=None)
    config = config.model_copy(update={"sequences": everything})
    # A killed run leaves its staging folder, which `clean` takes.
    staging = tables.folder("_staging", uuid4().hex)

    def write(as_of: date, known_at: datetime | None) -> str:
        folder = storage.join(staging, as_of.isoformat())
        return write_sequences(tables, config, as_of, folder, vocabulary, known_at).path

    try:
        asked = {s.as_of: write(s.as_of, s.known_at) for s in snapshots}
        yield Folders(tuple(asked.values()), asked[cutoff] if cutoff in asked else write(cutoff, None))
    finally:
        storage.remove_folder(staging)
