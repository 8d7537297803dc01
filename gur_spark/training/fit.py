"""The trainer: Lightning's loop with early stopping, checkpoints and resume, for any kind's learner."""

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gur_spark import storage
from gur_spark.config.training import Training
from gur_spark.errors import TrainingError
from gur_spark.models.kind import Fitted, Learner
from gur_spark.training.processes import in_processes

log = logging.getLogger("gur_spark")

# Lightning warns of choices that are deliberate here:
EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # the stream decodes faster than the model learns, in this process
    ".*has `__len__` defined.*",  # the length is exact and meant for the progress bar
    ".*Checkpoint directory .* exists and is not empty.*",  # a killed run is continued that way
    ".*LeafSpec.* is deprecated.*",  # a warning between Lightning 2.6 and torch 2.13
)

# Lightning speaks by the logger of the package that was imported last. pytorch-lifestream imports the other name of it.
LIGHTNING_LOGGERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")

Losses = list[dict[str, float]]

LOSSES = ("train_loss", "train_loss_evaluated", "validation_loss")
"""Mean of an epoch's steps, loss of some training users after the epoch without dropout, and that of validation users.
"""
SAMPLED_USERS = 1_024
"""Training users, at least, whose loss is measured after each epoch."""


@dataclass(frozen=True, kw_only=True)
class LightningTrainer:
    """Fits learners with Lightning (``gur_spark.models.kind.Trainer``)."""

    training: Training
    work: str
    """Folder for checkpoints, one folder in it per run."""
    progress: bool = False
    """Show a progress bar instead of a log line per epoch."""
    lock: ExitStack | None = None
    """Keeps the checkpoints locked until it is closed; None: until ``fit`` ends."""

    def fit(self, learner: Learner, depends_on: Mapping[str, Any]) -> Fitted:
        """Train until the validation loss stops falling; ``learner.module`` ends on CPU with the best epoch's weights.

        A killed run is continued by the same call, and ends with the same weights as an uninterrupted one.

        Raises:
            TrainingError: a loss is not finite, no GPU is found where one is asked for, or another process trains by
                the same inputs now.
        """
        chosen = accelerator(self.training.device)
        checkpoints = storage.join(self.work, fingerprint(learner, self.training, depends_on))
        wrapped, processes = LearnerModule(learner, self.training), self.training.processes
        run = partial(_train, wrapped, self.training, checkpoints, chosen, self.progress)
        with ExitStack() as own:
            (self.lock or own).enter_context(alone(checkpoints))
            metrics, epochs = in_processes(run, processes, self.training.threads) if processes > 1 else run()
            state = torch.load(storage.join(checkpoints, "best.ckpt"), weights_only=True, map_location="cpu")
        wrapped.load_state_dict(state["state_dict"])
        learner.module.cpu().eval()
        return Fitted(metrics=metrics, epochs=epochs, checkpoints=checkpoints)


@contextmanager
def alone(checkpoints: str) -> Iterator[None]:
    """Keep a second, equal training out of this one's checkpoints. The system frees the lock of a killed process.

    Raises:
        TrainingError: another process has the lock.
    """
    Path(checkpoints).mkdir(parents=True, exist_ok=True)
    with Path(checkpoints, "lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"another process trains by the same inputs and configuration now (checkpoints in {checkpoints}); wait "
                "until it ends"
            ) from error
        except OSError as error:
            log.warning(
                "train: checkpoints in %s cannot be locked (%s); start no second, equal training", checkpoints, error
            )
        yield


