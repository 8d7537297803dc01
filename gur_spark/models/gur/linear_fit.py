"""The fit of the linear path to the training users, in a stream."""

# B = users, D = dense columns, F = empty flags, G = groups of shares (a window of an input), S = columns of shares
# C = D + F + S columns, K = width of the linear part

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from gur_spark.arrays import Array
from gur_spark.batches.aggregates import AggregateBatch
from gur_spark.batches.layout import Layout
from gur_spark.errors import TrainingError
from gur_spark.features.declare.spec import NUMERIC_STATISTICS
from gur_spark.models.gur.linear_path import LinearPath, log_scaled
from gur_spark.statistics.moments import Moments
from gur_spark.statistics.principal import Block, Principal, largest, principal_directions, signs
from gur_spark.statistics.varimax import varimax

log = logging.getLogger("gur_spark")

Batches = Callable[[], Iterable[AggregateBatch]]
"""Function that begins a pass over the training users."""

KEPT_BYTES = 1 << 29
"""Size up to which blocks stay in memory for the next pass. Larger data is read again in each pass."""


@dataclass(frozen=True)
class LinearFit:
    """Variances of a fitted linear path."""

    covariance_KK: Array
    """Covariance of the dimensions, before they are scaled, over the training users."""
    total: float
    """Variance of the standardised inputs in all directions."""

    @property
    def share(self) -> float:
        """Share of the inputs' variance that the dimensions hold."""
        return float(np.trace(self.covariance_KK)) / self.total if self.total > 0 else 0.0


class Standardisation:
    """Means, deviations and factors of the linear path's inputs, over users that come batch by batch."""

    def __init__(self, layout: Layout) -> None:
        self._dense, self._shares = Moments(len(layout.dense)), ShareMoments(layout)

    def update(self, batch: AggregateBatch) -> None:
        self._dense.update(log_scaled(batch.dense_BD.double()).numpy())
        self._shares.update(batch)

    def check(self, layout: Layout) -> None:
        """Check that all numbers are finite.

        Raises:
            TrainingError: a column has others.
        """
        for column, mean in zip(layout.dense, self._dense.mean_T, strict=True):
            if not np.isfinite(mean):
                raise TrainingError(f"column '{column.name}' has values that are not finite")

    def set(self, path: LinearPath) -> None:
        """Set them in the path."""
        path.mean_D.copy_(torch.from_numpy(self._dense.mean_T))
        path.std_D.copy_(torch.from_numpy(self._dense.std()))
        path.weight_G.copy_(torch.from_numpy(self._shares.weights()))


