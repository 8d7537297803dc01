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
    """Choose the faster pass: on CPU torch's LSTM is one fused kernel (oneDNN), its GRU a dozen calls per step."""
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
    For the numbers, mean and deviation go into weights and bias. The new state's ``tanh(a)`` is ``2 sigmoid(2 a) - 1``,
    as torch's sigmoid takes a third of the time of its tanh: the inner 2 goes into weights, and the state ``h`` is kept
    as ``g = (h + 1) / 2``, so that ``h' = z h + (1 - z) tanh(a)`` becomes ``g' = z g + (1 - z) sigmoid(2 a)`` and
    ``U h`` becomes ``2 U g`` less the sums of U.
    """

    def __init__(self, module: SequenceEncoder) -> None:
        layer, trx = module.sequence.seq_encoder.rnn, module.sequence.trx_encoder
        self._width = layer.hidden_size
        tables, scaler = list(trx.embeddings.values()), trx.custom_embeddings[NUMBERS]
        scale_G = torch.ones(3 * self._width, dtype=torch.float64)
        scale_G[2 * self._width :] = 2
        input_WG, state_HG = (weights.double().T * scale_G for weights in (layer.weight_ih_l0, layer.weight_hh_l0))
        input_bias_G, state_bias_G = (bias.double() * scale_G for bias in (layer.bias_ih_l0, layer.bias_hh_l0))
        *of_tables, of_numbers_DG = input_WG.split([table.embedding_dim for table in tables] + [scaler.output_size])
        of_numbers_DG = of_numbers_DG / scaler.std_D.double().unsqueeze(1)
        folded = [table.weight.double() @ weights for table, weights in zip(tables, of_tables, strict=True)]
        # Every event has one row of the first table, so that the bias can stand in it.
        folded[0] += input_bias_G - scaler.mean_D.double() @ of_numbers_DG
        self._tables_VG = torch.cat(folded).float()
        self._first_C = torch.tensor([0, *map(len, folded[:-1])]).cumsum(0)
        self._numbers_DG = of_numbers_DG.float()
        self._state_HG = (2 * state_HG).float().contiguous()
        self._state_bias_G = (state_bias_G - state_HG.sum(dim=0)).float()
        self._start_H = (torch.tanh(module.sequence.seq_encoder.starter_h).flatten() + 1) / 2

    def steps(self, ids_CN: Tensor, numbers_ND: Tensor, users: int, carry: Carry | None) -> tuple[Tensor, Carry]:
        assert not isinstance(carry, tuple)
        width = self._width
        gates_NG = functional.embedding_bag(ids_CN.T + self._first_C, self._tables_VG, mode="sum")
        gates_TBG = gates_NG.addmm_(numbers_ND, self._numbers_DG).view(-1, users, 3 * width)
        state_BH = self._start_H.expand(users, width) if carry is None else carry
        states_TBH, own_BG = torch.empty(len(gates_TBG), users, width), torch.empty(users, 3 * width)
        open_BG, new_BH = own_BG[:, : 2 * width], own_BG[:, 2 * width :]
        reset_BH, update_BH = open_BG[:, :width], open_BG[:, width:]
        for gates_BG, out_BH in zip(gates_TBG, states_TBH, strict=True):
            torch.addmm(self._state_bias_G, state_BH, self._state_HG, out=own_BG)
            open_BG.add_(gates_BG[:, : 2 * width]).sigmoid_()
            torch.addcmul(gates_BG[:, 2 * width :], reset_BH, new_BH, out=new_BH).sigmoid_()
            state_BH = torch.lerp(new_BH, state_BH, update_BH, out=out_BH)
        return 2 * states_TBH - 1, state_BH
