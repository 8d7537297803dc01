"""The forward pass of the recurrent network for scoring on CPU: users of a block, some steps at a time."""

# B = users of a block, T = steps, N = T * B, C = categories, V = ids of all of them, D = numbers, W = width of an
# encoded event, H = state, G = 3 H gates of a GRU: reset, update, new

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from gur_spark.models.lifestream.encoder import NUMBERS, Carry, SequenceEncoder

FOLDED_BYTES = 1 << 26
"""Greatest size of the tables that are multiplied in advance. Each process of a cluster holds them."""


class Recurrence(Protocol):
    """Forward pass over B users of T events each. All users' first events come first."""

    def steps(self, ids_CN: Tensor, numbers_ND: Tensor, users: int, carry: Carry | None) -> tuple[Tensor, Carry]:
        """Compute states after each event, (T, B, H), and the carry for the next events; ``carry`` is None at the
        beginning."""


def recurrence_of(module: SequenceEncoder) -> Recurrence:
    """Choose the faster forward pass: torch's LSTM is one fused kernel on CPU (oneDNN), its GRU a dozen calls per step."""
    tables = module.sequence.trx_encoder.embeddings.values()
    folded_bytes = sum(table.num_embeddings for table in tables) * 3 * module.state_dim * 4
    folds = module.sequence.seq_encoder.rnn_type == "gru" and 0 < folded_bytes <= FOLDED_BYTES
    return FoldedGru(module) if folds else LayerRecurrence(module)


class LayerRecurrence:
    """Forward pass by the module's own layers."""

    def __init__(self, module: SequenceEncoder) -> None:
        self._module = module

    def steps(self, ids_CN: Tensor, numbers_ND: Tensor, users: int, carry: Carry | None) -> tuple[Tensor, Carry]:
        return self._module.advance(ids_CN, numbers_ND, users, carry)


class FoldedGru:
    """A GRU by torch's definition whose products with inputs are taken in advance; equal to torch's to 1e-6.

    ``W x`` of an event is a sum over its fields. For a category it is a row of ``table W``, which is a table itself.
    For the numbers, mean and deviation go into weights and bias. ``tanh(a) = 2 sigmoid(2 a) - 1`` takes a third of the
    time of torch's tanh; the inner 2 goes into the weights of the new state's gate.
    """

    def __init__(self, module: SequenceEncoder) -> None:
        layer, trx = module.sequence.seq_encoder.rnn, module.sequence.trx_encoder
        width, tables = layer.hidden_size, list(trx.embeddings.values())
        scale_G = torch.ones(3 * width, dtype=torch.float64)
        scale_G[2 * width :] = 2
        weights_WG = layer.weight_ih_l0.double().T * scale_G
        bias_G, state_bias_G = layer.bias_ih_l0.double() * scale_G, layer.bias_hh_l0.double() * scale_G
        # The reset gate multiplies the new state's own bias, so this bias cannot be added in advance.
        bias_G[: 2 * width] += state_bias_G[: 2 * width]
        scaler = trx.custom_embeddings[NUMBERS]
        *of_tables, of_numbers_DG = weights_WG.split([t.embedding_dim for t in tables] + [scaler.output_size])
        of_numbers_DG = of_numbers_DG / scaler.std_D.double().unsqueeze(1)
        folded = [table.weight.double() @ weights for table, weights in zip(tables, of_tables, strict=True)]
        self._tables_VG = torch.cat(folded).float()
        self._first_C = torch.tensor([0, *map(len, folded[:-1])]).cumsum(0)
        self._numbers_DG = of_numbers_DG.float()
        self._bias_G = (bias_G - scaler.mean_D.double() @ of_numbers_DG).float()
        self._state_HG = (layer.weight_hh_l0.double().T * scale_G).float().contiguous()
        self._new_bias_H = state_bias_G[2 * width :].float()
        self._start_H = torch.tanh(module.sequence.seq_encoder.starter_h).flatten()

    def steps(self, ids_CN: Tensor, numbers_ND: Tensor, users: int, carry: Carry | None) -> tuple[Tensor, Carry]:
        width = len(self._start_H)
        gates_NG = functional.embedding_bag(ids_CN.T + self._first_C, self._tables_VG, mode="sum")
        gates_TBG = gates_NG.addmm_(numbers_ND, self._numbers_DG).add_(self._bias_G).view(-1, users, 3 * width)
        states_TBH = torch.empty(len(gates_TBG), users, width)
        assert not isinstance(carry, tuple)
        state_BH = self._start_H.expand(users, width) if carry is None else carry
        for gates_BG, out_BH in zip(gates_TBG, states_TBH, strict=True):
            own_BG = state_BH @ self._state_HG
            open_BG = torch.sigmoid(gates_BG[:, : 2 * width] + own_BG[:, : 2 * width])
            reset_BH, update_BH = open_BG[:, :width], open_BG[:, width:]
            new_BH = own_BG[:, 2 * width :].add_(self._new_bias_H).mul_(reset_BH).add_(gates_BG[:, 2 * width :])
            new_BH = new_BH.sigmoid_().mul_(2).sub_(1)
            state_BH = torch.lerp(new_BH, state_BH, update_BH, out=out_BH)
        return states_TBH, state_BH
