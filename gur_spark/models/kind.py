"""Contracts between the pipeline and a kind of model.

A *kind* is one family member: the GUR autoencoder, CoLES. The pipeline (training, registry, scoring, publishing,
evaluation, monitoring) knows a kind only by what stands here, and finds it by name in ``gur_spark.models.catalogue``.
``docs/kinds.md`` tells how to add one.

This module imports neither Spark nor torch. A module that defines a kind may not import them either when it is
imported: ``prepare`` imports Spark, ``train`` and ``load`` import torch, each inside the method.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import pyarrow as pa

from gur_spark.config.section import Section
from gur_spark.config.training import Training

if TYPE_CHECKING:
    from torch import Tensor, nn


class Form(StrEnum):
    """Form of a snapshot. A kind reads snapshots of one form."""

    AGGREGATES = "aggregates"
    """One row per user: windowed numbers and histograms."""
    SEQUENCES = "sequences"
    """One row per user: lists of events in the order of time."""
    INTERACTIONS = "interactions"
    """One row per user and item: how often, and when first and last."""


class Capability(StrEnum):
    """Abilities of only some kinds. The pipeline asks before it relies on one."""

    ALIGNMENT = "alignment"
    """Training can move a new version into the space of an older one (``train --align-to``)."""
    MAPPING = "mapping"
    """Embeddings can be mapped to the space of an older version (``scoring.in_space_of``)."""
    SMOOTHING = "smoothing"
    """Means of a user's last embeddings make sense (``scoring.smoothing``)."""
    LIVE = "live"
    """Users can be embedded between two mornings (the job ``stream``)."""
    COPYING = "copying"
    """Equal inputs give equal embeddings at another date, so that they can be copied (``scoring.changed_only``)."""


class ModelSection(Section):
    """The part ``model`` of a configuration. Each kind has a subclass with its own keys."""

    kind: str

    def has_unit_norm(self) -> bool:
        """Whether embeddings have length 1, so that a mean of several must be scaled to it again."""
        return False

    def looks_ahead_days(self) -> int:
        """Days from a snapshot's date on whose events training sees; 0: none."""
        return 0

    @classmethod
    def stored(cls, format: int, model: Mapping[str, Any], training: Mapping[str, Any]) -> Self:
        """The section of an artefact, by the format of its ``config.json``.

        Raises:
            ValidationError: a value is not valid, or a key is unknown.
        """
        return cls(**model)

    def title(self) -> str:
        """One line for the model card: what the version is."""
        return f"Model of kind {self.kind}."

    def learned(self) -> Iterable[str]:
        """Lines for the model card: what the model learns, and by which settings."""
        return ()


@dataclass(frozen=True, kw_only=True)
class VocabularyRef:
    """The vocabulary that ids belong to."""

    version: int
    hash: str
    sizes: Mapping[str, int]
    """Field -> greatest id + 1, the height of an embedding table."""


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A model version as it is stored, verified but not yet built. It can travel to a worker."""

    version: str
    model: ModelSection
    manifest: Any
    """The manifest of the snapshots that it reads: ``Manifest`` or ``SequenceManifest``."""
    vocabulary: VocabularyRef
    weights: bytes
    """Tensors as safetensors."""
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """What a kind learns from: folders that torch reads without Spark."""

    snapshots: Sequence[str]
    """The snapshots' own folders, by date."""
    folders: Sequence[str]
    """The folders that training reads: the snapshots' own, or what ``prepare`` wrote of them, one per snapshot."""
    vocabulary: VocabularyRef
    model: ModelSection
    training: Training
    align_to: Artefact | None = None
    """The older version into whose space the new one is moved."""
    prepared: Any = None
    """What else ``prepare`` made for ``train``."""


