"""The GUR autoencoder (Fazelnia et al. 2024, arXiv 2403.00584) on aggregates.

``inputs -> cold and block dropout -> encoder -> nonlinear part``, and ``inputs -> linear path -> linear part``. The
decoder sees both parts, so the network need not keep what the linear part holds already. The heads that look forward or
at another view see the nonlinear part alone, which must tell all that it can of them. The mean of a user's embedded
categories over a window is an ``EmbeddingBag`` over the window's histogram, so events are not needed.
"""

# B = users, D = dense columns, P = pooled columns, T = D + P, F = empty flags, I = T + F
# W = windows, M = W * B bags (a user's window), V = ids of one field, E = width of its table
# H = width of the decoder's last layer, L = latent width

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gur_spark.batches.aggregates import AggregateBatch
from gur_spark.batches.layout import LIFETIME, Layout
from gur_spark.features.declare.manifest import Column
from gur_spark.models.gur.category_tables import Table, table_width
from gur_spark.models.gur.dropout import BlockDropout, ColdDropout
from gur_spark.models.gur.latent import Latent, Posterior
from gur_spark.models.gur.layers import SELU, MultinomialHead, linear, mlp, pooled
from gur_spark.models.gur.linear_path import LinearPath, empty_flags, log_scaled
from gur_spark.models.gur.reconstruction import Block, Prediction, Projections, Reconstruction
from gur_spark.models.gur.settings import GurModel
from gur_spark.statistics.moments import Moments


