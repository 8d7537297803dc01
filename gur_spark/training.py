"""Training the GUR autoencoder on aggregate snapshots: build, set up, train, save."""

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import lightning
import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from gur_spark import registry, storage
from gur_spark.batches.aggregates import AggregateDataset, Batch, Layout, data_files, stream, user_ids
from gur_spark.config import Model, Training
from gur_spark.errors import SnapshotError, TrainingError
from gur_spark.models.autoencoder import GUR
from gur_spark.models.losses import reconstruction_loss
from gur_spark.models.reconstruction import Moments, RSquared
from gur_spark.models.tables import frozen_tables
from gur_spark.schema import Manifest
from gur_spark.splits import held_out

log = logging.getLogger("gur_spark")

# Lightning means well; these are choices, not mistakes.
EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # the stream decodes faster than the model learns, in this process
    ".*has `__len__` defined.*",  # our length is exact and meant for the progress bar
    ".*Checkpoint directory .* exists and is not empty.*",  # that is how a killed run is continued
    ".*LeafSpec.* is deprecated.*",  # between Lightning 2.6 and torch 2.13
)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A new model version, as its row in ``models`` needs it."""

    card: registry.Card
    path: str
    manifest_hash: str
    metrics: Mapping[str, float]

    @property
    def version(self) -> str:
        return self.card.model_version


def train(
    snapshots: Sequence[str],
    sizes: Mapping[str, int],
    vocabulary_version: int,
    vocabulary_hash: str,
    model: Model,
    training: Training,
    work: str,
    out: str,
    code_commit: str | None = None,
    progress: bool = False,
) -> TrainedModel:
    """Train on the snapshots in these folders and save a new version under ``out``.

    Checkpoints lie in ``work`` while it trains; a run that was killed is continued by the same call, and ends
    with the weights it would have had. The same data, seed and configuration give the same weights on CPU.

    Raises:
        SnapshotError: a snapshot is missing, empty or damaged, or their manifests differ.
        TrainingError: a side of the split is empty, no GPU where one is asked for, or the loss is not finite.
    """
    accelerator = _accelerator(training.device)
    layout = Layout.of(_common_manifest(snapshots), sizes)
    data = _Data.of(snapshots, layout, training)
    with _threads(training.threads):
        torch.manual_seed(training.seed)
        module = GUR(layout, model)
        _set_up(module, data, model)
        checkpoints = storage.join(work, _fingerprint(data, model, vocabulary_hash))
        fitted = _fit(module, data, checkpoints, accelerator, progress)
        metrics = {**fitted, **_reconstruction_metrics(module, data)}
    card = registry.save(
        out, module, layout=layout, model=model, training=training, vocabulary_version=vocabulary_version,
        vocabulary_hash=vocabulary_hash, metrics=metrics, training_snapshots=tuple(snapshots), code_commit=code_commit,
    )
    storage.remove_folder(checkpoints)
    return TrainedModel(
        card=card, path=storage.join(out, card.model_version), manifest_hash=layout.manifest.hash, metrics=metrics
    )


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The snapshots' rows, their users split in two."""

    snapshots: Sequence[str]
    layout: Layout
    training: Training
    train_rows: int
    validation_rows: int

    @classmethod
    def of(cls, snapshots: Sequence[str], layout: Layout, training: Training) -> "_Data":
        """Count both sides; raises where one of them is empty."""
        rows, validation_rows = 0, 0
        for snapshot in snapshots:
            sides = [_validation(users, training) for users in user_ids(snapshot)]
            if not sum(map(len, sides)):
                raise SnapshotError(f"snapshot {snapshot} is empty: there is nobody to train on")
            rows += sum(map(len, sides))
            validation_rows += sum(int(side.sum()) for side in sides)
        for side, count in (("training", rows - validation_rows), ("validation", validation_rows)):
            if not count:
                raise TrainingError(
                    f"no user is on the {side} side: {rows} rows, training.validation_share={training.validation_share}"
                )
        return cls(
            snapshots=snapshots, layout=layout, training=training,
            train_rows=rows - validation_rows, validation_rows=validation_rows,
        )

    def training_batches(self) -> Iterator[Batch]:
        """In the order of the files, the same for every pass."""
        return stream(self.snapshots, self.layout, self.training.batch_size, keep=self._keeps_training)

    def validation_batches(self) -> Iterator[Batch]:
        return stream(self.snapshots, self.layout, self.training.batch_size, keep=self._keeps_validation)

    def loader(self, epoch: int | None) -> "DataLoader[Batch]":
        """Training batches as this epoch shuffles them; None: the validation batches, as they lie."""
        dataset = AggregateDataset(
            self.snapshots, self.layout, self.training.batch_size,
            rows=self.validation_rows if epoch is None else self.train_rows,
            shuffle_seed=None if epoch is None else (self.training.seed, epoch),
            keep=self._keeps_validation if epoch is None else self._keeps_training,
        )
        # Its own generator: an iterator that is made must not move the one that dropout draws from.
        return DataLoader(dataset, batch_size=None, generator=torch.Generator())

    def _keeps_training(self, users: pa.Array) -> Any:
        return ~_validation(users, self.training)

    def _keeps_validation(self, users: pa.Array) -> Any:
        return _validation(users, self.training)


