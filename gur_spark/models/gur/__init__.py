"""The GUR autoencoder on windowed aggregates (Fazelnia et al. 2024, arXiv 2403.00584), as a kind of model."""

from typing import ClassVar

from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import Capability, Form, ModelSection


class Gur:
    """The kind ``gur``."""

    name: ClassVar[str] = "gur"
    config: ClassVar[type[ModelSection]] = GurModel
    reads: ClassVar[Form] = Form.AGGREGATES
    writes: ClassVar[tuple[str, ...]] = ("embeddings",)
    can: ClassVar[frozenset[Capability]] = frozenset(Capability)


KIND = Gur()
