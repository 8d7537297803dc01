"""Training inputs become a saved model version, without Spark."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from gur_spark import storage
from gur_spark.models.kind import Fitted, Kind, TrainingInputs
from gur_spark.registry.artefact import Origin, save
from gur_spark.registry.card import Card

log = logging.getLogger("gur_spark")


@dataclass(frozen=True, kw_only=True)
class TrainedVersion:
    """A new model version, with the values of its row in ``models``."""

    card: Card
    path: str
    manifest_hash: str
    metrics: Mapping[str, float]
    checkpoints: str | None
    """Folder from which the same call would continue; useless once the version is registered. None: there were no
    epochs."""

    @property
    def version(self) -> str:
        return self.card.model_version


def train_version(
    kind: Kind, inputs: TrainingInputs, origin: Origin, work: str, out: str, progress: bool = False,
    lock: ExitStack | None = None,
) -> TrainedVersion:  # fmt: skip
    """Train a model of a kind and save it as a new version under ``out``.

    Checkpoints lie in a folder of ``work``, which the caller removes. A killed run is continued by the same call, and
    ends with the same weights as an uninterrupted one. The same data, seed and configuration give the same weights on
    CPU.

    Args:
        lock: keeps the checkpoints locked until the caller, who removes them, closes it.

    Raises:
        SnapshotError: a snapshot is missing, empty or damaged, or their manifests differ.
        TrainingError: a side of the split is empty, no GPU is found where one is asked for, or the loss is not finite.
        ModelError: the older version to align to does not fit.
    """
    # Importing Lightning takes ten seconds, and other jobs and errors need not wait for it.
    from gur_spark.training.fit import LightningTrainer, accelerator, reproducible

    accelerator(inputs.training.device)
    with reproducible(inputs.training):
        trainer = LightningTrainer(training=inputs.training, work=work, progress=progress, lock=lock)
        trained = kind.train(inputs, trainer)
    card = save(out, kind, trained, inputs.model, inputs.training, inputs.vocabulary, origin)
    _log_best_epoch(card.model_version, trained.fitted)
    return TrainedVersion(
        card=card,
        path=storage.join(out, card.model_version),
        manifest_hash=trained.manifest.hash,
        metrics={**trained.fitted.metrics, **trained.metrics},
        checkpoints=trained.fitted.checkpoints,
    )


def _log_best_epoch(version: str, fitted: Fitted) -> None:
    """Log which epoch's weights the version has; warn if it is the first one."""
    if not fitted.epochs:
        log.info("trained %s: principal components alone, without epochs", version)
        return
    losses = [epoch["validation_loss"] for epoch in fitted.epochs]
    loss, best = min((loss, number) for number, loss in enumerate(losses, 1))
    log.info("trained %s: best epoch %d of %d, validation loss %.4g", version, best, len(losses), loss)
    if best == 1 < len(losses):
        log.warning(
            "%s hardly learned: no epoch after the first had a better validation loss; try a smaller "
            "training.learning_rate, or another model.loss",
            version,
        )
