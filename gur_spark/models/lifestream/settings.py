"""The section ``model`` of a pipeline whose kind is ``coles``."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from gur_spark.config.section import Section, Share
from gur_spark.models.kind import ModelSection


class Slices(Section):
    """Parts of a user's events that training draws; slices of one user are alike, slices of different users are not."""

    count: int = Field(default=5, ge=2, le=64)
    """Slices per user and batch."""
    min: int = Field(default=5, ge=1)
    """Events of the shortest slice; a user with no more gives all events each time."""
    max: int = Field(default=150, ge=1)
    """Events of the longest slice."""

    @model_validator(mode="after")
    def _ordered(self) -> "Slices":
        if self.max < self.min:
            raise ValueError(f"slices.max {self.max} is below slices.min {self.min}")
        return self


class ColesModel(ModelSection):
    """CoLES (Babaev et al. 2022, https://arxiv.org/abs/2002.08232): a recurrent network over a user's events."""

    kind: Literal["coles"] = "coles"
    latent_dim: int = Field(default=120, ge=8, le=4096)
    """Width of an embedding."""
    encoder: Literal["gru", "lstm"] = "gru"
    """The recurrent network."""
    embedding_dim: int | None = Field(default=None, ge=1, le=1024)
    """Width of a category table of V values; default min(24, 1.6 V^0.56)."""
    slices: Slices = Slices()
    last_slice_share: Share = 0.2
    """Probability that a slice ends with the user's newest event; other slices begin anywhere."""
    recency: bool = True
    """Whether an embedding ends with the age of the newest event, the number of events and the days they span."""
    margin: float = Field(default=0.5, gt=0)
    """Distance from which slices of two users are far enough apart. In the loss, embeddings have length 1."""
    hard_negatives: int = Field(default=5, ge=1)
    """Nearest slices of other users that each slice is compared with."""
    event_dropout: float = Field(default=0.01, ge=0, lt=1)
    """Share of a slice's events that training leaves out."""
    embedding_noise: float = Field(default=0.003, ge=0)
    """Standard deviation of the noise that training adds to category embeddings."""
    learning_rate_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor of the learning rate after each epoch."""

    def title(self) -> str:
        return f"CoLES: a {self.encoder.upper()} over each user's events, {self.latent_dim} numbers per user."

    def learned(self) -> Iterable[str]:
        slices = self.slices
        yield (
            f"{slices.count} slices of {slices.min} to {slices.max} events per user; slices of one user are drawn "
            f"together, and each is pushed away from its {self.hard_negatives} nearest slices of other users up to a "
            f"distance of {self.margin:g} (contrastive loss on embeddings of length 1)."
        )
        yield (
            "An event's inputs are its categories and numbers, the time since the event before, its age at the "
            f"snapshot's date, hour and weekday; a slice ends with the newest event with probability "
            f"{self.last_slice_share:g} at least."
        )
        if self.recency:
            yield "Beside the network's state stand the age of the newest event, the number of events and their span."
