"""The GUR autoencoder on windowed aggregates (Fazelnia et al. 2024, arXiv 2403.00584), as a kind of model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from gur_spark.models.gur.settings import GurModel
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

if TYPE_CHECKING:
    from gur_spark.models.preparation import Preparation


class Gur:
    """The kind ``gur``. It embeds in float64, in blocks of 1,024 rows, and rounds to float32."""

    name: ClassVar[str] = "gur"
    config: ClassVar[type[ModelSection]] = GurModel
    reads: ClassVar[Form] = Form.AGGREGATES
    writes: ClassVar[tuple[str, ...]] = ("embeddings",)
    can: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.ALIGNMENT, Capability.MAPPING, Capability.SMOOTHING, Capability.LIVE, Capability.COPYING}
    )

    def prepare(self, preparation: "Preparation") -> Sequence[str]:
        from gur_spark.models.gur.pairs import write_pairs

        if not {"future", "contrastive"} & GurModel.of(preparation.config.model).learns_from:
            return [snapshot.path for snapshot in preparation.snapshots]
        tables, folder = preparation.tables, preparation.tables.folder("pairs")
        return write_pairs(tables, preparation.config, preparation.snapshots, preparation.vocabulary, folder)

    def count(self, preparation: "Preparation", folders: Sequence[str]) -> Any:
        from gur_spark.models.gur.counting import count_inputs

        model = GurModel.of(preparation.config.model)
        if model.tables != "frozen" or not model.nonlinear_width:
            return None
        sizes, training = preparation.vocabulary.sizes, preparation.config.training
        return count_inputs(preparation.tables.spark, folders, sizes, model, training)

    def train(self, inputs: TrainingInputs, trainer: Trainer) -> Trained:
        from gur_spark.models.gur.train import train

        return train(inputs, trainer)

    def load(self, artefact: Artefact) -> Scorer:
        from gur_spark.models.gur.scorer import load_scorer

        return load_scorer(artefact)

    def untrained(self, artefact: Artefact, seed: int) -> Scorer:
        from gur_spark.models.gur.scorer import untrained_scorer

        return untrained_scorer(artefact, seed)


KIND = Gur()
