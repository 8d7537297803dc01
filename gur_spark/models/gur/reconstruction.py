"""Reconstructions and predictions of the model, and R2 per block."""

# B = users, T = target values, M = W * B bags (a user's window), V = ids of one field

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gur_spark.batches.aggregates import AggregateBatch, Histogram
from gur_spark.features.declare.windows import name_of
from gur_spark.models.gur.latent import Posterior
from gur_spark.statistics.moments import Moments

ROUNDING = 1e-9
"""Threshold below which a sum of squares is a constant's; targets are of the order of 1."""


class Block(NamedTuple):
    """The block of an input column: its columns are hidden together and have one R2."""

    window_hours: int
    field: str | None
    """Field; None for the user's activity as a whole."""


@dataclass(frozen=True)
class Prediction:
    """Prediction of the days from the snapshot's date on."""

    active_B: Tensor
    """Logit of having an event."""
    log_events_B: Tensor
    """Predicted ln(1 + events)."""
    logits: Mapping[str, Tensor]
    """Categorical field -> logits of its ids, (B, V)."""


@dataclass(frozen=True)
class Projections:
    """Projections of two views of each user."""

    first_BL: Tensor
    second_BL: Tensor
    temperature: float


@dataclass(frozen=True)
class Reconstruction:
    """A decoded batch. Without a reconstruction, its targets have no columns."""

    target_BT: Tensor
    """Standardised inputs, NaN where missing."""
    prediction_BT: Tensor
    logits: Mapping[str, Tensor]
    """Categorical input -> logits of each id in each bag, (M, V); for the loss ``likelihood`` only."""
    future: Prediction | None = None
    """Prediction, for the loss ``future``."""
    posterior: Posterior | None = None
    """Distribution of a variational latent."""
    projections: Projections | None = None
    """Projections, for the loss ``contrastive``."""


class RSquared:
    """``1 - residual / total sum of squares`` per block, streamed.

    Numbers (and pooled blocks) are compared as standardised. A histogram that is reconstructed by its likelihood is
    compared by the share of each id, over the users with an event in the window.
    """

    def __init__(self, blocks: Sequence[Block], windows: Mapping[str, Sequence[int]]) -> None:
        """Take the ``blocks`` of the target's columns, and the ``windows`` of each categorical input."""
        self._columns = {block: [t for t, b in enumerate(blocks) if b == block] for block in dict.fromkeys(blocks)}
        self._windows = windows
        self._targets: dict[Block, Moments] = {}
        self._errors: dict[Block, float] = {}

    def update(self, made: Reconstruction, batch: AggregateBatch) -> None:
        for block, columns in self._columns.items():
            self._add(block, made.target_BT[:, columns], made.prediction_BT[:, columns])
        for field, logits_MV in made.logits.items():
            windows = self._windows[field]
            share_WBV = _shares(batch.histograms[field], logits_MV).view(len(windows), len(batch), -1)
            for hours, share_BV, p_BV in zip(windows, share_WBV, logits_MV.softmax(1).view_as(share_WBV), strict=True):
                self._add(Block(hours, field), share_BV, p_BV)

    def result(self) -> dict[str, float]:
        """Return ``r2_<field>_<w>d`` per block (``r2_<w>d`` for the activity), and their mean as ``r2``.

        A constant block has none.
        """
        totals = {block: float(moments.deviation_T.sum()) for block, moments in self._targets.items()}
        found = {
            "_".join(part for part in ("r2", block.field, name_of(block.window_hours)) if part): 1
            - self._errors[block] / total
            for block, total in totals.items()
            if total > ROUNDING
        }
        return {"r2": float(np.mean(list(found.values()))), **found} if found else {}

    def _add(self, block: Block, target_BT: Tensor, prediction_BT: Tensor) -> None:
        self._targets.setdefault(block, Moments(target_BT.shape[1])).update(target_BT.numpy())
        error = float((prediction_BT.double() - target_BT.double()).square().nansum())
        self._errors[block] = self._errors.get(block, 0.0) + error


def _shares(histogram: Histogram, like_MV: Tensor) -> Tensor:
    """Expand a histogram to dense shares (M, V), NaN for an empty bag."""
    share_MV = torch.zeros_like(like_MV)
    share_MV[histogram.bags_N, histogram.ids_N] = histogram.shares_N
    return share_MV.masked_fill(~histogram.filled_M[:, None], torch.nan)
