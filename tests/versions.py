"""Model versions for tests, untrained and trained, without Spark."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import torch

from gur_spark import storage
from gur_spark.batches.layout import Layout
from gur_spark.config.training import Training
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur import KIND
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import Fitted, Trained, TrainingInputs, VocabularyRef
from gur_spark.registry import artefact
from gur_spark.registry.artefact import Origin, load_model
from gur_spark.training.version import TrainedVersion, train_version
from tests.aggregate_data import SIZES, tiny_manifest

MODEL = GurModel(
    latent_dim=6, dropout=0.1, block_dropout=0.1, loss={"likelihood": 1.0}, tables="trained", dense_scale="signed_log1p"
)
TRAINING = Training(
    epochs=1, batch_size=32, learning_rate=0.005, patience=3, validation_share=0.25, seed=1, device="cpu", threads=1
)
VOCABULARY = VocabularyRef(version=1, hash="hash", sizes=SIZES)
ORIGIN = Origin(snapshots=(), dates=(), seen_until=date(2024, 1, 1))


def untrained_version(
    parent: str | Path,
    model: GurModel = MODEL,
    *,
    manifest: Manifest | None = None,
    vocabulary: VocabularyRef = VOCABULARY,
    training: Training = TRAINING,
    origin: Origin = ORIGIN,
    metrics: Mapping[str, float] | None = None,
    epochs: Sequence[Mapping[str, float]] = (),
    more: Mapping[str, torch.Tensor] | None = None,
    aligned_to: str | None = None,
) -> str:
    """Save an autoencoder with the weights that seed 0 draws as a version; returns its folder.

    Args:
        more: tensors beside the weights.
    """
    manifest = manifest or tiny_manifest()
    torch.manual_seed(0)
    module = GUR(Layout.of(manifest, vocabulary.sizes), model)
    trained = Trained(
        tensors={**module.state_dict(), **(more or {})},
        manifest=manifest,
        fitted=Fitted(metrics={}, epochs=epochs, checkpoints=""),
        metrics=metrics or {},
        aligned_to=aligned_to,
    )
    card = artefact.save(str(parent), KIND, trained, model, training, vocabulary, origin)
    return storage.join(str(parent), card.model_version)


def trained_version(
    snapshots: Sequence[str],
    folder: str | Path,
    model: GurModel = MODEL,
    training: Training = TRAINING,
    *,
    vocabulary: VocabularyRef = VOCABULARY,
    align_to: str | None = None,
    progress: bool = False,
) -> TrainedVersion:
    """Train on these snapshots as the job does, without Spark.

    Args:
        folder: gets the checkpoints, below ``work``, and the version, below ``out``.
        align_to: folder of the version to align to.
    """
    inputs = TrainingInputs(
        snapshots=snapshots,
        folders=snapshots,
        vocabulary=vocabulary,
        model=model,
        training=training,
        align_to=load_model(align_to).artefact if align_to else None,
    )
    origin = Origin(snapshots=tuple(snapshots), dates=("2024-06-01",) * len(snapshots), seen_until=date(2024, 6, 1))
    work, out = (storage.join(str(folder), name) for name in ("work", "out"))
    return train_version(KIND, inputs, origin, work, out, progress)
