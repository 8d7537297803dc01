"""The epochs of a training: Lightning's loop with early stopping, checkpoints and resume."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from gur_spark import storage
from gur_spark.batches.aggregates import Batch
from gur_spark.config.training import Training
from gur_spark.errors import TrainingError
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.losses import training_loss
from gur_spark.training.processes import in_processes

log = logging.getLogger("gur_spark")

Loader = Callable[[int | None, tuple[int, int]], "DataLoader[Batch]"]
"""Training batches of an epoch, validation batches for None; the share of the first of so many processes."""

# Lightning means well; these are choices, not mistakes.
EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # the stream decodes faster than the model learns, in this process
    ".*has `__len__` defined.*",  # our length is exact and meant for the progress bar
    ".*Checkpoint directory .* exists and is not empty.*",  # that is how a killed run is continued
    ".*LeafSpec.* is deprecated.*",  # between Lightning 2.6 and torch 2.13
)


def fit(
    module: GUR, loader: Loader, training: Training, checkpoints: str, accelerator: str, progress: bool
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Train until the validation loss stops falling; ``module`` ends on CPU with the best epoch's weights.

    Continues from the last checkpoint of the folder ``checkpoints``, if there is one. Returns the best
    validation loss and the number of epochs, and the losses of each epoch, those before a kill included.

    Raises:
        TrainingError: a loss is not finite.
    """
    fitted = Fit(module, loader, training)
    run = partial(_train, fitted, training, checkpoints, accelerator, progress)
    found = in_processes(run, training.processes, training.threads) if training.processes > 1 else run()
    state = torch.load(storage.join(checkpoints, "best.ckpt"), weights_only=True, map_location="cpu")
    fitted.load_state_dict(state["state_dict"])
    module.cpu().eval()
    return found


def _train(
    fitted: "Fit", training: Training, checkpoints: str, accelerator: str, progress: bool
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """All epochs, in this process, or in this one and others that call the same."""
    best = ModelCheckpoint(checkpoints, filename="best", monitor="validation_loss", enable_version_counter=False)
    last = ModelCheckpoint(checkpoints, filename="last", enable_version_counter=False)
    # While the weight of the divergence rises, the loss by its full weight may, too.
    patience = training.patience + fitted.model.warmup
    stopping = EarlyStopping("validation_loss", patience=patience, check_finite=False)
    epochs = _Epochs(stopping, visible=not progress)
    with _quiet():
        trainer = lightning.Trainer(
            accelerator=accelerator,
            devices=training.processes,
            strategy=_strategy(training.processes),
            max_epochs=training.epochs,
            callbacks=[stopping, best, last, epochs],
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            default_root_dir=checkpoints,
        )
        resume = storage.join(checkpoints, "last.ckpt")
        trainer.fit(fitted, ckpt_path=resume if storage.exists(resume) else None, weights_only=True)
    assert best.best_model_score is not None  # an epoch ran, and its validation loss was finite
    found = {"validation_loss": float(best.best_model_score), "epochs": float(trainer.current_epoch)}
    return found, epochs.losses


def _strategy(processes: int) -> Any:
    if processes == 1:
        return "auto"
    # Buffers are constants: to exchange them at every batch would also keep validation in step.
    return DDPStrategy(forward_sync_buffers=False, cluster_environment=LightningEnvironment())


class Fit(lightning.LightningModule):
    """The model and its optimiser, as Lightning drives them."""

    def __init__(self, model: GUR, loader: Loader, training: Training) -> None:
        super().__init__()
        self.model = model
        self._loader, self._training = loader, training

    def train_dataloader(self) -> "DataLoader[Batch]":
        # Called for each epoch (reload_dataloaders_every_n_epochs), also for the one a run resumes with.
        return self._loader(self.current_epoch, self._part)

    def val_dataloader(self) -> "DataLoader[Batch]":
        # Each process validates on all users, so that all stop after the same epoch.
        return self._loader(None, (0, 1))

    @property
    def _part(self) -> tuple[int, int]:
        return self.global_rank, self.trainer.world_size

    def on_train_epoch_start(self) -> None:
        # Dropout must not depend on whether the epochs before ran in this process; other processes draw their own.
        rank = [self.global_rank] if self.global_rank else []
        state = np.random.SeedSequence((self._training.seed, self.current_epoch, *rank)).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: Batch, step: int) -> Tensor:
        loss = self._loss(batch, step, "training", self.model.weights(self.current_epoch))
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, step: int) -> None:
        # By the same weights in every epoch: the best of them is looked for.
        loss = self._loss(batch, step, "validation", self.model.loss_weights)
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=True)

    def _loss(self, batch: Batch, step: int, side: str, weights: Mapping[str, float]) -> Tensor:
        loss = training_loss(self.model(batch), batch, weights).mean()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the {side} loss is {loss.item()} at epoch {self.current_epoch + 1}, step {step}; nothing was saved. "
                "Try a lower training.learning_rate, and look for extreme values in the aggregates"
            )
        return loss

    def configure_optimizers(self) -> Any:
        learned = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            learned, lr=self._training.learning_rate, weight_decay=self._training.weight_decay, fused=True
        )
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.9)]


class _Epochs(Callback):
    """Stops a resumed run that had already stopped early, keeps the losses of each epoch, and logs a line."""

    def __init__(self, stopping: EarlyStopping, visible: bool) -> None:
        self.losses: list[dict[str, float]] = []
        self._stopping, self._visible = stopping, visible
        self._users, self._clock = 0, 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.should_stop = self._stopping.wait_count >= self._stopping.patience

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._users, self._clock = 0, time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self._users += len(batch) * trainer.world_size

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        losses = {name: float(trainer.callback_metrics[name]) for name in ("train_loss", "validation_loss")}
        epoch = trainer.current_epoch + 1
        self.losses.append({"epoch": epoch, **losses})
        if self._visible and trainer.is_global_zero:
            rate = self._users / (time.monotonic() - self._clock)
            log.info("epoch %d: loss %.4f, validation %.4f, %.0f users/s", epoch, *losses.values(), rate)

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = list(state_dict["losses"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's notices on devices and tips; its errors still show."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
