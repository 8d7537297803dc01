"""A trained autoencoder, ready to embed rows of aggregates."""

# B = users, L = width of an embedding

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gur_spark.arrays import Array, Floats, to_lists
from gur_spark.batches.aggregates import to_batch
from gur_spark.batches.layout import Layout
from gur_spark.models.gur.autoencoder import GUR, Encoder, make_encoder
from gur_spark.models.gur.settings import GurModel
from gur_spark.models.kind import Artefact
from gur_spark.models.weights import read_weights, set_weights

BLOCK = 1024
"""Rows of a block. Exactly so many are embedded at a time."""

ROTATION, SHIFT = "alignment.rotation", "alignment.shift"
"""Names of the alignment among the weights."""


@dataclass(frozen=True, kw_only=True)
class GurScorer:
    """Scorer that embeds users in float64 and rounds to float32."""

    module: Encoder
    """The module in eval mode, float64."""
    layout: Layout
    motion: tuple[Tensor, Tensor] | None = None
    """Rotation (L, L) and shift (L,) into the space of an older version, float64."""

    @property
    def columns(self) -> Sequence[str]:
        return list(dict.fromkeys(["user_id", *self.layout.columns, self._events]))

    @property
    def _events(self) -> str:
        return f"events_{self.layout.windows[-1].name}"

    def score(self, rows: pa.RecordBatch) -> Mapping[str, pa.RecordBatch]:
        """Score rows: ``embeddings`` has one row per row of the snapshot."""
        columns = [rows["user_id"], to_lists(self.vectors(rows)), rows[self._events]]
        return {"embeddings": pa.RecordBatch.from_arrays(columns, names=["user_id", "embedding", "events"])}

    def vectors(self, rows: pa.RecordBatch) -> Floats:
        """Embed the users of these rows, float32 (B, L). No bit of an embedding depends on the other rows.

        A matrix product rounds differently for another number of rows. So rows are embedded in blocks of ``BLOCK``, and
        the last block is filled up. In float64, the product of another machine differs in the seventh digit at most.

        Raises:
            ModelError: the rows are not aggregates of the model's manifest and vocabulary.
        """
        return self.exact_vectors(rows).astype(np.float32)

    @torch.inference_mode()
    def exact_vectors(self, rows: pa.RecordBatch) -> Array:
        """Embed as ``vectors`` does, without rounding to float32."""
        vectors = np.empty((rows.num_rows, self.module.latent_dim))
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


def load_scorer(artefact: Artefact) -> GurScorer:
    """Make the scorer of an artefact.

    Raises:
        ModelError: the weights cannot be read, or are not those of the configuration.
    """
    layout = Layout.of(artefact.manifest, artefact.vocabulary.sizes)
    weights = read_weights(artefact)
    motion = (weights.pop(ROTATION), weights.pop(SHIFT)) if {ROTATION, SHIFT} <= weights.keys() else None
    # Loading a version must not move torch's generator, from which a training beside it draws.
    with torch.random.fork_rng(devices=[]):
        module = make_encoder(layout, cast(GurModel, artefact.model))
    set_weights(module, weights, artefact.version)
    return _ready(module, layout, motion)


def untrained_scorer(artefact: Artefact, seed: int) -> GurScorer:
    """Make a scorer with the same architecture and standardised inputs, with weights as drawn before training.

    The directions of a linear path are random ones.
    """
    trained, model = load_scorer(artefact).module, cast(GurModel, artefact.model)
    layout = Layout.of(artefact.manifest, artefact.vocabulary.sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make_encoder(layout, model).double()
    if isinstance(module, GUR) and isinstance(trained, GUR):
        module.inputs.mean_T.copy_(trained.inputs.mean_T)
        module.inputs.std_T.copy_(trained.inputs.std_T)
        if model.tables == "frozen":
            # Frozen tables are an input of the encoder: they are computed from the data, not learned with it.
            module.inputs.tables.load_state_dict(trained.inputs.tables.state_dict())
    if module.linear and trained.linear:
        module.linear.load_state_dict(trained.linear.state_dict())
        module.linear.randomise(seed)
    return _ready(module, layout, None)


def _ready(module: Encoder, layout: Layout, motion: tuple[Tensor, Tensor] | None) -> GurScorer:
    return GurScorer(module=module.double().eval().requires_grad_(False), layout=layout, motion=motion)
