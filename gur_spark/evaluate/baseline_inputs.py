"""The sequences that pytorch-lifestream's baselines are made from, written for one report and removed after it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.snapshots.sequences import write_sequences
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


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
    run = Run(id=uuid4().hex, job="evaluate", parameters={})
    vocabulary = snapshots[0].vocabulary_version
    # Of a run that is killed, `clean` takes what is staged.
    staging = tables.folder("_staging", run.id)
    write = partial(write_sequences, tables, config, run=run, vocabulary_version=vocabulary, parent=staging)
    try:
        asked = {s.as_of: write(as_of=s.as_of, known_at=s.known_at)[0] for s in snapshots}
        yield Folders(tuple(asked.values()), asked[cutoff] if cutoff in asked else write(as_of=cutoff)[0])
    finally:
        storage.remove_folder(staging)
