"""The recurrent encoder of event sequences: pytorch-lifestream's modules over our batches."""

# B = sequences, N = events of all of them, D = numbers, W = width of an encoded event, T = longest, H = state,
# R = numbers beside the state, L = H + R = latent

from typing import TypeAlias

import torch
from ptls.data_load.padded_batch import PaddedBatch
from ptls.nn import RnnSeqEncoder, TrxEncoder
from ptls.nn.trx_encoder.scalers import IdentityScaler
from torch import Tensor, nn

from gur_spark.batches.padded import Sequences, buckets
from gur_spark.batches.sequences import TIMES, SequenceLayout
from gur_spark.models.lifestream.settings import ColesModel
from gur_spark.models.widths import fastai_width
from gur_spark.statistics.moments import Moments

NUMBERS = "numbers"
"""Name of the numbers among the inputs of ``TrxEncoder``."""

BUCKETS = 4
"""Groups of similar length that a batch of slices is padded in. On CPU eight are no faster than four."""

BESIDE = ("age", "events", "span")
"""Numbers beside the network's state: logarithms of the days from the newest event to ``as_of``, of the number of
events, and of the days from the oldest event to ``as_of``."""


Carry: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""State that a network hands from one event to the next: the state of a GRU, state and cell of an LSTM."""


class Standardised(IdentityScaler):  # type: ignore[misc]
    """Numbers less their mean, over their standard deviation; both are constants of the training users' events."""

    mean_D: Tensor
    std_D: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(NUMBERS)
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("std_D", torch.ones(width))

    def forward(self, numbers: Tensor) -> Tensor:
        """Standardise (..., D) to (..., D)."""
        return (numbers - self.mean_D) / self.std_D

    @property
    def output_size(self) -> int:
        return len(self.mean_D)


class SequenceEncoder(nn.Module):
    """Encoder of users' events as embeddings.

    ``sequence`` is pytorch-lifestream's ``RnnSeqEncoder`` and can be used there as it is. Its ``TrxEncoder`` gets all
    events of a batch as one flat row, so that nothing is computed for padding. The network gets them padded, in buckets
    of similar length.
    """

    beside_mean_R: Tensor
    beside_std_R: Tensor

    def __init__(self, layout: SequenceLayout, model: ColesModel) -> None:
        super().__init__()
        beside = len(BESIDE) if model.recency else 0
        self._names = tuple(layout.categories)
        tables = {
            name: {"in": size, "out": model.embedding_dim or fastai_width(size)}
            for name, size in layout.categories.items()
        }
        self.sequence = RnnSeqEncoder(
            TrxEncoder(
                tables,
                numeric_values={NUMBERS: Standardised(len(layout.numbers))},
                embeddings_noise=model.embedding_noise,
                use_batch_norm=False,
            ),
            hidden_size=model.latent_dim - beside,
            type=model.encoder,
            # The library's LSTM has such a vector and ignores it.
            trainable_starter="static" if model.encoder == "gru" else "none",
            is_reduce_sequence=False,
        )
        self.register_buffer("beside_mean_R", torch.zeros(beside))
        self.register_buffer("beside_std_R", torch.ones(beside))

    @property
    def state_dim(self) -> int:
        """Width H of the network's state."""
        return int(self.sequence.seq_encoder.hidden_size)

    @property
    def latent_dim(self) -> int:
        """Width L of an embedding."""
        return self.state_dim + len(self.beside_mean_R)

    def forward(self, batch: Sequences) -> Tensor:
        """Embed a batch, (B, L): the network's state after each sequence, and the numbers beside it."""
        return torch.cat([self.state(batch), self.beside(batch)], dim=1)

    def state(self, batch: Sequences) -> Tensor:
        """Compute the network's state after each sequence, (B, H)."""
        padded = buckets(self._encode(batch), batch.lengths_B, BUCKETS)
        return torch.cat([self._last_state(rows_BTW, lengths_B) for rows_BTW, lengths_B in padded])

    def beside(self, batch: Sequences) -> Tensor:
        """Compute the standardised numbers ``BESIDE`` of each sequence, (B, R); R is 0 where the model has none."""
        if not len(self.beside_mean_R):
            return batch.numbers_ND.new_empty(len(batch), 0)
        return (beside(batch) - self.beside_mean_R) / self.beside_std_R

    def advance(self, ids_CN: Tensor, numbers_ND: Tensor, users: int, carry: Carry | None) -> tuple[Tensor, Carry]:
        """Compute states after each of T events of B users, (T, B, H), and the carry for the next events.

        The N = T * B events come by step, all users' first events first; ``carry`` is None at the beginning.
        """
        network = self.sequence.seq_encoder
        lengths_B = torch.full((users,), len(numbers_ND) // users)
        encoded_NW = self._encode(Sequences(lengths_B, ids_CN, numbers_ND))
        encoded_BTW = encoded_NW.view(-1, users, encoded_NW.shape[1]).transpose(0, 1)
        if carry is None and network.trainable_starter == "static":
            carry = torch.tanh(network.starter_h).expand(-1, users, -1).contiguous()
        states_BTH, carry = network.rnn(encoded_BTW, carry)
        return states_BTH.transpose(0, 1), carry

    @torch.no_grad()
    def standardise(self, events: Moments, users: Moments) -> None:
        """Set the mean and the standard deviation of the events' numbers, and of the numbers ``BESIDE`` of users."""
        scaler = self.sequence.trx_encoder.custom_embeddings[NUMBERS]
        for buffer, values in (
            (scaler.mean_D, events.mean_T),
            (scaler.std_D, events.std()),
            (self.beside_mean_R, users.mean_T),
            (self.beside_std_R, users.std()),
        ):
            buffer.copy_(torch.from_numpy(values[: len(buffer)]))

    def _encode(self, batch: Sequences) -> Tensor:
        payload = {name: ids_N.unsqueeze(0) for name, ids_N in zip(self._names, batch.ids_CN, strict=True)}
        payload[NUMBERS] = batch.numbers_ND.unsqueeze(0)
        encoded: Tensor = self.sequence.trx_encoder(PaddedBatch(payload, torch.tensor([len(batch.numbers_ND)]))).payload
        return encoded[0]

    def _last_state(self, rows_BTW: Tensor, lengths_B: Tensor) -> Tensor:
        states: Tensor = self.sequence.seq_encoder(PaddedBatch(rows_BTW, lengths_B)).payload
        return states[torch.arange(len(states)), lengths_B - 1]


def beside(batch: Sequences) -> Tensor:
    """Compute the numbers ``BESIDE`` of each sequence, (B, 3)."""
    last_B = batch.lengths_B.cumsum(0) - 1
    first_B = last_B - batch.lengths_B + 1
    age_N = batch.numbers_ND[:, TIMES.index("age")]
    events_B = batch.lengths_B.to(age_N).log1p()
    return torch.stack([age_N[last_B], events_B, age_N[first_B]], dim=1)
