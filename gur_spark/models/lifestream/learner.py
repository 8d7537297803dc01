"""The learner of CoLES, which the trainer drives."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gur_spark.batches.sequence_streams import SequenceDataset, Side
from gur_spark.batches.sequences import SequenceLayout
from gur_spark.config.training import Training
from gur_spark.models.lifestream.encoder import SequenceEncoder
from gur_spark.models.lifestream.losses import SliceLoss
from gur_spark.models.lifestream.settings import ColesModel
from gur_spark.models.lifestream.slices import SliceBatch, Slicer

LEAST_USERS = 2
"""A batch of one user has no negative pairs."""


@dataclass
class ColesLearner:
    """Draws slices of users' events and compares them with one another (``gur_spark.models.kind.Learner``).

    Slices are drawn by a generator of (seed, epoch, part), so an epoch does not depend on earlier runs. Validation
    slices are the same in every epoch.
    """

    module: SequenceEncoder
    layout: SequenceLayout
    model: ColesModel
    training: Training
    sides: tuple[Side, Side]
    """Training side and validation side."""
    warmup: int = 0

    def __post_init__(self) -> None:
        self._loss = SliceLoss(self.model.margin, self.model.hard_negatives)

    def batches(self, epoch: int | None, part: tuple[int, int]) -> "DataLoader[SliceBatch]":
        training = epoch is not None
        dataset = SequenceDataset(
            self.sides[0 if training else 1],
            self.layout,
            self.training.batch_size,
            Slicer.of(self.model if training else self.model.model_copy(update={"event_dropout": 0.0})),
            seed=(self.training.seed, 0, 0) if epoch is None else (self.training.seed, 1, epoch),
            shuffle=training,
            part=part,
            least=LEAST_USERS,
        )
        # The loader has its own generator: making an iterator must not move the one that noise is drawn from.
        return DataLoader(dataset, batch_size=None, generator=torch.Generator())

    def users(self, batch: SliceBatch) -> int:
        return len(batch)

    def loss(self, batch: SliceBatch, epoch: int | None) -> Tensor:
        """Sum of the loss over the pairs of the batch, per user."""
        total: Tensor = self._loss(self.module.state(batch.sequences), batch.labels_S)
        return total / len(batch)

    def optimizer(self, training: Training) -> tuple[Any, Any]:
        optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, self.model.learning_rate_decay)
