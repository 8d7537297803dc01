"""What the model says of its input and of the future, and how well it reconstructs: R2 per block."""

# B = users, T = target values, M = W * B bags (a user's window), V = ids of one field

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gur_spark.batches.aggregates import AggregateBatch, Histogram
from gur_spark.models.gur.latent import Posterior
from gur_spark.statistics.moments import Moments

ROUNDING = 1e-9
"""A sum of squares below this is a constant: targets are of the order of 1."""


class Block(NamedTuple):
    """Where an input column belongs: what block dropout hides together and R2 is reported for."""

    window_days: int
    field: str | None
    """None: the user's activity as a whole."""


@dataclass(frozen=True)
class Prediction:
    """What is expected of the days from the snapshot's date on."""

    active_B: Tensor
    """Logit of having an event."""
    log_events_B: Tensor
    """ln(1 + events)."""
    logits: Mapping[str, Tensor]
    """Per categorical field, of each id, (B, V)."""


@dataclass(frozen=True)
class Pair:
    """Projections of two looks at each user."""

    first_BL: Tensor
    second_BL: Tensor
    temperature: float


@dataclass(frozen=True)
class Reconstruction:
    """One batch, as the decoder gives it back; without a reconstruction, its targets have no column."""

    target_BT: Tensor
    """Standardised inputs, NaN where not there."""
    prediction_BT: Tensor
    logits: Mapping[str, Tensor]
    """Per categorical input, of each id in each bag, (M, V); only of the loss ``likelihood``."""
    future: Prediction | None = None
    """Of the loss ``future``."""
    posterior: Posterior | None = None
    """Of a variational latent."""
    pair: Pair | None = None
    """Of the loss ``contrastive``."""


class RSquared:
    """``1 - residual / total sum of squares`` per block, streamed.

    Numbers (and pooled blocks) are compared as standardised; a histogram reconstructed by its likelihood
    as the share of each id, over the users with an event in the window.
    """

    def __init__(self, blocks: Sequence[Block], windows: Mapping[str, Sequence[int]]) -> None:
        """``blocks`` are those of the target's columns, ``windows`` those of each categorical input."""
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
            for days, share_BV, p_BV in zip(windows, share_WBV, logits_MV.softmax(1).view_as(share_WBV), strict=True):
                self._add(Block(days, field), share_BV, p_BV)

    def result(self) -> dict[str, float]:
        """``r2_<field>_<w>d`` per block, and their mean as ``r2``; a block that does not vary has none."""
        totals = {block: float(moments.deviation_T.sum()) for block, moments in self._targets.items()}
        found = {
            f"r2_{block.field or 'activity'}_{block.window_days}d": 1 - self._errors[block] / total
            for block, total in totals.items()
            if total > ROUNDING
        }
        return {"r2": float(np.mean(list(found.values()))), **found} if found else {}

    def _add(self, block: Block, target_BT: Tensor, prediction_BT: Tensor) -> None:
        self._targets.setdefault(block, Moments(target_BT.shape[1])).update(target_BT.numpy())
        error = float((prediction_BT.double() - target_BT.double()).square().nansum())
        self._errors[block] = self._errors.get(block, 0.0) + error


def _shares(histogram: Histogram, like_MV: Tensor) -> Tensor:
    """The histogram as a dense (M, V) of shares, NaN for an empty bag."""
    share_MV = torch.zeros_like(like_MV)
    share_MV[histogram.bags_N, histogram.ids_N] = histogram.shares_N
    return share_MV.masked_fill(~histogram.filled_M[:, None], torch.nan)