def _validation(users: pa.Array, training: Training) -> Any:
    return held_out(users, training.validation_share, f"validation {training.seed}")


def _common_manifest(snapshots: Sequence[str]) -> Manifest:
    """The manifest that all snapshots have."""
    if not snapshots:
        raise TrainingError("no snapshot to train on: name as-of dates with --as-of or training.as_of")
    first, *others = [read_manifest(snapshot) for snapshot in snapshots]
    for snapshot, other in zip(snapshots[1:], others, strict=True):
        if other.hash != first.hash:
            different = {c.name for c in set(first.columns) ^ set(other.columns)}
            raise SnapshotError(
                f"the manifests of {snapshots[0]} and {snapshot} differ in "
                f"{', '.join(sorted(different)) or 'the steps or transforms of their fields'}; aggregate them alike"
            )
    return first


def read_manifest(snapshot: str) -> Manifest:
    """Raises SnapshotError where the manifest is missing or damaged."""
    path = storage.join(snapshot, "manifest.json")
    try:
        return Manifest.from_json(storage.read_text(path))
    except FileNotFoundError as error:
        raise SnapshotError(f"{path} does not exist: {snapshot} is not a snapshot") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise SnapshotError(f"{path} is damaged: {error}") from error


def _accelerator(device: str) -> str:
    if device == "gpu" and not torch.cuda.is_available():
        raise TrainingError("training.device is 'gpu', and torch finds no GPU; use 'auto' or 'cpu'")
    return "gpu" if device != "cpu" and torch.cuda.is_available() else "cpu"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The number of threads is part of what makes a run repeatable: sums are split by it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _set_up(module: GUR, data: _Data, model: Model) -> None:
    """What is computed from the training users rather than learned: frozen tables, mean and std."""
    if model.tables == "frozen":
        module.inputs.set_tables(frozen_tables(data.training_batches(), data.layout, model))
    moments = Moments(module.inputs.targets)
    for batch in data.training_batches():
        moments.update(module.inputs.raw(batch).numpy())
    for column, mean in zip(data.layout.dense, moments.mean_T, strict=False):
        if not np.isfinite(mean):
            raise TrainingError(f"column '{column.name}' has values that are not finite")
    module.inputs.set_standardisation(moments)


