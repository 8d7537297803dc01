"""Model versions for benchmarks: untrained ones, which are as fast as trained ones, and trained ones without Spark."""

from collections.abc import Sequence
from datetime import date

import torch

from gur_spark import storage
from gur_spark.batches.layout import Layout
from gur_spark.config.training import Training
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur import KIND
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import Artefact, Fitted, Trained, TrainingInputs, VocabularyRef
from gur_spark.registry.artefact import Origin, save
from gur_spark.training.version import TrainedVersion, train_version


def untrained_version(
    parent: str, manifest: Manifest, model: GurModel, training: Training, vocabulary: VocabularyRef
) -> str:
    """Save an autoencoder with the weights that seed 0 draws; returns the version's folder."""
    torch.manual_seed(0)
    module = GUR(Layout.of(manifest, vocabulary.sizes), model)
    trained = Trained(
        tensors=module.state_dict(), manifest=manifest, fitted=Fitted(metrics={}, epochs=(), checkpoints="")
    )
    origin = Origin(snapshots=(), dates=(), seen_until=date(1970, 1, 1))
    card = save(parent, KIND, trained, model, training, vocabulary, origin)
    return storage.join(parent, card.model_version)


def trained_version(
    folders: Sequence[str],
    vocabulary: VocabularyRef,
    model: GurModel,
    training: Training,
    work: str,
    align_to: Artefact | None = None,
) -> TrainedVersion:
    """Train an autoencoder on these folders, below ``work``."""
    inputs = TrainingInputs(
        snapshots=folders, folders=folders, vocabulary=vocabulary, model=model, training=training, align_to=align_to
    )
    origin = Origin(snapshots=tuple(folders), dates=(), seen_until=None)
    return train_version(KIND, inputs, origin, storage.join(work, "checkpoints"), storage.join(work, "models"))
