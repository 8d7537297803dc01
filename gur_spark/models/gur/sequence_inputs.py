"""Inputs of the sequence door's encoder: the parts of an encoded event, and their statistics."""

# B = users, V = values

from dataclasses import dataclass
from typing import Any, Literal

import torch
from ptls.nn.trx_encoder.trx_encoder_base import TrxEncoderBase
from torch import Tensor, nn

Kind = Literal["number", "category", "event"]


@dataclass(frozen=True)
class Part:
    """Columns of a transaction encoder's output that belong together."""

    name: str
    kind: Kind
    """``event``: all columns together, where they are not of single fields."""
    width: int
    column: str
    """Column of the batch; the name may be an alias."""


def parts_of(trx_encoder: Any) -> tuple[Part, ...]:
    """List the fields of a transaction encoder's columns; one part where they are not known."""
    width = trx_encoder.output_size
    if isinstance(trx_encoder, TrxEncoderBase) and getattr(trx_encoder, "linear_projection_head", None) is None:
        parts = [Part(name, "category", table.embedding_dim, name) for name, table in trx_encoder.embeddings.items()]
        for name, scaler in trx_encoder.custom_embeddings.items():
            parts.append(Part(name, "number", scaler.output_size, getattr(scaler, "col_name", None) or name))
        if sum(part.width for part in parts) == width and all(p.width == 1 for p in parts if p.kind == "number"):
            return tuple(parts)
    return (Part("event", "event", width, ""),)


class RunningMoments(nn.Module):
    """Standardises by the mean and std of all values in training; NaN does not count, and stays.

    Only the first ``gathered`` values of a row are gathered and standardised.
    """

    count_V: Tensor
    mean_V: Tensor
    deviation_V: Tensor

    def __init__(self, width: int, gathered: int) -> None:
        super().__init__()
        self.gathered = gathered
        for name in ("count_V", "mean_V", "deviation_V"):
            self.register_buffer(name, torch.zeros(width, dtype=torch.float64))

    def std(self) -> Tensor:
        """Population standard deviation, (V,); 1 for a constant, and for values that are not gathered."""
        std_V = (self.deviation_V / self.count_V.clamp(min=1)).sqrt()
        return torch.where(std_V > 1e-6 * self.mean_V.abs().clamp(min=1), std_V, 1.0)

    def forward(self, values_BV: Tensor) -> Tensor:
        if self.training:
            self.gather(values_BV.detach())
        return self.standardise(values_BV)

    def standardise(self, values_BV: Tensor) -> Tensor:
        return (values_BV - self.mean_V.to(values_BV.dtype)) / self.std().to(values_BV.dtype)

    @torch.no_grad()
    def gather(self, values_BV: Tensor) -> None:
        """Add rows (Chan et al. 1983)."""
        there_BV = ~values_BV.isnan()
        there_BV[:, self.gathered :] = False
        x_BV = values_BV.double().masked_fill(~there_BV, torch.nan)
        count_V = there_BV.sum(0)
        mean_V = x_BV.nansum(0) / count_V.clamp(min=1)
        total_V = (self.count_V + count_V).clamp(min=1)
        step_V = mean_V - self.mean_V
        self.deviation_V += (x_BV - mean_V).square().nansum(0) + step_V.square() * self.count_V * count_V / total_V
        self.mean_V += step_V * count_V / total_V
        self.count_V += count_V
