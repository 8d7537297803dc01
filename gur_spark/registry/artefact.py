"""Model versions as artefact folders: written once, never changed, refused when damaged.

``<parent>/<model_version>/`` holds the weights (safetensors, never pickle), the configuration, the manifest and
vocabulary the model is bound to, its metrics, and a card, written last, with a digest of every other file. What is
not needed to embed lies beside them: the losses of each epoch, and ``MODEL_CARD.md``, which says all this to people.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gur_spark import storage
from gur_spark.batches.aggregates import Layout, to_batch
from gur_spark.config.training import Training
from gur_spark.errors import ModelError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.settings import GurModel, training_from_format_1
from gur_spark.registry import card as model_card
from gur_spark.spaces.alignment import Alignment

WEIGHTS, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"
VOCABULARY, METRICS, CARD = "vocabulary.json", "metrics.json", "card.json"
CONTENT = (WEIGHTS, CONFIG, MANIFEST, VOCABULARY, METRICS)
EPOCHS, MODEL_CARD = "epochs.json", "MODEL_CARD.md"
KIND = "gur"
BLOCK = 1024
"""Rows that are embedded at a time, no more and no fewer."""
ROTATION, SHIFT = "alignment.rotation", "alignment.shift"
"""Names among the weights."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Where a model version comes from."""

    model_version: str
    training_snapshots: tuple[str, ...]
    training_dates: tuple[str, ...] = ()
    """Their ISO dates, ascending."""
    code_commit: str | None
    created: datetime
    """UTC."""
    kind: str = KIND
    aligned_to: str | None = None
    """The version whose space its embeddings are in."""
    seen_until: str | None = None
    """The first ISO date whose events it was not trained on: the newest training date, or of the loss ``future`` the
    end of what follows it. None in cards of before it was kept."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model version, ready to embed."""

    card: Card
    module: GUR
    """In eval mode, float64."""
    layout: Layout
    model: GurModel
    training: Training
    vocabulary_version: int
    vocabulary_hash: str
    metrics: Mapping[str, float]
    motion: tuple[Tensor, Tensor] | None = None
    """Rotation (L, L) and shift (L,) into the space of ``card.aligned_to``, float64."""

    @property
    def version(self) -> str:
        return self.card.model_version

    @property
    def manifest(self) -> Manifest:
        """The manifest of the aggregates it takes."""
        return self.layout.manifest

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.layout.sizes

    @property
    def latent_dim(self) -> int:
        """Width L of an embedding."""
        return self.model.latent_dim

    def embed(self, rows: pa.RecordBatch) -> npt.NDArray[np.float32]:
        """Embeddings of the users of these rows, float32 (B, L); not a bit of a user's depends on the other rows.

        A matrix product rounds differently for another number of rows, so they are embedded in blocks of ``BLOCK``, of
        which the last is filled up; in float64, so that another machine's product shows in the seventh digit at most.

        Raises:
            ModelError: the rows are not aggregates of the model's manifest and vocabulary.
        """
        return self.embed_exactly(rows).astype(np.float32)

    @torch.inference_mode()
    def embed_exactly(self, rows: pa.RecordBatch) -> npt.NDArray[np.float64]:
        """``embed`` before it is rounded to float32."""
        vectors = np.empty((rows.num_rows, self.latent_dim))
        for start in range(0, rows.num_rows, BLOCK):
            block = rows.slice(start, BLOCK)
            size = block.num_rows
            if size < BLOCK:
                block = block.take(pa.array(np.minimum(np.arange(BLOCK), size - 1)))
            vectors[start : start + size] = self._embed_block(block)[:size].numpy()
        return vectors

    def _embed_block(self, block: pa.RecordBatch) -> Tensor:
        latent_BL = self.module.encode(to_batch(block, self.layout).double())
        if self.motion is not None:
            rotation_LL, shift_L = self.motion
            latent_BL = latent_BL @ rotation_LL + shift_L
        return latent_BL


