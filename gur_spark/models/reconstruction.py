"""What the autoencoder reconstructs, and how well: R2 per block."""

# B = users, T = target values, V = ids of one field, N = (user, id) pairs

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gur_spark.batches.aggregates import Batch, Histogram

Array = npt.NDArray[np.float64]


class Block(NamedTuple):
    """Where an input column belongs: what block dropout hides together and R2 is reported for."""

    window_days: int
    field: str | None
    """None: the user's activity as a whole."""


@dataclass(frozen=True)
class Reconstruction:
    """One batch, as the decoder gives it back."""

    target_BT: Tensor
    """Standardised inputs, NaN where not there."""
    prediction_BT: Tensor
    log_p: Mapping[str, Sequence[Tensor]]
    """Per categorical field and window, log p of each id, (B, V); empty for the loss ``mse``."""


class Moments:
    """Count, mean and sum of squared deviations per column, merged batch by batch in float64 (Chan et al. 1983)."""

    def __init__(self, width: int) -> None:
        self.count_T: Array = np.zeros(width)
        self.mean_T: Array = np.zeros(width)
        self.deviation_T: Array = np.zeros(width)

    def update(self, values_BT: npt.ArrayLike) -> None:
        """Add rows; NaN is no value."""
        x_BT = np.asarray(values_BT, dtype=np.float64)
        there_BT = ~np.isnan(x_BT)
        count_T = there_BT.sum(0)
        mean_T = np.where(there_BT, x_BT, 0).sum(0) / np.maximum(count_T, 1)
        deviation_T = np.where(there_BT, (x_BT - mean_T) ** 2, 0).sum(0)
        total_T = np.maximum(self.count_T + count_T, 1)
        step_T = mean_T - self.mean_T
        self.deviation_T += deviation_T + step_T**2 * self.count_T * count_T / total_T
        self.mean_T += step_T * count_T / total_T
        self.count_T += count_T

    def std(self) -> Array:
        """Population standard deviation; 1 for a constant column, which is then only centred."""
        std_T: Array = np.sqrt(self.deviation_T / np.maximum(self.count_T, 1))
        return np.where(std_T > 1e-6 * np.maximum(1.0, np.abs(self.mean_T)), std_T, 1.0)


class RSquared:
    """``1 - residual / total sum of squares`` per block, streamed.

    Numbers (and pooled blocks) are compared as standardised; a histogram reconstructed by its likelihood
    as the share of each id, over the users with an event in the window.
    """

    def __init__(self, blocks: Sequence[Block], windows: Sequence[int]) -> None:
        self._blocks, self._windows = blocks, windows
        self._targets = Moments(len(blocks))
        self._errors: Array = np.zeros(len(blocks))
        self._shares: dict[Block, _Shares] = {}

    def update(self, made: Reconstruction, batch: Batch) -> None:
        self._targets.update(made.target_BT.cpu().numpy())
        error_BT = made.prediction_BT.double() - made.target_BT.double()
        self._errors += error_BT.square().nansum(0).cpu().numpy()
        for field, log_p in made.log_p.items():
            for w, log_p_BV in enumerate(log_p):
                block = Block(self._windows[w], field)
                self._shares.setdefault(block, _Shares(log_p_BV.shape[1])).update(log_p_BV, batch.histograms[field], w)

    def result(self) -> dict[str, float]:
        """``r2_<field>_<w>d`` per block, and their mean as ``r2``; a block that does not vary has none."""
        sums: dict[Block, Array] = {}
        for block, error, total in zip(self._blocks, self._errors, self._targets.deviation_T, strict=True):
            sums[block] = sums.get(block, np.zeros(2)) + np.array([error, total])
        sums |= {block: shares.sums() for block, shares in self._shares.items()}
        found = {
            f"r2_{block.field or 'activity'}_{block.window_days}d": float(1 - error / total)
            for block, (error, total) in sums.items()
            if total > 0
        }
        return {"r2": float(np.mean(list(found.values()))), **found} if found else {}


class _Shares:
    """Sums of squares of observed and predicted shares, from the sparse histogram and the dense prediction."""

    def __init__(self, size: int) -> None:
        self._users = 0
        self._observed_V: Array = np.zeros(size)
        self._squares = 0.0
        self._error = 0.0

    def update(self, log_p_BV: Tensor, histogram: Histogram, window: int) -> None:
        p_BV = log_p_BV.double().exp()
        filled_B, shares_N = histogram.filled_BW[:, window], histogram.shares_WN[window].double()
        squares = shares_N.square().sum()
        # sum (share - p)^2 = sum p^2 - 2 sum share p + sum share^2; shares of empty users are all 0.
        cross = (shares_N * p_BV[histogram.rows_N, histogram.ids_N]).sum()
        self._error += float(p_BV[filled_B].square().sum() - 2 * cross + squares)
        self._squares += float(squares)
        self._users += int(filled_B.sum())
        observed_V = torch.zeros_like(p_BV[0]).index_add(0, histogram.ids_N, shares_N)
        self._observed_V += observed_V.cpu().numpy()

    def sums(self) -> Array:
        """Residual and total sum of squares; a total of rounding alone counts as 0."""
        total = self._squares - float((self._observed_V**2).sum()) / max(self._users, 1)
        return np.array([self._error, total if total > 1e-9 * max(self._squares, 1.0) else 0.0])
