"""Training CoLES on snapshots of sequences: count, build, set up, fit, measure."""

from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from gur_spark.batches.padded import Sequences
from gur_spark.batches.sequence_streams import Side, split_sides
from gur_spark.batches.sequences import SequenceLayout
from gur_spark.errors import TrainingError
from gur_spark.features.declare.manifest import SequenceManifest
from gur_spark.models.kind import Trained, Trainer, TrainingInputs
from gur_spark.models.lifestream.encoder import BESIDE, SequenceEncoder, beside
from gur_spark.models.lifestream.learner import ColesLearner
from gur_spark.models.lifestream.probe import probe_recency
from gur_spark.models.lifestream.scorer import scorer_of
from gur_spark.models.lifestream.settings import ColesModel
from gur_spark.snapshots.files import common_manifest, row_groups
from gur_spark.statistics.moments import Moments


def train(inputs: TrainingInputs, trainer: Trainer) -> Trained:
    """Train an encoder on the users of the training side, and measure it on those of the validation side.

    The same snapshots, seed and configuration give the same weights on CPU.

    Raises:
        SnapshotError: a snapshot is missing, empty or damaged, or their manifests differ.
        TrainingError: a side of the split is empty or too small, no user has more events than a slice, or a number is
            not finite.
    """
    model, training = ColesModel.of(inputs.model), inputs.training
    manifest = common_manifest(inputs.folders, SequenceManifest)
    layout = SequenceLayout.of(manifest, inputs.vocabulary.sizes)
    sides = split_sides(inputs.folders, training.validation_share, training.seed)
    torch.manual_seed(training.seed)
    module = SequenceEncoder(layout, model)
    standardise(module, sides[0], layout, model.slices.min)
    learner = ColesLearner(module=module, layout=layout, model=model, training=training, sides=sides)
    # Too few users for a batch are found before an epoch is begun.
    for epoch in (0, None):
        learner.batches(epoch, (0, training.processes if epoch == 0 else 1))
    fitted = trainer.fit(learner, depends_on(inputs, manifest))
    rows = {"train_rows": float(sides[0].total), "validation_rows": float(sides[1].total)}
    probed = probe_recency(scorer_of(module, layout), sides)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    return Trained(tensors=tensors, manifest=manifest, fitted=fitted, metrics=rows | probed)


def depends_on(inputs: TrainingInputs, manifest: SequenceManifest) -> dict[str, Any]:
    """Collect the inputs that decide the weights, beside the training's own settings."""
    return {
        "manifest": manifest.hash,
        "files": [[group.file, group.number, group.rows] for folder in inputs.folders for group in row_groups(folder)],
        "vocabulary": [inputs.vocabulary.hash, dict(inputs.vocabulary.sizes)],
        "model": inputs.model.model_dump(mode="json"),
        "pytorch-lifestream": version("pytorch-lifestream"),
    }


def standardise(module: SequenceEncoder, side: Side, layout: SequenceLayout, least: int) -> None:
    """Set the mean and standard deviation of the training users' numbers in the encoder.

    Raises:
        TrainingError: a number is not finite, or no user has more events than ``least``, so that all slices of a user
            would be equal.
    """
    of_events, of_users = Moments(len(layout.numbers)), Moments(len(BESIDE))
    longest = 0
    for events in side.events(layout):
        if not np.isfinite(events.numbers_ND).all():
            wrong = int(np.flatnonzero(~np.isfinite(events.numbers_ND).all(axis=0))[0])
            raise TrainingError(f"column '{layout.numbers[wrong]}' has values that are not finite")
        of_events.update(events.numbers_ND)
        of_users.update(beside(Sequences.of(events)).numpy())
        longest = max(longest, int(events.lengths_B.max()))
    if longest <= least:
        raise TrainingError(
            f"no training user has more than {longest} events, and the shortest slice has {least}: slices of a user "
            "would all be equal; lower model.slices.min, or take a longer window of sequences"
        )
    module.standardise(of_events, of_users)
