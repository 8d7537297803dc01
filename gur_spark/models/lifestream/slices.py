"""Slices of users' events, drawn by pytorch-lifestream's rule ``SampleSlices``, all users at once."""

# B = users, S = slices of all of them

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gur_spark.batches.padded import Sequences
from gur_spark.batches.sequences import Events
from gur_spark.models.lifestream.settings import ColesModel


@dataclass(frozen=True)
class SliceBatch:
    """Slices, about in the order of their length, with the number of each slice's user."""

    sequences: Sequences
    labels_S: Tensor
    """``int64``, (S,); slices with the same number are of one user."""
    users: int
    """Rows that the slices were drawn from."""

    def __len__(self) -> int:
        return self.users

    def to(self, device: torch.device | str) -> "SliceBatch":
        return SliceBatch(self.sequences.to(device), self.labels_S.to(device), self.users)


@dataclass(frozen=True, kw_only=True)
class Slicer:
    """Draws ``count`` slices of each user's events.

    A slice has ``least`` to ``most`` events, each length as likely, and begins anywhere; with the probability
    ``last_share`` it is moved to the user's newest events. A user with no more than ``least`` events gives all of them
    each time. Then each event is left out with the probability ``dropout``, but a slice's last one.
    """

    count: int
    least: int
    most: int
    last_share: float = 0.0
    dropout: float = 0.0

    @classmethod
    def of(cls, model: ColesModel) -> "Slicer":
        slices = model.slices
        return cls(
            count=slices.count,
            least=slices.min,
            most=slices.max,
            last_share=model.last_slice_share,
            dropout=model.event_dropout,
        )

    def __call__(self, events: Events, generator: np.random.Generator) -> SliceBatch:
        """Draw slices. Rows of one user, as of two snapshots, have one label."""
        users_S = np.repeat(np.arange(len(events)), self.count)
        starts_S, lengths_S = self.draw(events.lengths_B[users_S], generator)
        order_S = np.argsort(lengths_S, kind="stable")
        starts_S += events.offsets[users_S]
        slices = events.parts(users_S[order_S], starts_S[order_S], lengths_S[order_S])
        if self.dropout:
            slices = drop_events(slices, self.dropout, generator)
        _, labels_S = np.unique(slices.users_B, return_inverse=True)
        return SliceBatch(Sequences.of(slices), torch.from_numpy(labels_S.astype(np.int64)), len(events))

    def draw(self, available_S: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the first event and the length of one slice of each sequence of ``available_S`` events."""
        whole_S = available_S <= self.least
        least_S = np.where(whole_S, available_S, self.least)
        most_S = np.where(whole_S, available_S, np.minimum(available_S, self.most))
        lengths_S = generator.integers(least_S, most_S + 1)
        starts_S = generator.integers(0, available_S - lengths_S + 1)
        last_S = generator.random(len(available_S)) < self.last_share
        return np.where(last_S, available_S - lengths_S, starts_S), lengths_S


def drop_events(events: Events, share: float, generator: np.random.Generator) -> Events:
    """Drop each event with this probability, except the last one of each sequence."""
    kept_N = generator.random(len(events.numbers_ND)) >= share
    kept_N[events.offsets[1:] - 1] = True
    before = np.concatenate(([0], np.cumsum(kept_N)))
    return Events(
        events.users_B,
        before[events.offsets],
        np.compress(kept_N, events.ids_CN, axis=1),
        np.compress(kept_N, events.numbers_ND, axis=0),
    )
