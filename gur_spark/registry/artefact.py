"""Model versions as artefact folders: written once, never changed, refused when damaged.

``<parent>/<model_version>/`` holds the weights (safetensors, never pickle), the configuration, the manifest, the
vocabulary, the metrics, and a card. The card is written last and holds a digest of every other file. Further files are
not needed to score: the losses of each epoch, the names of dimensions where there are some, and ``MODEL_CARD.md`` for
people.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from pydantic import ValidationError
from safetensors.torch import save as save_tensors

from gur_spark import storage
from gur_spark.config.training import Training
from gur_spark.errors import ConfigError, ModelError
from gur_spark.features.declare.manifest import parse_manifest
from gur_spark.models.catalogue import find
from gur_spark.models.kind import Artefact, Kind, ModelSection, Scorer, Trained, VocabularyRef
from gur_spark.registry import model_card
from gur_spark.registry.card import Card, verified_card
from gur_spark.registry.files import (
    CARD,
    CONFIG,
    DIMENSIONS,
    EPOCHS,
    MANIFEST,
    METRICS,
    MODEL_CARD,
    VOCABULARY,
    WEIGHTS,
    content_hash,
    pack,
)

FORMAT = 3
"""Format of ``config.json``. Format 1, without a number, held the autoencoder's settings before there were kinds.
Format 2 had no linear part."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Origin of a new version: the data that it was trained on."""

    snapshots: tuple[str, ...]
    """Folders of the snapshots, by date."""
    dates: tuple[str, ...]
    """ISO dates of the snapshots, ascending."""
    seen_until: date | None
    """The first date with events that training did not see."""
    code_commit: str | None = None
    upstream: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A verified model version, ready to score."""

    card: Card
    artefact: Artefact
    scorer: Scorer

    @property
    def version(self) -> str:
        return self.card.model_version

    @property
    def kind(self) -> Kind:
        return find(self.card.kind)

    @property
    def model(self) -> ModelSection:
        return self.artefact.model

    @property
    def manifest(self) -> Any:
        """Manifest of the snapshots that the version reads."""
        return self.artefact.manifest

    @property
    def vocabulary(self) -> VocabularyRef:
        return self.artefact.vocabulary

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.artefact.metrics


def save(
    parent: str, kind: Kind, trained: Trained, model: ModelSection, training: Training, vocabulary: VocabularyRef,
    origin: Origin,
) -> Card:  # fmt: skip
    """Write a new model version under ``parent``. The card comes last, so an interrupted write cannot be loaded."""
    metrics = {**trained.fitted.metrics, **trained.metrics}
    settings = {"model": model.model_dump(mode="json"), "training": training.model_dump(mode="json")}
    files = {
        WEIGHTS: save_tensors(dict(trained.tensors)),
        CONFIG: _json({"format": FORMAT, **settings}),
        MANIFEST: trained.manifest.to_json().encode(),
        VOCABULARY: _json({**asdict(vocabulary), "sizes": dict(vocabulary.sizes)}),
        METRICS: _json(metrics),
    }
    created = datetime.now(UTC).replace(microsecond=0)
    card = Card(
        model_version=f"{kind.name}-{created:%Y%m%dT%H%M%S}-{content_hash(files)}",
        kind=kind.name,
        outputs=kind.writes,
        training_snapshots=origin.snapshots,
        training_dates=origin.dates,
        code_commit=origin.code_commit,
        created=created,
        aligned_to=trained.aligned_to,
        upstream=origin.upstream,
        seen_until=origin.seen_until.isoformat() if origin.seen_until else None,
    )
    artefact = _artefact(card.model_version, kind, files)
    text = model_card.render(card, artefact, training, trained.fitted.epochs, trained.dimensions)
    files |= {EPOCHS: _json(list(trained.fitted.epochs)), MODEL_CARD: text.encode()}
    if trained.dimensions:
        files[DIMENSIONS] = _json([asdict(dimension) for dimension in trained.dimensions])
    for name, content in {**files, CARD: card.to_json(files)}.items():
        storage.write_bytes(storage.join(parent, card.model_version, name), content)
    return card


def load_model(path: str) -> LoadedModel:
    """Load the model version in this folder.

    Raises:
        ModelError: a file is missing or damaged; the message names it.
    """
    return unpack(pack(path))


def unpack(files: Mapping[str, bytes]) -> LoadedModel:
    """Load a model version from its files.

    Raises:
        ModelError: a file was altered, or the weights are not those of the configuration.
    """
    card = verified_card(files)
    try:
        kind = find(card.kind)
    except ConfigError as error:
        raise ModelError(f"model {card.model_version}: {error}") from error
    artefact = _artefact(card.model_version, kind, files)
    return LoadedModel(card=card, artefact=artefact, scorer=kind.load(artefact))


def _artefact(version: str, kind: Kind, files: Mapping[str, bytes]) -> Artefact:
    try:
        config = json.loads(files[CONFIG])
        return Artefact(
            version=version,
            model=kind.config.stored(config.get("format", 1), config["model"], config["training"]),
            manifest=parse_manifest(files[MANIFEST].decode()),
            vocabulary=VocabularyRef(**json.loads(files[VOCABULARY])),
            weights=files[WEIGHTS],
            metrics=json.loads(files[METRICS]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise ModelError(f"model {version} cannot be read: {error}") from error


def _json(values: dict[str, Any] | list[Any]) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
