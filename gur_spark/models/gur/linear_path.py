"""The linear path: principal components of the standardised windows, rotated by varimax.

Its inputs are those of the raw windows in a report: numbers on a signed log scale and standardised, flags of empty
windows, and shares of ids, in this order. No optimiser touches it; ``linear_fit`` computes it from the training users.
"""

# B = users, D = dense columns, F = empty flags, W = windows, V = ids of one input, M = W * B bags (a user's window)
# G = groups of shares (a window of an input), C = D + F + sum W V columns, K = width of the linear part

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gur_spark.batches.aggregates import AggregateBatch
from gur_spark.batches.layout import Layout


class LinearPath(nn.Module):
    """Linear map of a user's windows to the linear part of the embedding.

    Over the training users its dimensions have mean 0, and variance 1 on average. Dimensions for which the inputs have
    no direction left are 0.
    """

    mean_D: Tensor
    std_D: Tensor
    weight_G: Tensor
    """Factor of all shares of a group."""
    directions_CK: Tensor
    """Orthonormal columns: the weights of the standardised inputs in each dimension."""
    center_K: Tensor
    scale: Tensor
    _counts: Tensor

    def __init__(self, layout: Layout, width: int) -> None:
        super().__init__()
        self._windows = {name: len(windows) for name, windows in layout.windows_of.items()}
        self._sizes = layout.sizes
        counts = empty_flags(layout)
        self.dense = len(layout.dense) + len(counts)
        """Number of the columns that are not shares."""
        self.columns = self.dense + sum(size * self._windows[name] for name, size in layout.sizes.items())
        self.register_buffer("_counts", torch.tensor(counts), persistent=False)
        self.register_buffer("mean_D", torch.zeros(len(layout.dense)))
        self.register_buffer("std_D", torch.ones(len(layout.dense)))
        self.register_buffer("weight_G", torch.ones(sum(self._windows[name] for name in layout.sizes)))
        self.register_buffer("directions_CK", torch.zeros(self.columns, width))
        self.register_buffer("center_K", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, batch: AggregateBatch) -> Tensor:
        """Compute the linear part of each user's embedding, (B, K)."""
        made_BK = self.dense_inputs(batch) @ self.directions_CK[: self.dense]
        for name, first, size, weight_W in self.groups():
            histogram, windows = batch.histograms[name], len(weight_W)
            # Each window has rows of its own in the table.
            places_N = histogram.ids_N + histogram.bags_N // len(batch) * size
            sums_MK = F.embedding_bag(
                places_N,
                self.directions_CK[first : first + windows * size],
                histogram.offsets_M,
                mode="sum",
                per_sample_weights=histogram.shares_N,
                include_last_offset=True,
            )
            made_BK = made_BK + (sums_MK.view(windows, len(batch), -1) * weight_W[:, None, None]).sum(0)
        return (made_BK - self.center_K) * self.scale

    def dense_inputs(self, batch: AggregateBatch) -> Tensor:
        """Standardise the numbers and flag the empty windows, (B, D + F); a missing number becomes 0, the mean."""
        z_BD = (log_scaled(batch.dense_BD) - self.mean_D) / self.std_D
        flags_BF = (batch.dense_BD[:, self._counts] == 0).to(z_BD.dtype)
        return torch.cat([z_BD.masked_fill(z_BD.isnan(), 0.0), flags_BF], dim=1)

    def randomise(self, seed: int) -> None:
        """Replace the directions by random ones, orthonormal as well: a baseline that no data has chosen."""
        drawn_CK = torch.randn(self.directions_CK.shape, generator=torch.Generator().manual_seed(seed))
        directions_CK = torch.linalg.qr(drawn_CK).Q
        self.directions_CK[:, : directions_CK.shape[1]] = directions_CK
        self.center_K.zero_()

    def groups(self) -> Iterator[tuple[str, int, int, Tensor]]:
        """Yield each categorical input: its name, first column, number of ids V, and the factors of its W windows.

        Its columns are the shares of all ids in the first window, then those in the next window, and so on.
        """
        first, group = self.dense, 0
        for name, size in self._sizes.items():
            windows = self._windows[name]
            yield name, first, size, self.weight_G[group : group + windows]
            first, group = first + windows * size, group + windows


def empty_flags(layout: Layout) -> list[int]:
    """List the dense columns that count: a window is empty when it has no event, a number's when it has no value."""
    return [d for d, column in enumerate(layout.dense) if column.statistic in ("events", "count")]


def log_scaled(x_BD: Tensor) -> Tensor:
    """Put numbers on a signed log scale."""
    return x_BD.sign() * x_BD.abs().log1p()