def _fingerprint(data: _Data, model: Model, vocabulary_hash: str) -> str:
    """Names what a run depends on: only a run of the same inputs may continue from a checkpoint."""
    inputs = {
        "manifest": data.layout.manifest.hash,
        "files": [[name, f.get_file_info(name).size] for s in data.snapshots for f, name in data_files(s)],
        "vocabulary": [vocabulary_hash, dict(data.layout.sizes)],
        "config": [model.model_dump(mode="json"), data.training.model_dump(mode="json")],
        "versions": [torch.__version__, lightning.__version__],
    }
    return sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _fit(module: GUR, data: _Data, checkpoints: str, accelerator: str, progress: bool) -> dict[str, float]:
    """Train until the validation loss stops falling; ``module`` ends with the best epoch's weights."""
    fit = _Fit(module, data)
    best = ModelCheckpoint(checkpoints, filename="best", monitor="validation_loss", enable_version_counter=False)
    last = ModelCheckpoint(checkpoints, filename="last", enable_version_counter=False)
    stopping = EarlyStopping("validation_loss", patience=data.training.patience, check_finite=False)
    with _quiet():
        trainer = lightning.Trainer(
            accelerator=accelerator, devices=1, max_epochs=data.training.epochs,
            callbacks=[stopping, best, last, _Epochs(stopping, data.train_rows, visible=not progress)],
            reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0, logger=False,
            enable_progress_bar=progress, enable_model_summary=False, default_root_dir=checkpoints,
        )
        resume = storage.join(checkpoints, "last.ckpt")
        trainer.fit(fit, ckpt_path=resume if storage.exists(resume) else None, weights_only=True)
    state = torch.load(storage.join(checkpoints, "best.ckpt"), weights_only=True, map_location="cpu")
    fit.load_state_dict(state["state_dict"])
    module.cpu().eval()
    assert best.best_model_score is not None  # an epoch ran, and its validation loss was finite
    return {
        "validation_loss": float(best.best_model_score),
        "epochs": float(trainer.current_epoch),
        "train_rows": float(data.train_rows),
        "validation_rows": float(data.validation_rows),
    }


class _Fit(lightning.LightningModule):
    """The model and its optimiser, as Lightning drives them."""

    def __init__(self, model: GUR, data: _Data) -> None:
        super().__init__()
        self.model = model
        self._data = data

    def train_dataloader(self) -> "DataLoader[Batch]":
        # Called for each epoch (reload_dataloaders_every_n_epochs), also for the one a run resumes with.
        return self._data.loader(self.current_epoch)

    def val_dataloader(self) -> "DataLoader[Batch]":
        return self._data.loader(None)

    def on_train_epoch_start(self) -> None:
        # Dropout must not depend on whether the epochs before ran in this process.
        state = np.random.SeedSequence((self._data.training.seed, self.current_epoch)).generate_state(1)
        torch.manual_seed(int(state[0]))

    def training_step(self, batch: Batch, step: int) -> Tensor:
        loss = self._loss(batch, step, "training")
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Batch, step: int) -> None:
        self.log("validation_loss", self._loss(batch, step, "validation"), prog_bar=True, batch_size=len(batch))

    def _loss(self, batch: Batch, step: int, side: str) -> Tensor:
        loss = reconstruction_loss(self.model(batch), batch).mean()
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the {side} loss is {loss.item()} at epoch {self.current_epoch}, step {step}; nothing was saved. "
                "Try a lower training.learning_rate, and look for extreme values in the aggregates"
            )
        return loss

    def configure_optimizers(self) -> Any:
        learned = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(learned, lr=self._data.training.learning_rate, fused=True)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.9)]


class _Epochs(Callback):
    """Stops a resumed run that had already stopped early, and logs a line per epoch."""

    def __init__(self, stopping: EarlyStopping, rows: int, visible: bool) -> None:
        self._stopping, self._rows, self._visible = stopping, rows, visible
        self._clock = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.should_stop = self._stopping.wait_count >= self._stopping.patience

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._clock = time.monotonic()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._visible:
            losses = [float(trainer.callback_metrics[name]) for name in ("train_loss", "validation_loss")]
            rate = self._rows / (time.monotonic() - self._clock)
            log.info("epoch %d: loss %.4f, validation %.4f, %.0f users/s", trainer.current_epoch, *losses, rate)


@torch.inference_mode()
def _reconstruction_metrics(module: GUR, data: _Data) -> dict[str, float]:
    """R2 per block over the validation users."""
    found = RSquared(module.target_blocks, data.layout.windows)
    for batch in data.validation_batches():
        found.update(module(batch), batch)
    return found.result()


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
