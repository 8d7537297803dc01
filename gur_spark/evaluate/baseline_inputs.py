"""Sequences for the baselines of one report. They are removed after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from uuid import uuid4

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.config.snapshots import Sequences
from gur_spark.features.declare.windows import Window
from gur_spark.models.kind import VocabularyRef
from gur_spark.snapshots.files import read_vocabulary_ref
from gur_spark.snapshots.sequences import write_sequences
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables


@dataclass(frozen=True, kw_only=True)
class SequenceFolders:
    """Folders of sequences, encoded with the vocabulary of the evaluated snapshots."""

    by_date: tuple[str, ...]
    """One folder per evaluated date, with the events that were known then."""
    trained_on: str
    """The folder at the cutoff of training; the folder of the first date where the two are the same."""
    vocabulary: VocabularyRef
    work: str
    """A folder for everything else that a baseline writes."""


@contextmanager
def sequence_folders(tables: Tables, config: Config, snapshots: Sequence[Snapshot]) -> Iterator[SequenceFolders]:
    """Write the sequences, and remove them at the end.

    Baselines that learn from sequences see no event at or after ``training.cutoff`` (the first date of scoring and
    evaluation), nor after the first evaluated date.

    Raises:
        SnapshotError: nobody had an event before one of the dates.
        ConfigError: a field has a name that means something else to pytorch-lifestream.
    """
    first = min(snapshot.as_of for snapshot in snapshots)
    cutoff = min(config.training_cutoff or first, first)
    # A killed run leaves its folder under ``_staging``, and ``clean`` removes it.
    work = tables.folder("_staging", uuid4().hex)
    # Baselines see what raw windows see: every event of the longest window, whatever the pipeline's own sequences hold.
    longest = Sequences(window=Window.of(config.aggregates.windows[-1]), max_events=None)
    config = config.model_copy(update={"sequences": longest})

    def write(as_of: date, known_at: datetime | None = None) -> str:
        folder = storage.join(work, as_of.isoformat())
        return write_sequences(tables, config, as_of, folder, snapshots[0].vocabulary_version, known_at).path

    try:
        by_date = {snapshot.as_of: write(snapshot.as_of, snapshot.known_at) for snapshot in snapshots}
        trained_on = by_date[cutoff] if cutoff in by_date else write(cutoff)
        yield SequenceFolders(
            by_date=tuple(by_date.values()),
            trained_on=trained_on,
            vocabulary=read_vocabulary_ref(trained_on),
            work=storage.join(work, "coles"),
        )
    finally:
        storage.remove_folder(work)
