"""The sequences that pytorch-lifestream's baselines are made from, written for one report and removed after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from gur_spark import storage
from gur_spark.config import Config
from gur_spark.runs import Run
from gur_spark.sequences import write_sequences
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables import Tables


@dataclass(frozen=True)
class Folders:
    """Of sequences with the vocabulary of the evaluated snapshot."""

    asked: str
    """At its date, as it was known."""
    trained_on: str
    """At the cutoff of training; the same where that is the date."""


@contextmanager
def sequence_folders(tables: Tables, config: Config, snapshot: Snapshot) -> Iterator[Folders]:
    """Write them, and remove them at the end.

    What learns from sequences sees no event at or after the first date of scoring and evaluation
    (``training.cutoff``), nor after the date that it is judged at.

    Raises:
        SnapshotError: nobody had an event before one of the dates.
        ConfigError: a field has a name that means something else to pytorch-lifestream.
    """
    cutoff = min(config.training_cutoff or snapshot.as_of, snapshot.as_of)
    run = Run(id=uuid4().hex, job="evaluate", parameters={})
    vocabulary = snapshot.vocabulary_version
    # Of a run that is killed, `clean` takes what is staged.
    staging = tables.folder("_staging", run.id)
    write = partial(write_sequences, tables, config, run=run, vocabulary_version=vocabulary, parent=staging)
    try:
        trained_on = asked = write(as_of=snapshot.as_of, known_at=snapshot.known_at)[0]
        if cutoff != snapshot.as_of:
            trained_on = write(as_of=cutoff)[0]
        yield Folders(asked, trained_on)
    finally:
        storage.remove_folder(staging)