def fingerprint(learner: Learner, training: Training, depends_on: Mapping[str, Any]) -> str:
    """Name a run by everything that decides its weights: only an equal run may continue from its checkpoints."""
    inputs = {
        **depends_on,
        "training": training.model_dump(mode="json"),
        "weights": {name: list(tensor.shape) for name, tensor in learner.module.state_dict().items()},
        "versions": [torch.__version__, *(version(name) for name in ("lightning", "gur_spark"))],
    }
    return sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def accelerator(device: str) -> str:
    """Return Lightning's name for ``training.device``.

    Raises:
        TrainingError: it is ``gpu``, and torch finds none.
    """
    if device == "gpu" and not torch.cuda.is_available():
        raise TrainingError("training.device is 'gpu', and torch finds no GPU; use 'auto' or 'cpu'")
    return "gpu" if device != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def reproducible(training: Training) -> Iterator[None]:
    """Set torch's seed and number of threads for a training, and restore both afterwards.

    The number of threads decides how sums are split, so a repeatable run needs it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(training.threads)
    torch.manual_seed(training.seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(
    fitted: "LearnerModule", training: Training, checkpoints: str, accelerator: str, progress: bool
) -> tuple[dict[str, float], Losses]:
    """Run all epochs, in this process alone or in step with other processes that call the same function."""
    best = ModelCheckpoint(checkpoints, filename="best", monitor="validation_loss", enable_version_counter=False)
    last = ModelCheckpoint(checkpoints, filename="last", enable_version_counter=False)
    patience = training.patience + fitted.learner.warmup
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
            use_distributed_sampler=False,
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
    # Buffers are constants. Exchanging them at every batch would cost time and keep validation in step, too.
    return DDPStrategy(forward_sync_buffers=False, cluster_environment=LightningEnvironment())


class LearnerModule(lightning.LightningModule):
    """A learner as Lightning drives it."""

    def __init__(self, learner: Learner, training: Training) -> None:
        super().__init__()
        self.learner, self.module, self._training = learner, learner.module, training
        self._sample: list[Any] = []

    def train_dataloader(self) -> Any:
        # Lightning calls it for each epoch (reload_dataloaders_every_n_epochs), also for the one that a run resumes
        # with.
        return self.learner.batches(self.current_epoch, (self.global_rank, self.trainer.world_size))

    def val_dataloader(self) -> Any:
        # Each process validates on all users, so that all stop after the same epoch.
        return [self.learner.batches(None, (0, 1)), self._training_sample()]

    def _training_sample(self) -> "DataLoader[Any]":
        """Take some training batches, the same in every epoch, on which the loss is measured without dropout, too."""
        users = 0
        for batch in () if self._sample else self.learner.batches(0, (0, 1)):
            self._sample.append(batch)
            users += self.learner.users(batch)
            if users >= SAMPLED_USERS:
                break
        # The loader has its own generator, as those of the learner.
        return DataLoader(cast("Dataset[Any]", self._sample), batch_size=None, generator=torch.Generator())

    def on_train_epoch_start(self) -> None:
        # Dropout must not depend on whether earlier epochs ran in this process. Other processes draw their own.
        rank = [self.global_rank] if self.global_rank else []
        state = np.random.SeedSequence((self._training.seed, self.current_epoch, *rank)).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: Any, step: int) -> Tensor:
        loss, users = self._loss(batch, step, "training", self.current_epoch), self.learner.users(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=users, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, step: int, dataloader_idx: int = 0) -> None:
        name = ("validation_loss", "train_loss_evaluated")[dataloader_idx]
        loss, users = self._loss(batch, step, "validation", None), self.learner.users(batch)
        self.log(name, loss, prog_bar=True, batch_size=users, sync_dist=True, add_dataloader_idx=False)

    def _loss(self, batch: Any, step: int, side: str, epoch: int | None) -> Tensor:
        loss = self.learner.loss(batch, epoch)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the {side} loss is {loss.item()} at epoch {self.current_epoch + 1}, step {step}; nothing was saved. "
                "Try a lower training.learning_rate, and look for extreme values in the inputs"
            )
        return loss

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = self.learner.optimizer(self._training)
        return ([optimizer], [scheduler]) if scheduler else optimizer


class _Epochs(Callback):
    """Callback that stops a resumed run that had already stopped early, keeps each epoch's losses, and logs a line."""

    def __init__(self, stopping: EarlyStopping, visible: bool) -> None:
        self.losses: Losses = []
        self._stopping, self._visible = stopping, visible
        self._users, self._clock = 0, 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.should_stop = self._stopping.wait_count >= self._stopping.patience

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._users, self._clock = 0, time.monotonic()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._users += pl_module.learner.users(batch) * trainer.world_size

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        losses = {name: float(trainer.callback_metrics[name]) for name in LOSSES}
        epoch = trainer.current_epoch + 1
        self.losses.append({"epoch": epoch, **losses})
        if self._visible and trainer.is_global_zero:
            rate = self._users / (time.monotonic() - self._clock)
            # Both are measured without dropout, so that their distance tells how well the model generalises.
            shown = losses["train_loss_evaluated"], losses["validation_loss"]
            log.info("epoch %d: loss %.4f, validation %.4f, %.0f users/s", epoch, *shown, rate)

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = list(state_dict["losses"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's notices on devices and tips; its errors still show."""
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS]
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
