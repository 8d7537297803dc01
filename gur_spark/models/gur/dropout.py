"""Dropout of inputs: training hides parts of a user from the encoder, which learns to use the rest."""

# B = users, D = dense columns, I = inputs of the encoder, M = W * B bags (a user's window), N = (bag, id) pairs

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from gur_spark.batches.aggregates import AggregateBatch, Histogram, to_batch
from gur_spark.batches.layout import Layout
from gur_spark.features.kernel.partition import row_without_events
from gur_spark.models.gur.reconstruction import Block


class BlockDropout(nn.Module):
    """Hide whole windows and whole fields of a user, in training only, each with probability ``p``.

    A hidden block is all zeros, flags included: the mean without the flag, so it does not look like an empty one.
    """

    _window_I: Tensor
    _field_I: Tensor

    def __init__(self, blocks: Sequence[Block], p: float) -> None:
        super().__init__()
        self.p = p
        windows = sorted({b.window_hours for b in blocks})
        fields = sorted({b.field for b in blocks if b.field is not None})
        self._shape = (len(windows), len(fields))
        # Activity is no field: its index is that of the column that is always kept.
        field_I = [fields.index(b.field) if b.field is not None else len(fields) for b in blocks]
        window_I = [windows.index(b.window_hours) for b in blocks]
        self.register_buffer("_window_I", torch.tensor(window_I), persistent=False)
        self.register_buffer("_field_I", torch.tensor(field_I), persistent=False)

    def forward(self, x_BI: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x_BI
        windows, fields = self._shape
        kept_B = (torch.rand(len(x_BI), windows + fields + 1, device=x_BI.device) >= self.p).to(x_BI.dtype)
        kept_B[:, -1] = 1
        return x_BI * kept_B.index_select(1, self._window_I) * kept_B.index_select(1, windows + self._field_I)


class ColdDropout(nn.Module):
    """Hide all events of a user, in training only, with probability ``p``; attributes stay.

    The rows then look like those of users without events, flags included, while the values to reconstruct stay: the
    encoder learns to predict behaviour from attributes (DropoutNet, Volkovs et al. 2017).
    """

    _empty_D: Tensor
    _history_D: Tensor

    def __init__(self, layout: Layout, p: float) -> None:
        super().__init__()
        self.p = p
        known = {field.name for field in layout.manifest.attributes}
        self._history = [name for name in layout.sizes if name not in known]
        empty_D = to_batch(row_without_events(layout.manifest), layout).dense_BD[0]
        self.register_buffer("_empty_D", empty_D, persistent=False)
        history_D = torch.tensor([column.field not in known for column in layout.dense])
        self.register_buffer("_history_D", history_D, persistent=False)

    def forward(self, batch: AggregateBatch) -> AggregateBatch:
        if not self.training or self.p == 0:
            return batch
        cold_B = torch.rand(len(batch), device=batch.dense_BD.device) < self.p
        dense_BD = torch.where(cold_B[:, None] & self._history_D, self._empty_D, batch.dense_BD)
        hidden = {name: _without(batch.histograms[name], cold_B) for name in self._history}
        return replace(batch, dense_BD=dense_BD, histograms={**batch.histograms, **hidden})


def _without(histogram: Histogram, users_B: Tensor) -> Histogram:
    """Empty all bags of the marked users."""
    kept_M = ~users_B.repeat(len(histogram.filled_M) // len(users_B))
    return replace(
        histogram,
        shares_N=histogram.shares_N * kept_M[histogram.bags_N],
        filled_M=histogram.filled_M & kept_M,
    )
