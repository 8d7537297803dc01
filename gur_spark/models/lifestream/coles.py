"""CoLES (Babaev et al. 2022, https://arxiv.org/abs/2002.08232) as a kind of model: contrastive learning of event
sequences.

It reads snapshots of sequences and writes an embedding per user. A user without events in the window has no row in
such a snapshot, and so no embedding. ``events`` counts the events of the row, at most ``sequences.max_events``.

An embedding is the state of a recurrent network after the user's events, and beside it how recently, how often and how
long the user was active. Training makes slices of a user from different times alike, so the longer it takes, the less
the state tells of recency; ``probe`` measures both.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from gur_spark.extras import import_extra
from gur_spark.models.kind import (
    Artefact,
    Capability,
    Form,
    ModelSection,
    Scorer,
    Trained,
    Trainer,
    TrainingInputs,
)
from gur_spark.models.lifestream.settings import ColesModel

if TYPE_CHECKING:
    from gur_spark.models.preparation import Preparation


class Coles:
    """The kind ``coles``.

    It embeds in float32, in blocks of a fixed size that are filled up, so the bits do not depend on other users of a
    batch. The result of another machine differs in the seventh digit.
    """

    name: ClassVar[str] = "coles"
    config: ClassVar[type[ModelSection]] = ColesModel
    reads: ClassVar[Form] = Form.SEQUENCES
    writes: ClassVar[tuple[str, ...]] = ("embeddings",)
    can: ClassVar[frozenset[Capability]] = frozenset({Capability.MAPPING, Capability.SMOOTHING})

    def prepare(self, preparation: "Preparation") -> Sequence[str]:
        return [snapshot.path for snapshot in preparation.snapshots]

    def count(self, preparation: "Preparation", folders: Sequence[str]) -> Any:
        return None

    def train(self, inputs: TrainingInputs, trainer: Trainer) -> Trained:
        _check_library()
        from gur_spark.models.lifestream.train import train

        return train(inputs, trainer)

    def load(self, artefact: Artefact) -> Scorer:
        _check_library()
        from gur_spark.models.lifestream.scorer import load_scorer

        return load_scorer(artefact)

    def untrained(self, artefact: Artefact, seed: int) -> Scorer:
        _check_library()
        from gur_spark.models.lifestream.scorer import untrained_scorer

        return untrained_scorer(artefact, seed)


KIND = Coles()


def _check_library() -> None:
    """Check that pytorch-lifestream is installed.

    Raises:
        MissingExtra: it is not.
    """
    import_extra("ptls", "sequences", "a model of kind coles")
