"""Train the GUR autoencoder on aggregate snapshots and register the model version."""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from gur_spark import cli, schema, storage
from gur_spark.batches.aggregates import Layout
from gur_spark.config.pipeline import Config
from gur_spark.errors import ModelError, SnapshotError
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.category_tables import counted_inputs
from gur_spark.models.gur.cooccurrence import Together
from gur_spark.models.gur.counting import count_on_spark
from gur_spark.models.gur.pairs import seen_until, write_pairs
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.gur.train import TrainedModel, train
from gur_spark.registry.known import ModelVersion, find_model
from gur_spark.registry.tracking import track
from gur_spark.serving.publishing import published
from gur_spark.snapshots.files import common_manifest
from gur_spark.snapshots.visible import Snapshot, find_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as-of", type=cli.day, nargs="+", metavar="DATE", help="snapshots to train on (default: training.as_of)"
    )

    parser.add_argument(
        "--align-to", metavar="VERSION", help="move the embeddings into the space of this version, or of `published`"
    )


def stage(tables: Tables, config: Config, args: argparse.Namespace, run: Run) -> None:
    train_model(tables, config, args.as_of or config.training.as_of, run, args.align_to)


def train_model(
    tables: Tables, config: Config, as_of: Sequence[date], run: Run, align_to: str | None = None
) -> TrainedModel:
    """Train on the snapshots of these dates and append the version's row to ``models``.

    The row comes last: a killed run leaves checkpoints, from which the next one continues, and no version.

    Args:
        align_to: a version, or ``published``, into whose space the embeddings are moved.

    Raises:
        ModelError: there is no such version, or it cannot be aligned to.
        SnapshotError: a snapshot is missing or damaged, or they do not share a manifest and a vocabulary.
        TrainingError: there is nothing to train on, or training went wrong.
        TrackingError: it could not be logged to MLflow where that is required; the version stands.
    """
    snapshots = [find_snapshot(tables, config, day) for day in sorted(as_of)]
    run.inputs |= {f"snapshot {s.as_of}": s.path for s in snapshots}
    _same_vocabulary(snapshots)
    older = _older(tables, config, align_to) if align_to else None
    # train() itself says what is missing when there is no date at all.
    vocabulary = read_vocabulary(tables, snapshots[0].vocabulary_version if snapshots else None)
    if snapshots and vocabulary.hash != snapshots[0].vocabulary_hash:
        raise SnapshotError(
            f"vocabulary version {vocabulary.version} has hash {vocabulary.hash}, the snapshots were encoded with "
            f"{snapshots[0].vocabulary_hash}; aggregate them again"
        )
    pairs = tables.folder("pairs")
    model = GurModel.of(config.model)
    paired = {"future", "contrastive"} & model.loss.keys() and snapshots
    folders = write_pairs(tables, config, snapshots, vocabulary, pairs) if paired else [s.path for s in snapshots]
    made = train(
        folders,
        vocabulary.sizes,
        vocabulary.version,
        vocabulary.hash,
        model,
        config.training,
        work=checkpoint_folder(tables),
        out=tables.folder("artefacts"),
        code_commit=code_commit(),
        progress=sys.stderr.isatty(),
        made_of=[s.path for s in snapshots],
        align_to=older.path if older else None,
        seen_until=seen_until(config, as_of) if snapshots else None,
        together=_together(tables, config, folders, vocabulary.sizes) if model.tables == "frozen" else None,
    )
    _register(tables, made, vocabulary.version, vocabulary.hash)
    storage.remove_folder(made.checkpoints)
    run.counts |= {name: int(made.metrics[name]) for name in ("train_rows", "validation_rows", "epochs")}
    run.outputs |= {"model_version": made.version, "path": made.path}
    run.outputs |= track(config.tracking, config.name, made.path)
    return made


def _older(tables: Tables, config: Config, align_to: str) -> ModelVersion:
    if align_to != "published":
        return find_model(tables, config, align_to)
    if published(tables, config) is None:
        raise ModelError(
            f"--align-to published: nothing is published for pipeline '{config.name}'; name a version, or train without"
        )
    return find_model(tables, config)


def _together(tables: Tables, config: Config, folders: Sequence[str], sizes: Mapping[str, int]) -> Together:
    """What the frozen tables are made of, over the folders that training reads."""
    layout = Layout.of(common_manifest(folders, Manifest), sizes)
    wanted = counted_inputs(layout, GurModel.of(config.model))
    return count_on_spark(tables.spark, folders, layout.manifest, wanted, config.training)


def checkpoint_folder(tables: Tables) -> str:
    """Where a killed training is continued from: beside the tables, or this machine's where those are in a store."""
    if storage.is_local(tables.root):
        return tables.folder("checkpoints")
    return str(Path.home() / ".cache" / "gur_spark" / "checkpoints")


def _same_vocabulary(snapshots: Sequence[Snapshot]) -> None:
    for other in snapshots[1:]:
        first = snapshots[0]
        if other.vocabulary_hash != first.vocabulary_hash:
            raise SnapshotError(
                f"snapshots {first.as_of} and {other.as_of} were encoded with different vocabularies "
                f"(versions {first.vocabulary_version} and {other.vocabulary_version}); aggregate them with one"
            )


def _register(tables: Tables, made: TrainedModel, vocabulary_version: int, vocabulary_hash: str) -> None:
    card = made.card
    row = (
        card.model_version,
        storage.absolute(made.path),
        card.kind,
        made.manifest_hash,
        vocabulary_version,
        vocabulary_hash,
        list(card.training_snapshots),
        dict(made.metrics),
        card.aligned_to,
        card.code_commit,
        card.created,
    )
    tables.create("models", schema.MODELS)
    tables.append(tables.spark.createDataFrame([row], schema.MODELS).coalesce(1), "models")


def code_commit() -> str | None:
    """Commit of the checkout this runs from; None for an installed wheel, or without git."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / ".git").exists() or not shutil.which("git"):
        return None
    asked = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main("train", "Train the GUR autoencoder on aggregate snapshots.", stage, argv, options)


if __name__ == "__main__":
    sys.exit(main())
