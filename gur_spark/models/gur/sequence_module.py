"""Training GUR on sequences, in pytorch-lifestream's frame."""

# B = users, T = target values, I = inputs, V = values that may be standardised, L = latent width, N = values there

from typing import Any, Literal

import torch
from ptls.data_load.padded_batch import PaddedBatch
from ptls.frames.abs_module import ABSModule
from torch import Tensor, nn
from torchmetrics import Metric

from gur_spark.batches.aggregates import AggregateBatch
from gur_spark.errors import ModelError
from gur_spark.models.gur.autoencoder import ByField
from gur_spark.models.gur.layers import SELU, MultinomialHead, linear, mlp
from gur_spark.models.gur.losses import reconstruction_loss
from gur_spark.models.gur.reconstruction import Reconstruction
from gur_spark.models.gur.sequence_door import AutoEncoderSeqEncoder


class GURModule(ABSModule):  # type: ignore[misc]  # pytorch-lifestream has no types
    """Trains an ``AutoEncoderSeqEncoder``; stands where ``CoLESModule`` stands.

    ``module(batch)`` -> (B, L); ``module.seq_encoder`` is what embeds, without the decoder.

    Args:
        loss: ``likelihood`` reconstructs numbers by squared error and each window's histogram of ids by its likelihood;
            ``mse`` all inputs by squared error, with the transaction encoder as it is: trained, it would shrink.
    """

    def __init__(
        self,
        seq_encoder: AutoEncoderSeqEncoder,
        loss: Literal["likelihood", "mse"] = "likelihood",
        validation_metric: Any = None,
        optimizer_partial: Any = None,
        lr_scheduler_partial: Any = None,
    ) -> None:
        if loss not in ("likelihood", "mse"):
            raise ModelError(f"loss '{loss}': expected 'likelihood' or 'mse'")
        metric = validation_metric if validation_metric is not None else ReconstructionR2()
        super().__init__(metric, seq_encoder, ReconstructionLoss(), optimizer_partial, lr_scheduler_partial)
        sizes = seq_encoder.category_max_size if loss == "likelihood" else {}
        if loss == "likelihood" and any(part.kind == "event" for part in seq_encoder.parts):
            raise ModelError("loss 'likelihood' needs a TrxEncoder without linear_projection_size; use loss='mse'")
        if loss == "mse":
            seq_encoder.trx_encoder.requires_grad_(False)
            seq_encoder.moments.gathered = len(seq_encoder.moments.mean_V)
        width, windows = len(seq_encoder.inputs), len(seq_encoder.windows)
        self._targets = seq_encoder.dense if loss == "likelihood" else width - windows
        hidden = [seq_encoder.latent_dim, max(1, width // 2), width]
        dropout = next((m.p for m in seq_encoder.encoder if isinstance(m, nn.Dropout)), 0.0)
        self.decoder = nn.Sequential(mlp(hidden, dropout), SELU())
        self.target_head = linear(width, self._targets)
        widths = {part.name: part.width for part in seq_encoder.parts}
        self.histogram_heads = ByField(
            {name: MultinomialHead(width, windows, size, widths[name]) for name, size in sizes.items()}
        )

    @property
    def metric_name(self) -> str:
        return "r2"

    @property
    def is_requires_reduced_sequence(self) -> bool:
        return True

    def forward(self, x: PaddedBatch | tuple[PaddedBatch, Tensor]) -> Tensor:
        """Embed a padded batch, or a batch of a data set's loader, (B, L)."""
        latent_BL: Tensor = self.seq_encoder(x[0] if isinstance(x, (tuple, list)) else x)
        return latent_BL

    def shared_step(self, x: PaddedBatch, y: Tensor) -> tuple[Reconstruction, AggregateBatch]:
        """Return the decoder's reconstruction, and its target."""
        pooled = self.seq_encoder.pool(x)
        last_BI = self.decoder(self.seq_encoder.encode(pooled))
        values_BV = self.seq_encoder.moments.standardise(pooled.values_BV.detach())
        made = Reconstruction(
            target_BT=values_BV[:, : self._targets],
            prediction_BT=self.target_head(last_BI),
            logits={name: head(last_BI) for name, head in self.histogram_heads.items()},
        )
        histograms = self.seq_encoder.histograms(x) if len(self.histogram_heads) else {}
        return made, AggregateBatch(pooled.values_BV, histograms)


class ReconstructionLoss(nn.Module):
    """Mean over the users of a batch of ``losses.reconstruction_loss``."""

    def forward(self, made: Reconstruction, batch: AggregateBatch) -> Tensor:
        return reconstruction_loss(made, batch).mean()


class ReconstructionR2(Metric):
    """``1 - residual / total sum of squares`` of the standardised values that are known, over all columns."""

    count: Tensor
    total: Tensor
    squares: Tensor
    residual: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("count", "total", "squares", "residual"):
            self.add_state(name, default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, made: Reconstruction, batch: AggregateBatch) -> None:
        there_BT = ~made.target_BT.isnan()
        target_N, prediction_N = made.target_BT[there_BT].double(), made.prediction_BT[there_BT].double()
        self.count += len(target_N)
        self.total += target_N.sum()
        self.squares += target_N.square().sum()
        self.residual += (target_N - prediction_N).square().sum()

    def compute(self) -> Tensor:
        around_mean = self.squares - self.total.square() / self.count.clamp(min=1)
        return (1 - self.residual / around_mean).float()
