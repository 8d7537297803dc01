"""Contracts between the pipeline and a kind of model.

A *kind* is one member of the family: the GUR autoencoder, CoLES. The pipeline (training, registry, scoring, publishing,
evaluation, monitoring) knows a kind only by these contracts, and finds it by name in ``gur_spark.models.catalogue``.
``docs/kinds.md`` tells how to add one.

This module imports neither Spark nor torch. A module that defines a kind may not import them either when it is
imported: ``prepare`` imports Spark, ``train`` and ``load`` import torch, each inside the method.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
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
        """Number of days from a snapshot's date on with events that training sees; 0: none."""
        return 0

    @classmethod
    def of(cls, section: "ModelSection") -> Self:
        """Return the section as one of this kind, for code that only this kind runs."""
        assert isinstance(section, cls), f"expected a {cls.__name__}, got a section of kind {section.kind}"
        return section

    @classmethod
    def stored(cls, format: int, model: Mapping[str, Any], training: Mapping[str, Any]) -> Self:
        """The section of an artefact, by the format of its ``config.json``.

        Raises:
            ValidationError: a value is not valid, or a key is unknown.
        """
        return cls(**model)

    def title(self) -> str:
        """Title of the model card, one line."""
        return f"Model of kind {self.kind}."

    def learned(self) -> Iterable[str]:
        """Lines for the model card: the losses and settings that the model learns by."""
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
    """Manifest of the snapshots that it reads: ``Manifest`` or ``SequenceManifest``."""
    vocabulary: VocabularyRef
    weights: bytes
    """Tensors in the format safetensors."""
    metrics: Mapping[str, float]


Texts = Callable[[str, Sequence[int]], Mapping[int, str]]
"""Function: a field and ids -> the text of each id that stands for a value."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One number of an embedding that has a name."""

    number: int
    """Position in the embedding, from 1 on."""
    name: str
    """The largest loadings, such as ``amount_mean_30d +.71, amount_max_30d +.64``; empty where the number is 0."""
    variance: float
    """Share of the variance of all standardised inputs."""
    loadings: Mapping[str, float]
    """Weights of the standardised inputs in the number, the largest first. The squares of all weights add up to 1."""


@dataclass(frozen=True, kw_only=True)
class TrainingInputs:
    """Inputs of a training: folders that torch reads without Spark, and settings."""

    snapshots: Sequence[str]
    """Folders of the snapshots themselves, by date."""
    folders: Sequence[str]
    """Folders that training reads, one per snapshot: the snapshots' own, or those that ``prepare`` wrote."""
    vocabulary: VocabularyRef
    model: ModelSection
    training: Training
    align_to: Artefact | None = None
    """The older version with the space that the new one is moved into."""
    prepared: Any = None
    """Further data that ``count`` made for ``train``."""
    texts: Texts | None = None
    """Looks up the texts of ids, for the names of dimensions; None: ids stay numbers."""


class Learner(Protocol):
    """A module with its batches, loss and optimiser; the trainer drives it.

    It must be picklable, because each of several training processes gets one.
    """

    warmup: int
    """Epochs in which the loss may rise by design; patience begins after them."""

    @property
    def module(self) -> "nn.Module":
        """The module that is trained. Checkpoints hold its state."""

    def batches(self, epoch: int | None, part: tuple[int, int]) -> Any:
        """Load training batches as this epoch shuffles them, or, for None, validation batches, as a ``DataLoader``.

        ``part`` (k, n) is the share of the k-th of n processes; all shares have equally many batches.
        """

    def users(self, batch: Any) -> int:
        """Number of users of a batch, its weight in means over batches."""

    def loss(self, batch: Any, epoch: int | None) -> "Tensor":
        """Mean loss of a batch, a scalar. For None, it is the validation loss, by the same rule in every epoch."""

    def optimizer(self, training: Training) -> tuple[Any, Any]:
        """Make the optimiser, and the scheduler that steps after each epoch (or None)."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Result of a training; the learner's module has the weights of the best epoch."""

    metrics: Mapping[str, float]
    """``validation_loss`` of the best epoch, and ``epochs``."""
    epochs: Sequence[Mapping[str, float]]
    """``epoch``, ``train_loss``, ``train_loss_evaluated`` (of some training users after the epoch, without dropout) and
    ``validation_loss`` of each epoch. Empty for a model without epochs."""
    checkpoints: str | None = None
    """Folder from which a killed run of the same inputs continues; useless once the version is registered. None: there
    were no epochs."""


class Trainer(Protocol):
    """Fits a learner: epochs, early stopping, checkpoints, several processes, progress."""

    def fit(self, learner: Learner, depends_on: Mapping[str, Any]) -> Fitted:
        """Train until the validation loss stops falling, or continue a killed run of equal ``depends_on``.

        Raises:
            TrainingError: a loss is not finite.
        """


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model, to be saved as a new version."""

    tensors: Mapping[str, Any]
    """Tensors by name, on CPU, contiguous."""
    manifest: Any
    """Manifest of the snapshots that the version reads."""
    fitted: Fitted
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Further metrics: of validation users, of the alignment."""
    aligned_to: str | None = None
    """The version with the space that the embeddings are in."""
    dimensions: Sequence[Dimension] = ()
    """Numbers of the embedding that have a name."""


class Scorer(Protocol):
    """A loaded version. No bit of a user's result may depend on the other users of a batch."""

    @property
    def columns(self) -> Sequence[str]:
        """Columns of the snapshot that it reads; ``user_id`` is one of them."""

    def score(self, rows: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """Score rows: output name -> its rows without the run's columns, such as user_id, embedding, events for
        ``embeddings``.

        Raises:
            ModelError: the rows are not of the version's manifest and vocabulary.
        """


class Kind(Protocol):
    """A kind of model. One instance, ``KIND``, stands in the module that the catalogue names."""

    name: ClassVar[str]
    """Prefix of ``model_version``, and column ``kind`` of ``models``."""
    config: ClassVar[type[ModelSection]]
    """Member of the union that ``model.kind`` discriminates."""
    reads: ClassVar[Form]
    writes: ClassVar[tuple[str, ...]]
    """Names of outputs (``gur_spark.outputs``), the main one first."""
    can: ClassVar[frozenset[Capability]]

    def prepare(self, preparation: Any) -> Sequence[str]:
        """Spark side: prepare the folders that training reads, one per snapshot; mostly the snapshots' own.

        Args:
            preparation: a ``gur_spark.models.preparation.Preparation``, a type that this module must not import.
        """

    def count(self, preparation: Any, folders: Sequence[str]) -> Any:
        """Spark side: compute further data for training, such as counts over all users; None where there is none."""

    def train(self, inputs: TrainingInputs, trainer: Trainer) -> Trained:
        """Torch side: build, fit and measure a model.

        Raises:
            SnapshotError, TrainingError, ModelError: the inputs cannot be learned from.
        """

    def load(self, artefact: Artefact) -> Scorer:
        """Torch side: make a scorer with the artefact's weights.

        Raises:
            ModelError: the weights are not those of the configuration.
        """

    def untrained(self, artefact: Artefact, seed: int) -> Scorer:
        """Torch side: make a scorer of the same architecture and inputs, with weights as before training."""


def seen_until(dates: Sequence[date], model: ModelSection) -> date:
    """The first date with events that a training on snapshots of these dates does not see."""
    from datetime import timedelta

    return max(dates) + timedelta(model.looks_ahead_days())