class GUR(nn.Module):
    """Denoising autoencoder of a user's windowed aggregates."""

    def __init__(self, layout: Layout, config: GurModel) -> None:
        super().__init__()
        self.latent_dim, self.unit_norm = config.latent_dim, config.unit_norm
        self.loss_weights = {str(name): weight for name, weight in config.loss.items()}
        if config.latent == "variational":
            self.loss_weights["kl"] = config.kl_weight
        self.warmup = config.kl_warmup_epochs if config.latent == "variational" else 0
        """Number of epochs in which the weight of the divergence rises."""
        self._temperature = config.contrastive.temperature
        self.inputs = Inputs(layout, config)
        width = len(self.inputs.blocks)
        half = max(1, width // 2)
        self.linear = LinearPath(layout, config.linear_width) if config.linear_width else None
        hides = layout.manifest.attributes and config.cold_dropout
        self.cold_dropout = ColdDropout(layout, config.cold_dropout) if hides else None
        self.block_dropout = BlockDropout(self.inputs.blocks, config.block_dropout)
        self.latent = Latent(config)
        self.encoder = mlp([width, width, half, self.latent.inputs], config.dropout)
        self.decoder = Decoder(layout, config, width, half, self.inputs.targets) if config.reconstructs else None
        self.future_head = FutureHead(layout, config) if "future" in config.loss else None
        # Cosines do not depend on a vector's length. The loss takes cosines of a projection, so the embedding itself
        # keeps its length, and with it the user's activity (a projection head: Chen et al. 2020, arXiv 2002.05709,
        # section 4.2).
        width = config.nonlinear_width
        self.projection_head = mlp([width, width, width], 0.0) if "contrastive" in config.loss else None

    @property
    def target_blocks(self) -> list[Block]:
        """The block of each reconstructed value, for which its R2 is reported."""
        return self.inputs.report_blocks[: self.decoder.target_head.out_features if self.decoder else 0]

    def weights(self, epoch: int) -> dict[str, float]:
        """The weight of each loss in this epoch of training; it is ``loss_weights`` once the warm-up is over."""
        rise = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        return {name: weight * rise if name == "kl" else weight for name, weight in self.loss_weights.items()}

    def encode(self, batch: AggregateBatch) -> Tensor:
        """Embed a batch, (B, L); in eval mode each embedding depends on its own user alone."""
        seen, nonlinear_BN, _ = self._nonlinear(batch, *self.inputs(batch))
        return self.latent.joined(self.linear(seen) if self.linear else None, self.latent.embedded(nonlinear_BN))

    def nonlinear(self, batch: AggregateBatch) -> Tensor:
        """Compute the nonlinear part of a batch before it is scaled, (B, N)."""
        return self._nonlinear(batch, *self.inputs(batch))[1]

    def forward(self, batch: AggregateBatch) -> Reconstruction:
        target_BT, flags_BF = self.inputs(batch)
        read_BL, posterior = self._read(batch, target_BT, flags_BF)
        pair = None
        if batch.views and self.projection_head:
            others = (self._read(view, *self.inputs(view))[0] for view in batch.views.batches)
            views = [self.latent.nonlinear(view_BL) for view_BL in (read_BL, *others)]
            first_BL, second_BL = map(self.projection_head, views[-2:])
            pair = Projections(first_BL, second_BL, self._temperature)
        prediction_BT, logits = self.decoder(read_BL) if self.decoder else (target_BT[:, :0], {})
        return Reconstruction(
            target_BT[:, : prediction_BT.shape[1]],
            prediction_BT,
            logits,
            future=self.future_head(self.latent.nonlinear(read_BL)) if self.future_head else None,
            posterior=posterior,
            projections=pair,
        )

    def _read(self, batch: AggregateBatch, input_BT: Tensor, flags_BF: Tensor) -> tuple[Tensor, Posterior | None]:
        """Compute the latent as the heads read it, (B, L), or (B, N) where none reads the linear part."""
        seen, nonlinear_BN, posterior = self._nonlinear(batch, input_BT, flags_BF)
        linear_BK = self.linear(seen) if self.linear and (self.decoder or self.unit_norm) else None
        return self.latent.for_heads(self.latent.joined(linear_BK, nonlinear_BN)), posterior

    def _nonlinear(
        self, batch: AggregateBatch, input_BT: Tensor, flags_BF: Tensor
    ) -> tuple[AggregateBatch, Tensor, Posterior | None]:
        """Compute the nonlinear part (B, N) and its distribution, and return the batch of which both parts are made."""
        if self.cold_dropout and self.training:
            batch = self.cold_dropout(batch)
            input_BT, flags_BF = self.inputs(batch)
        # A missing value becomes the mean (0 once standardised), and a flag marks it.
        there_BT = input_BT.masked_fill(input_BT.isnan(), 0.0)
        encoded_BX = self.encoder(self.block_dropout(torch.cat([there_BT, flags_BF], dim=1)))
        nonlinear_BN, posterior = self.latent(encoded_BX)
        return batch, nonlinear_BN, posterior


class LinearEncoder(nn.Module):
    """The linear path alone, where it has the whole width of the embedding: principal components in place of an
    autoencoder."""

    def __init__(self, layout: Layout, config: GurModel) -> None:
        super().__init__()
        self.latent_dim, self.unit_norm = config.latent_dim, config.unit_norm
        self.linear = LinearPath(layout, config.linear_width)

    def encode(self, batch: AggregateBatch) -> Tensor:
        """Embed a batch, (B, L); each embedding depends on its own user alone."""
        linear_BL: Tensor = self.linear(batch)
        return normalize(linear_BL, dim=1) if self.unit_norm else linear_BL


Encoder = GUR | LinearEncoder
"""Module that embeds."""


def make_encoder(layout: Layout, config: GurModel) -> Encoder:
    """Make the module of a configuration, with weights as drawn."""
    return GUR(layout, config) if config.nonlinear_width else LinearEncoder(layout, config)


class ByField(nn.ModuleDict):
    """Modules by the name of a field. A field may have the name of a method, such as ``type``."""

    _PREFIX = "of_"

    def __getitem__(self, field: str) -> nn.Module:
        return super().__getitem__(self._PREFIX + field)

    def __setitem__(self, field: str, module: nn.Module) -> None:
        super().__setitem__(self._PREFIX + field, module)

    def items(self) -> Any:
        return [(name.removeprefix(self._PREFIX), module) for name, module in super().items()]


class Decoder(nn.Module):
    """The decoder: the latent becomes standardised values and, for the likelihood, logits of the histograms."""

    def __init__(self, layout: Layout, config: GurModel, width: int, half: int, targets: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(mlp([config.latent_dim, half, width], config.dropout), SELU())
        # The likelihood reconstructs histograms themselves; the squared error reconstructs only their pooled form.
        by_likelihood = layout.sizes if config.reconstructs == "likelihood" else {}
        self.target_head = linear(width, len(layout.dense) if by_likelihood else targets)
        self.histogram_heads = ByField(
            {
                field: MultinomialHead(width, len(layout.windows_of[field]), size, table_width(size, config))
                for field, size in by_likelihood.items()
            }
        )

    def forward(self, latent_BL: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Decode values (B, T), and logits of each input's ids (M, V)."""
        last_BH = self.layers(latent_BL)
        return self.target_head(last_BH), {field: head(last_BH) for field, head in self.histogram_heads.items()}


class FutureHead(nn.Module):
    """The head of the loss ``future``. It is linear, so the embedding itself must tell what a simple model can read
    from it."""

    def __init__(self, layout: Layout, config: GurModel) -> None:
        super().__init__()
        width = config.nonlinear_width
        self.numbers = linear(width, 2)
        self.histogram_heads = ByField(
            {
                field: MultinomialHead(width, 1, layout.sizes[field], table_width(layout.sizes[field], config))
                for field in layout.manifest.categorical
            }
        )

    def forward(self, nonlinear_BN: Tensor) -> Prediction:
        active_B, log_events_B = self.numbers(nonlinear_BN).unbind(dim=1)
        logits = {field: head(nonlinear_BN) for field, head in self.histogram_heads.items()}
        return Prediction(active_B, log_events_B, logits)


class Inputs(nn.Module):
    """Inputs of the encoder: standardised numbers, pooled category embeddings, and flags of empty windows.

    Numbers are standardised with the mean and std of the training snapshots. Pooled blocks are standardised with frozen
    tables only, because trained tables move while they learn.
    """

    mean_T: Tensor
    std_T: Tensor
    _counts: Tensor

    def __init__(self, layout: Layout, config: GurModel) -> None:
        super().__init__()
        self._log_scale = config.dense_scale == "signed_log1p"
        self._frozen = config.tables == "frozen"
        self._windows = layout.windows_of
        self.tables = ByField(
            {
                field: nn.EmbeddingBag(size, table_width(size, config), mode="sum", include_last_offset=True)
                for field, size in layout.sizes.items()
            }
        ).requires_grad_(not self._frozen)
        self._dense = len(layout.dense)
        pooled = [
            Block(hours, field)
            for field, table in self._bags()
            for hours in self._windows[field]
            for _ in range(table.embedding_dim)
        ]
        empties = empty_flags(layout)
        self.targets = self._dense + len(pooled)
        dense = [_block(c) for c in layout.dense]
        self.blocks = [*dense, *pooled, *(dense[d] for d in empties)]
        # The number of a user's different ids tells of activity rather than of the histogram, like other numbers made
        # of a category. It counts as a number.
        self.report_blocks = [block._replace(field=None) if block.field in layout.sizes else block for block in dense]
        self.report_blocks += pooled
        self.register_buffer("_counts", torch.tensor(empties), persistent=False)
        self.register_buffer("mean_T", torch.zeros(self.targets))
        self.register_buffer("std_T", torch.ones(self.targets))

    def forward(self, batch: AggregateBatch) -> tuple[Tensor, Tensor]:
        """Standardise the values (B, T), NaN where missing, and flag the empty ones (B, F) with 1."""
        flags_BF = (batch.dense_BD[:, self._counts] == 0).to(batch.dense_BD.dtype)
        return self.standardised(self.raw(batch)), flags_BF

    def standardised(self, raw_BT: Tensor) -> Tensor:
        return (raw_BT - self.mean_T) / self.std_T

    def raw(self, batch: AggregateBatch) -> Tensor:
        """Collect the values before they are standardised, (B, T), NaN where missing."""
        x_BD = batch.dense_BD
        parts = [log_scaled(x_BD) if self._log_scale else x_BD]
        for field, table in self._bags():
            histogram = batch.histograms[field]
            pooled_ME = pooled(table.weight, histogram).masked_fill(~histogram.filled_M[:, None], torch.nan)
            parts += pooled_ME.view(len(self._windows[field]), len(batch), table.embedding_dim).unbind()
        return torch.cat(parts, dim=1)

    def set_tables(self, tables: Mapping[str, Table]) -> None:
        """Set frozen tables, one (V, E) per field."""
        for field, table in self._bags():
            table.weight.data.copy_(torch.from_numpy(tables[field]))

    def set_standardisation(self, moments: Moments) -> None:
        """Set mean and std of ``raw`` over the training users."""
        kept = self.targets if self._frozen else self._dense
        self.mean_T[:kept] = torch.from_numpy(moments.mean_T.astype(np.float32))[:kept]
        self.std_T[:kept] = torch.from_numpy(moments.std().astype(np.float32))[:kept]

    def _bags(self) -> Iterator[tuple[str, nn.EmbeddingBag]]:
        for field, table in self.tables.items():
            assert isinstance(table, nn.EmbeddingBag)
            yield field, table


def _block(column: Column) -> Block:
    return Block(column.window.length or LIFETIME, column.field)
