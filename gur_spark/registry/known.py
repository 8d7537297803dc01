"""The table ``models``: the versions and the folders of their artefacts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import ModelError, nearest
from gur_spark.features.declare.manifest import AnyManifest, parse_manifest
from gur_spark.models.kind import VocabularyRef
from gur_spark.registry.card import Card, seen_until_of, verified_card
from gur_spark.registry.files import MANIFEST, pack
from gur_spark.registry.names import VersionName
from gur_spark.registry.published import published
from gur_spark.tables.delta import Tables

_TRAIN = "train --as-of DATE"


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One row of ``models``, and the name of its rows in outputs."""

    model_version: str
    rows_version: str
    """The ``model_version`` of its rows in the output's table: its own name, or that of their means."""
    pipeline: str
    """Name of the pipeline that trained it."""
    kind: str
    path: str
    manifest_hash: str
    vocabulary_version: int
    vocabulary_hash: str
    training_snapshots: Sequence[str]
    """Folders of the snapshots."""
    outputs: Sequence[str]

    @property
    def vocabulary(self) -> tuple[int, str]:
        """Version and hash of the vocabulary of the snapshots that the version reads."""
        return self.vocabulary_version, self.vocabulary_hash

    def manifest(self) -> AnyManifest:
        """The manifest of the snapshots that the version reads.

        Raises:
            ModelError: it is missing from the artefact, or was altered.
        """
        path = storage.join(self.path, MANIFEST)
        try:
            manifest = parse_manifest(storage.read_text(path))
        except (OSError, ValueError) as error:
            raise ModelError(f"model {self.path}: {MANIFEST} is missing or damaged: {error}") from error
        if manifest.hash != self.manifest_hash:
            raise ModelError(f"model {self.path}: {MANIFEST} is {manifest.hash}, expected {self.manifest_hash}")
        return manifest


def register(
    tables: Tables,
    pipeline: str,
    card: Card,
    path: str,
    manifest_hash: str,
    vocabulary: VocabularyRef,
    metrics: Mapping[str, float],
) -> None:
    """Append the row of a version that this pipeline trained."""
    row = (
        card.model_version,
        storage.absolute(path),
        pipeline,
        card.kind,
        card.upstream,
        list(card.outputs),
        manifest_hash,
        vocabulary.version,
        vocabulary.hash,
        list(card.training_snapshots),
        dict(metrics),
        card.aligned_to,
        card.code_commit,
        card.created,
    )
    tables.create("models", schema.MODELS)
    tables.append(tables.spark.createDataFrame([row], schema.MODELS).coalesce(1), "models")


def rows_name(tables: Tables, config: Config, version: str) -> str:
    """Return the name by which readers of an output find a version of the command line; ``newest`` is looked up.

    Raises:
        ModelError: it is ``newest``, and there is no version.
    """
    return find_model(tables, config, version).rows_version if version == "newest" else version


def find_model(tables: Tables, config: Config, version: str | None = None) -> ModelVersion:
    """Find a version by name, ``newest`` of the pipeline, or with None or ``published`` the published one.

    Before the first publish, the newest version stands for the published one. A name may be that of a version's means
    over several dates (``spaces.smoothing``). ``newest`` stands for the means of the newest version where
    ``scoring.smoothing`` makes some.

    Raises:
        ModelError: there is no such version; the message lists the existing ones.
    """
    if not tables.exists("models"):
        raise ModelError(f"no model yet: no version was trained in these tables; run {_TRAIN}")
    if version in (None, "published"):
        switch = published(tables, config.name)
        version = switch.model_version if switch else "newest"
    assert version is not None
    rows = tables.read("models").orderBy(F.desc("created"), F.desc("model_version")).collect()
    asked = VersionName.parse(version)
    if asked.space:
        raise ModelError(
            f"'{version}' is no model version, but the rows of {asked.base} in the space of {asked.space}; "
            f"name {asked.base}"
        )
    for row in rows:
        newest = version == "newest" and row.pipeline == config.name
        if newest or row.model_version == asked.base:
            name = str(VersionName(row.model_version, config.scoring.smoothing)) if newest else version
            names = [field for field in ModelVersion.__dataclass_fields__ if field != "rows_version"]
            return ModelVersion(rows_version=name, **{field: row[field] for field in names})
    known = [row.model_version for row in rows]
    if version == "newest":
        raise ModelError(
            f"no model yet: no version was trained by pipeline '{config.name}'; run {_TRAIN}; versions of other "
            f"pipelines: {known}"
        )
    raise ModelError(f"no model version '{version}'; available: {known}{nearest(version, known)}")


def find_own_model(tables: Tables, config: Config, version: str | None = None) -> ModelVersion:
    """Find a version as ``find_model`` does, for a job that writes or publishes its rows.

    Raises:
        ModelError: there is no such version, or another pipeline trained it.
    """
    found = find_model(tables, config, version)
    if found.pipeline != config.name:
        raise ModelError(
            f"{found.model_version} was trained by pipeline '{found.pipeline}', and this is '{config.name}': only the "
            f"gates of '{found.pipeline}' protect what its consumers read; use the configuration of that pipeline, or "
            "name a version of this one (--model newest)"
        )
    return found


def versions_of_its_pipeline(tables: Tables, version: str) -> set[str]:
    """Find all versions of the pipeline that trained a version; none if the version is not in ``models``.

    The name may be that of means, or of rows in the space of another version.
    """
    if not tables.exists("models"):
        return set()
    rows = tables.read("models").select("model_version", "pipeline").collect()
    pipeline_of = {row["model_version"]: row["pipeline"] for row in rows}
    own = pipeline_of.get(VersionName.parse(version).base)
    return {name for name, pipeline in pipeline_of.items() if pipeline == own}


def seen_until(tables: Tables, version: str) -> date:
    """Read the first date with events that a version did not see in training; the name may be that of its means.

    Raises:
        ModelError: the version or its card is gone or damaged, or the card does not say; a leak could not be ruled out.
    """
    return seen_until_of(_card(tables, VersionName.parse(version).base))


def _card(tables: Tables, version: str) -> Card:
    rows = tables.read("models", made_by="train").where(F.col("model_version") == version)
    row = rows.select("path").first()
    if row is None:
        raise ModelError(f"nothing is known of the training of {version}: it is not in models")
    return verified_card(pack(row["path"]))
