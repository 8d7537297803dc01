"""Check that a model version can read a snapshot."""

from typing import TYPE_CHECKING

from gur_spark.errors import ModelError
from gur_spark.snapshots.files import differing_columns
from gur_spark.snapshots.visible import Snapshot

if TYPE_CHECKING:
    from gur_spark.registry.artefact import LoadedModel


def check_fit(model: "LoadedModel", snapshot: Snapshot) -> None:
    """Refuse a snapshot that the model cannot read.

    Raises:
        ModelError: it has another form, manifest or vocabulary; the message names the columns or the versions.
    """
    if snapshot.form != model.kind.reads:
        raise ModelError(
            f"model {model.version} is of kind '{model.kind.name}', which reads {model.kind.reads}; the snapshot of "
            f"{snapshot.as_of} has the form {snapshot.form}"
        )
    if snapshot.manifest_hash != model.manifest.hash:
        differ = differing_columns(snapshot.manifest(), model.manifest)
        raise ModelError(
            f"model {model.version} was trained on manifest {model.manifest.hash}, the snapshot of {snapshot.as_of} "
            f"has {snapshot.manifest_hash}; they differ in {differ}"
        )
    vocabulary = model.vocabulary
    if snapshot.vocabulary_hash != vocabulary.hash:
        raise ModelError(
            f"model {model.version} was trained with vocabulary {vocabulary.version} ({vocabulary.hash}), "
            f"the snapshot of {snapshot.as_of} has {snapshot.vocabulary_version} ({snapshot.vocabulary_hash}); "
            f"make it again with --vocabulary {vocabulary.version}, or train a new version"
        )