class ShareMoments:
    """Total variance of the shares of each group, over users that come batch by batch."""

    def __init__(self, layout: Layout) -> None:
        self._windows = {name: len(windows) for name, windows in layout.windows_of.items()}
        self._sums = {name: np.zeros(self._windows[name] * size) for name, size in layout.sizes.items()}
        self._squares = {name: np.zeros(self._windows[name]) for name in layout.sizes}
        self._users = 0

    def update(self, batch: AggregateBatch) -> None:
        self._users += len(batch)
        for name, sums in self._sums.items():
            windows, histogram = self._windows[name], batch.histograms[name]
            window_N = histogram.bags_N.numpy() // len(batch)
            shares_N = histogram.shares_N.numpy().astype(np.float64)
            places_N = window_N * (len(sums) // windows) + histogram.ids_N.numpy()
            sums += np.bincount(places_N, shares_N, minlength=len(sums))
            self._squares[name] += np.bincount(window_N, shares_N**2, minlength=windows)

    def weights(self) -> Array:
        """Factor of each group, (G,), that gives all its shares together the variance of a field's statistics.

        Shares are not standardised one by one, because that would give the rarest ids the most weight.
        """
        found = []
        for name, sums in self._sums.items():
            means = sums.reshape(self._windows[name], -1) / max(self._users, 1)
            variance_W = self._squares[name] / max(self._users, 1) - (means**2).sum(axis=1)
            found.append(np.sqrt(len(NUMERIC_STATISTICS) / np.where(variance_W > 0, variance_W, 1)))
        return np.concatenate(found) if found else np.empty(0)


@torch.no_grad()
def fit_linear_path(path: LinearPath, batches: Batches) -> LinearFit:
    """Fit the directions of a path that has its standardisation.

    The principal directions are rotated by the varimax of their loadings, the directions times the square root of the
    variance along them. An orthogonal rotation leaves distances and dot products of users as they are. Dimensions are
    ordered by variance, and in each the largest weight is positive.
    """
    wanted = path.directions_CK.shape[1]
    found = principal_directions(LinearPathBlocks(path, batches), path.columns, wanted)
    directions_CK, covariance_KK = rotated(found)
    count = directions_CK.shape[1]
    path.directions_CK[:, :count] = torch.from_numpy(directions_CK)
    path.center_K[:count] = torch.from_numpy(found.mean_C @ directions_CK)
    if count:
        path.scale.fill_((count / np.trace(covariance_KK)) ** 0.5)
    if count < wanted:
        log.warning(
            "linear path: the %d inputs vary in %d directions only, so %d of the %d linear dimensions are 0; a smaller "
            "model.linear_dim leaves them to the nonlinear path", path.columns, count, wanted - count, wanted,
        )  # fmt: skip
    fit = LinearFit(np.pad(covariance_KK, (0, wanted - count)), found.total)
    log.info(
        "linear path: %d dimensions hold %.1f %% of the variance of %d inputs", count, 100 * fit.share, path.columns
    )
    return fit


def rotated(found: Principal) -> tuple[Array, Array]:
    """Rotate principal directions by varimax: the new directions (C, K), and their covariance (K, K)."""
    turn_KK = varimax(found.directions_CK * np.sqrt(found.variance_K))
    variance_K = (turn_KK**2 * found.variance_K[:, None]).sum(axis=0)
    # Variances that differ by rounding are equal, and the order of their largest inputs decides.
    relative_K = (variance_K / variance_K.sum()).round(9) if len(variance_K) else variance_K
    order_K = np.lexsort((largest(found.directions_CK @ turn_KK), -relative_K))
    turn_KK = turn_KK[:, order_K]
    turn_KK = turn_KK * signs(found.directions_CK @ turn_KK)
    return found.directions_CK @ turn_KK, turn_KK.T @ (found.variance_K[:, None] * turn_KK)


class LinearPathBlocks:
    """Standardised inputs of a linear path in float64, block by block; each call begins a pass.

    Blocks that fit in memory together are made once.
    """

    def __init__(self, path: LinearPath, batches: Batches) -> None:
        self._batches, self._path = batches, path
        self._kept: list[Block] | None = None

    def __call__(self) -> Iterator[Block]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Block] = []
        size = 0
        for batch in self._batches():
            block = input_block(self._path, batch)
            size += block.nbytes
            if size <= KEPT_BYTES:
                kept.append(block)
            else:
                kept.clear()
            yield block
        self._kept = kept if size <= KEPT_BYTES else None


def input_block(path: LinearPath, batch: AggregateBatch) -> Block:
    """Lay out the standardised inputs of a batch, (B, C), in float64."""
    rows, columns, values = [], [], []
    for name, first, size, weight_W in path.groups():
        histogram = batch.histograms[name]
        window_N = histogram.bags_N.numpy() // len(batch)
        rows.append(histogram.bags_N.numpy() % len(batch))
        columns.append(first - path.dense + window_N * size + histogram.ids_N.numpy())
        values.append(histogram.shares_N.numpy() * weight_W.double().numpy()[window_N])
    shape = (len(batch), path.columns - path.dense)
    if not rows:
        return Block(path.dense_inputs(batch.double()).numpy(), sparse.csr_array(shape))
    places = (np.concatenate(rows), np.concatenate(columns))
    shares = sparse.csr_array((np.concatenate(values), places), shape=shape)
    return Block(path.dense_inputs(batch.double()).numpy(), shares)