class Learner(Protocol):
    """What the trainer drives: a module, its batches, its loss and its optimiser.

    It must be picklable, because each of several training processes gets one.
    """

    warmup: int
    """Epochs in which the loss may rise by design; patience begins after them."""

    @property
    def module(self) -> "nn.Module":
        """The module that is trained; its state is what checkpoints hold."""

    def batches(self, epoch: int | None, part: tuple[int, int]) -> Any:
        """A ``DataLoader`` of training batches as this epoch shuffles them, or, for None, of validation batches.

        ``part`` (k, n) is the share of the k-th of n processes; all shares have equally many batches.
        """

    def users(self, batch: Any) -> int:
        """How many users a batch has, by which means over batches are weighted."""

    def loss(self, batch: Any, epoch: int | None) -> "Tensor":
        """Mean loss of a batch, a scalar. With None, the validation loss, by the same rule in every epoch."""

    def optimizer(self, training: Training) -> tuple[Any, Any]:
        """The optimiser, and the scheduler that steps after each epoch (or None)."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a training went; the learner's module has the weights of the best epoch."""

    metrics: Mapping[str, float]
    """``validation_loss`` of the best epoch, and ``epochs``."""
    epochs: Sequence[Mapping[str, float]]
    """What each epoch ended with: ``epoch``, ``train_loss``, ``validation_loss``."""
    checkpoints: str
    """Folder from which a killed run of the same inputs goes on; of no use once the version is registered."""


class Trainer(Protocol):
    """Fits a learner: epochs, early stopping, checkpoints, several processes, progress."""

    def fit(self, learner: Learner, depends_on: Mapping[str, Any]) -> Fitted:
        """Train until the validation loss stops falling, or go on from a killed run of equal ``depends_on``.

        Raises:
            TrainingError: a loss is not finite.
        """


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model, to be saved as a new version."""

    tensors: Mapping[str, Any]
    """By name, on CPU, contiguous."""
    manifest: Any
    """Of the snapshots that the version reads."""
    fitted: Fitted
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Further ones: of validation users, of the alignment."""
    aligned_to: str | None = None
    """The version whose space the embeddings are in."""


class Scorer(Protocol):
    """A loaded version. Not a bit of a user's result may depend on the other users of a batch."""

    @property
    def columns(self) -> Sequence[str]:
        """The snapshot's columns that it reads; ``user_id`` is one of them."""

    def score(self, rows: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """By output name, its rows without the key of the run: for ``embeddings`` user_id, embedding, events.

        Raises:
            ModelError: the rows are not of the version's manifest and vocabulary.
        """


class Kind(Protocol):
    """A kind of model. One instance, ``KIND``, stands in the module that the catalogue names."""

    name: ClassVar[str]
    """Prefix of ``model_version``, and column ``kind`` of ``models``."""
    config: ClassVar[type[ModelSection]]
    """Its member of the union that ``model.kind`` discriminates."""
    reads: ClassVar[Form]
    writes: ClassVar[tuple[str, ...]]
    """Names of outputs (``gur_spark.outputs``), the main one first."""
    can: ClassVar[frozenset[Capability]]

    def prepare(self, preparation: Any) -> Sequence[str]:
        """Spark side: the folders that training reads, one per snapshot; mostly the snapshots' own.

        Args:
            preparation: a ``gur_spark.models.preparation.Preparation``, which this module must not know.
        """

    def count(self, preparation: Any, folders: Sequence[str]) -> Any:
        """Spark side: what else training needs, such as counts over all users; None where nothing."""

    def train(self, inputs: TrainingInputs, trainer: Trainer) -> Trained:
        """Torch side: build, fit, measure.

        Raises:
            SnapshotError, TrainingError, ModelError: the inputs cannot be learned from.
        """

    def load(self, artefact: Artefact) -> Scorer:
        """Torch side: a scorer with the artefact's weights.

        Raises:
            ModelError: the weights are not those of the configuration.
        """

    def untrained(self, artefact: Artefact, seed: int) -> Scorer:
        """Torch side: the same architecture over the same inputs with the weights it had before training."""


def seen_until(dates: Sequence[date], model: ModelSection) -> date:
    """The first date whose events a training on snapshots of these dates does not see."""
    from datetime import timedelta

    return max(dates) + timedelta(model.looks_ahead_days())