def save(
    parent: str,
    module: GUR,
    *,
    layout: Layout,
    model: GurModel,
    training: Training,
    vocabulary_version: int,
    vocabulary_hash: str,
    metrics: Mapping[str, float],
    training_snapshots: tuple[str, ...],
    training_dates: tuple[str, ...] = (),
    epochs: Sequence[Mapping[str, float]] = (),
    code_commit: str | None,
    alignment: Alignment | None = None,
    seen_until: date | None = None,
) -> Card:
    """Write a new model version under ``parent``; the card comes last, so a killed write cannot be loaded."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    if alignment:
        weights |= {ROTATION: torch.from_numpy(alignment.rotation_LL), SHIFT: torch.from_numpy(alignment.shift_L)}
    vocabulary = {"version": vocabulary_version, "hash": vocabulary_hash, "sizes": dict(layout.sizes)}
    files = {
        WEIGHTS: save_tensors(weights),
        CONFIG: _json({"model": model.model_dump(mode="json"), "training": training.model_dump(mode="json")}),
        MANIFEST: layout.manifest.to_json().encode(),
        VOCABULARY: _json(vocabulary),
        METRICS: _json(dict(metrics)),
    }
    created = datetime.now(UTC).replace(microsecond=0)
    card = Card(
        model_version=f"{KIND}-{created:%Y%m%dT%H%M%S}-{_content_hash(files)}",
        training_snapshots=training_snapshots,
        training_dates=training_dates,
        code_commit=code_commit,
        created=created,
        aligned_to=alignment.to if alignment else None,
        seen_until=seen_until.isoformat() if seen_until else None,
    )
    text = model_card.render(
        card,
        manifest=layout.manifest,
        sizes=layout.sizes,
        vocabulary=f"{vocabulary_version} ({vocabulary_hash})",
        model=model,
        training=training,
        metrics=metrics,
        epochs=epochs,
    )
    files |= {EPOCHS: _json(list(epochs)), MODEL_CARD: text.encode()}
    for name, content in {**files, CARD: _card_json(card, files)}.items():
        storage.write_bytes(storage.join(parent, card.model_version, name), content)
    return card


def load_model(path: str) -> LoadedModel:
    """Load the model version in this folder.

    Raises:
        ModelError: a file is missing or damaged; the message says which.
    """
    return unpack(pack(path))


def pack(path: str) -> dict[str, bytes]:
    """The files of a model version, to be shipped to workers and loaded there with ``unpack``."""
    files = {}
    for name in (CARD, *CONTENT):
        try:
            files[name] = storage.read_bytes(storage.join(path, name))
        except FileNotFoundError as error:
            raise ModelError(f"model {path}: {name} is missing; expected {', '.join((CARD, *CONTENT))}") from error
    return files


def unpack(files: Mapping[str, bytes]) -> LoadedModel:
    """Load a model version from its files.

    Raises:
        ModelError: a file was altered, or the weights are not those of the configuration.
    """
    card = _read_card(files)
    try:
        config, vocabulary = json.loads(files[CONFIG]), json.loads(files[VOCABULARY])
        layout = Layout.of(Manifest.from_json(files[MANIFEST].decode()), vocabulary["sizes"])
        model, training = _sections(config["model"], config["training"])
        metrics = json.loads(files[METRICS])
        weights = load_tensors(files[WEIGHTS])
        motion = (weights.pop(ROTATION), weights.pop(SHIFT)) if ROTATION in weights else None
    except (ValueError, KeyError, TypeError, ValidationError, SafetensorError) as error:
        raise ModelError(f"model {card.model_version} cannot be read: {error}") from error
    return LoadedModel(
        card=card,
        module=_module(layout, model, weights, card.model_version),
        layout=layout,
        model=model,
        training=training,
        vocabulary_version=vocabulary["version"],
        vocabulary_hash=vocabulary["hash"],
        metrics=metrics,
        motion=motion,
    )


def _sections(model: Mapping[str, Any], training: Mapping[str, Any]) -> tuple[GurModel, Training]:
    """The sections of a version; artefacts from before kinds name no kind, and keep some keys elsewhere."""
    if "kind" in model:
        return GurModel(**model), Training(**training)
    return GurModel.from_format_1(model, training), training_from_format_1(training)


def _module(layout: Layout, model: GurModel, weights: dict[str, Tensor], version: str) -> GUR:
    module = GUR(layout, model)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        lines = [f"{name}: expected {expected.get(name, 'none')}, got {found.get(name, 'none')}" for name in different]
        raise ModelError(f"model {version}: the weights are not those of its configuration:\n  " + "\n  ".join(lines))
    module.load_state_dict(weights)
    return module.double().eval().requires_grad_(False)


def _read_card(files: Mapping[str, bytes]) -> Card:
    """The card, once every other file has the digest it names and the version is that of the content."""
    try:
        values = json.loads(files[CARD])
        digests = values.pop("sha256")
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        card = Card(**{**values, "created": datetime.fromisoformat(values["created"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{CARD} cannot be read: {error!r}") from error
    for name in CONTENT:
        found = sha256(files[name]).hexdigest()
        if digests.get(name) != found:
            raise ModelError(
                f"model {card.model_version}: {name} was altered or cut short: "
                f"expected sha256 {digests.get(name)}, got {found} ({len(files[name])} bytes)"
            )
    if not card.model_version.endswith(_content_hash(files)):
        raise ModelError(f"model {card.model_version}: the files are those of another version ({_content_hash(files)})")
    return card


def _content_hash(files: Mapping[str, bytes]) -> str:
    return sha256(b"".join(sha256(files[name]).digest() for name in CONTENT)).hexdigest()[:8]


def _card_json(card: Card, files: Mapping[str, bytes]) -> bytes:
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    return _json({**vars(card), "created": card.created.isoformat(), "sha256": digests})


def _json(values: dict[str, Any] | list[Any]) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
