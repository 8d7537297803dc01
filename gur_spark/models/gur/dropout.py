"""Dropout of inputs: training hides parts of a user from the encoder, which learns to use the rest."""

# B = users, T = target values, F = empty flags, I = T + F

from collections.abc import Sequence

import torch
from torch import Tensor, nn

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

    empty_T: Tensor
    _history_T: Tensor

    def __init__(self, empty_T: Tensor, history_T: Tensor, p: float) -> None:
        """Take ``empty_T``, a user without events before standardising, and ``history_T``, which marks values made of
        events."""
        super().__init__()
        self.p = p
        self.register_buffer("empty_T", empty_T, persistent=False)
        self.register_buffer("_history_T", history_T, persistent=False)

    def forward(self, x_BT: Tensor, flags_BF: Tensor, empty_T: Tensor) -> tuple[Tensor, Tensor]:
        """Hide events in values and flags; ``empty_T`` is standardised as the values are."""
        if not self.training or self.p == 0:
            return x_BT, flags_BF
        cold_B = torch.rand(len(x_BT), device=x_BT.device) < self.p
        hidden_BT = cold_B[:, None] & self._history_T
        return torch.where(hidden_BT, empty_T, x_BT), flags_BF.masked_fill(cold_B[:, None], 1.0)
