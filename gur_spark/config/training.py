"""The sections ``training`` and ``scoring``: what every kind of model has of them."""

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from gur_spark.config.section import Section


class Training(Section):
    """How a model is trained, whatever its kind. Settings of one kind stand in ``model``."""

    as_of: list[date] = Field(default_factory=list)
    """Dates of the snapshots to train on."""
    cutoff: date | None = None
    """Training sees no event on or after this date; default: the first date of scoring and evaluation, if any."""
    epochs: int = Field(ge=1)
    """At most so many."""
    batch_size: int = Field(ge=2)
    """Users per step, over all processes together."""
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    """Share of every weight that a step removes, times the learning rate (AdamW). With few users, 1 keeps the network
    from overfitting."""
    patience: int = Field(ge=1)
    """Epochs without a better validation loss before training stops."""
    validation_share: float = Field(gt=0, lt=1)
    """Share of the users that the model is validated by and not trained on."""
    seed: int = Field(ge=0, lt=2**31)
    device: Literal["auto", "cpu", "gpu"]
    threads: int = Field(ge=1)
    """Threads of each process."""
    processes: int = Field(default=1, ge=1)
    """Processes that share each batch and the row groups of the snapshots; on GPUs, one for each."""

    @model_validator(mode="after")
    def _shares(self) -> "Training":
        if self.batch_size < 2 * self.processes:
            raise ValueError(f"batch_size {self.batch_size} leaves fewer than two users to each of the processes")
        return self


class Scoring(Section):
    """Dates that are scored, and further rows that are written beside a version's own."""

    as_of: list[date] = Field(default_factory=list)
    in_space_of: list[str] = Field(default_factory=list)
    """Older versions with consumers that were not retrained: embeddings are also written in the space of each."""
    batch_rows: int = Field(ge=1)
    """Rows of a snapshot that are read at a time."""
    changed_only: bool = False
    """Copy a user's embedding from the version's newest earlier scoring where the user's inputs are the same."""
    smoothing: int = Field(default=1, ge=1, le=31)
    """Also write the mean of a user's embeddings at the last so many scored dates, as ``VERSION-mean3``; 1: none."""

    @model_validator(mode="after")
    def _one_of_them(self) -> "Scoring":
        if self.in_space_of and self.smoothing > 1:
            raise ValueError("in_space_of maps embeddings, not their means: smoothing must be 1 beside it")
        return self
