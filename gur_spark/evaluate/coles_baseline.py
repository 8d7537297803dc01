"""CoLES as a baseline: the kind ``coles``, trained for a report until its validation loss stops falling."""

import logging
from collections.abc import Sequence

import pyarrow as pa
from pydantic import ValidationError

from gur_spark import storage
from gur_spark.arrays import Array
from gur_spark.config.training import Training
from gur_spark.errors import EvaluationError
from gur_spark.evaluate.encoded import encode_users
from gur_spark.evaluate.figures import COLES
from gur_spark.models.catalogue import find
from gur_spark.models.kind import TrainingInputs, VocabularyRef
from gur_spark.registry.artefact import Origin, load_model
from gur_spark.snapshots.files import row_groups
from gur_spark.training.version import train_version

log = logging.getLogger("gur_spark")

BATCH_SIZE, LEARNING_RATE, PATIENCE = 64, 0.002, 5
"""Settings that the authors published for a few thousand users, with early stopping added."""


def train_coles(
    trained_on: str,
    asked: Sequence[tuple[str, pa.Array]],
    vocabulary: VocabularyRef,
    width: int,
    training: Training,
    epochs: int,
    work: str,
) -> tuple[list[Array], str]:
    """Train CoLES and embed the users of each date, (N, L); NaN for a user without events.

    Returns the embeddings of each date, and a sentence on how the model was trained.

    Args:
        trained_on: folder of the sequences that it learns from.
        asked: per date, the folder of the sequences and the users.
        training: seed, threads and validation share are taken from it.
        epochs: the budget; training stops earlier when the validation loss stops falling.
        work: folder for checkpoints and the artefact. The caller removes it.

    Raises:
        EvaluationError: CoLES cannot have an embedding of this width.
        SnapshotError, TrainingError, MissingExtra: it cannot be trained.
    """
    kind = find("coles")
    settings = training.model_copy(
        update={
            "epochs": epochs,
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "weight_decay": 0.0,
            "patience": PATIENCE,
            "processes": 1,
        }
    )
    try:
        model = kind.config.model_validate({"kind": kind.name, "latent_dim": width})
    except ValidationError as error:
        raise EvaluationError(
            f"CoLES cannot have the embedding's latent_dim of {width}:  {error.errors()[0]['msg']}"
        ) from error
    inputs = TrainingInputs(
        snapshots=[trained_on], folders=[trained_on], vocabulary=vocabulary, model=model, training=settings
    )
    origin = Origin(snapshots=(trained_on,), dates=(), seen_until=None)
    made = train_version(kind, inputs, origin, storage.join(work, "checkpoints"), storage.join(work, "artefacts"))
    took = int(made.metrics["epochs"])
    why = "its budget, so longer training may give more" if took >= epochs else "its validation loss stopped falling"
    trained, known = int(made.metrics["train_rows"]), sum(group.rows for group in row_groups(trained_on))
    said = (
        f"{COLES} trained for {took} epochs of {-(-trained // BATCH_SIZE)} step(s) ({why}) on {trained:,} users, "
        f"{trained / known:.0%} of those with a sequence"
    )
    log.info(said)
    scorer = load_model(made.path).scorer
    return [encode_users(folder, scorer, users) for folder, users in asked], said
