"""The job ``train``: snapshots of some dates become a registered model version."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import ModelError, SnapshotError, TrainingError
from gur_spark.events.vocabulary import Vocabulary, read_vocabulary
from gur_spark.models.catalogue import find
from gur_spark.models.kind import Artefact, Capability, Kind, TrainingInputs, VocabularyRef, seen_until
from gur_spark.models.preparation import Preparation
from gur_spark.registry.artefact import Origin, load_model
from gur_spark.registry.known import find_model, register
from gur_spark.registry.published import published
from gur_spark.snapshots.horizon import check_cutoff
from gur_spark.snapshots.visible import Snapshot
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account, kept_on_failure
from gur_spark.training.version import TrainedVersion, train_version


def train_model(tables: Tables, config: Config, dates: Sequence[date], align_to: str | None = None) -> TrainedVersion:
    """Train on the snapshots of these dates and append the version's row to ``models``.

    The row comes last. A killed run leaves no version, but checkpoints from which the next run continues. The row of a
    failed run names the snapshots.

    Args:
        align_to: a version, or ``published``, with the space that the embeddings are moved into.

    Raises:
        ModelError: there is no such version, or it cannot be aligned to.
        SnapshotError: a snapshot is missing or damaged, or has other columns than the configuration, or they do not
            share a vocabulary.
        TrainingError: there is nothing to train on, a date reaches past ``training.cutoff``, or training failed.
    """
    kind = find(config.model.kind)
    if not dates:
        raise TrainingError("no snapshot to train on: name as-of dates with --as-of or training.as_of")
    check_cutoff(dates, config.model.looks_ahead_days(), config.training.cutoff, TrainingError)
    snapshots = [find_snapshot(tables, config, day, kind.reads) for day in sorted(dates)]
    with kept_on_failure(Account(inputs={f"snapshot {snapshot.as_of}": snapshot.path for snapshot in snapshots})):
        return _train(tables, config, kind, snapshots, align_to)


def account(made: TrainedVersion) -> Account:
    """Entries for the row of the run that trained a version."""
    snapshots = zip(made.card.training_dates, made.card.training_snapshots, strict=True)
    counted = [name for name in ("train_rows", "validation_rows", "epochs") if name in made.metrics]
    return Account(
        inputs={f"snapshot {day}": path for day, path in snapshots},
        counts={name: int(made.metrics[name]) for name in counted},
        outputs={"model_version": made.version, "path": made.path},
    )


def _train(
    tables: Tables, config: Config, kind: Kind, snapshots: Sequence[Snapshot], align_to: str | None
) -> TrainedVersion:
    older = _older(tables, config, kind, align_to) if align_to else None
    vocabulary = _vocabulary(tables, snapshots)
    preparation = Preparation(tables=tables, config=config, snapshots=snapshots, vocabulary=vocabulary)
    folders = kind.prepare(preparation)
    paths = tuple(snapshot.path for snapshot in snapshots)
    inputs = TrainingInputs(
        snapshots=paths,
        folders=folders,
        vocabulary=VocabularyRef(version=vocabulary.version, hash=vocabulary.hash, sizes=vocabulary.sizes),
        model=config.model,
        training=config.training,
        align_to=older,
        prepared=kind.count(preparation, folders),
        texts=vocabulary.texts,
    )
    origin = Origin(
        snapshots=paths,
        dates=tuple(str(snapshot.as_of) for snapshot in snapshots),
        seen_until=seen_until([snapshot.as_of for snapshot in snapshots], config.model),
        code_commit=code_commit(),
    )
    work, out = checkpoint_folder(tables), tables.folder("artefacts")
    with ExitStack() as lock:
        made = train_version(kind, inputs, origin, work, out, progress=sys.stderr.isatty(), lock=lock)
        register(tables, config.name, made.card, made.path, made.manifest_hash, inputs.vocabulary, made.metrics)
        if made.checkpoints:
            storage.remove_folder(made.checkpoints)
    return made


def _older(tables: Tables, config: Config, kind: Kind, align_to: str) -> Artefact:
    """Load the version to align to.

    Raises:
        ModelError: there is none, it is of another kind, or the kind cannot be aligned.
    """
    if Capability.ALIGNMENT not in kind.can:
        raise ModelError(
            f"--align-to: kind '{kind.name}' cannot be aligned to an older version; name that version in "
            "scoring.in_space_of instead, and its consumers read mapped embeddings"
        )
    if align_to == "published" and published(tables, config.name) is None:
        raise ModelError(
            f"--align-to published: nothing is published for pipeline '{config.name}'; name a version, or train without"
        )
    older = load_model(find_model(tables, config, None if align_to == "published" else align_to).path)
    if older.kind.name != kind.name:
        raise ModelError(f"--align-to {older.version}: it is of kind '{older.kind.name}', expected '{kind.name}'")
    return older.artefact


def _vocabulary(tables: Tables, snapshots: Sequence[Snapshot]) -> Vocabulary:
    """Read the one vocabulary of all snapshots.

    Raises:
        SnapshotError: they were encoded with different ones, or with one that no longer exists.
    """
    first = snapshots[0]
    for other in snapshots[1:]:
        if other.vocabulary_hash != first.vocabulary_hash:
            raise SnapshotError(
                f"snapshots {first.as_of} and {other.as_of} were encoded with different vocabularies "
                f"(versions {first.vocabulary_version} and {other.vocabulary_version}); make them with one"
            )
    vocabulary = read_vocabulary(tables, first.vocabulary_version)
    if vocabulary.hash != first.vocabulary_hash:
        raise SnapshotError(
            f"vocabulary version {vocabulary.version} has hash {vocabulary.hash}, the snapshots were encoded with "
            f"{first.vocabulary_hash}; make them again"
        )
    return vocabulary


def checkpoint_folder(tables: Tables) -> str:
    """Return the folder of checkpoints: beside the tables, or on this machine if the tables are in a store."""
    if storage.is_local(tables.root):
        return tables.folder("checkpoints")
    return str(Path.home() / ".cache" / "gur_spark" / "checkpoints")


def code_commit() -> str | None:
    """Read the commit of the checkout that runs; None for an installed wheel, or without git."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists() or not shutil.which("git"):
        return None
    asked = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None
