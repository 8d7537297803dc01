"""Events of a batch as tensors: one flat row for what sees each event alone, padded for what sees sequences.

Padding is made of the encoded events, not of their columns, so that nothing is computed for it and nothing counts it;
sequences are padded in groups of similar length.
"""

# B = sequences, N = events of all of them, C = categories, D = numbers, W = width of an encoded event, T = longest

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gur_spark.batches.sequences import Events


@dataclass(frozen=True)
class Sequences:
    """A batch of B sequences of events, one after the other."""

    lengths_B: Tensor
    """``int64``; stays on CPU, where shapes are decided."""
    ids_CN: Tensor
    """``int32``."""
    numbers_ND: Tensor
    """``float32``."""

    def __len__(self) -> int:
        return len(self.lengths_B)

    @classmethod
    def of(cls, events: Events) -> "Sequences":
        """Wrap the users' events as tensors that share the arrays' memory."""
        arrays = (events.lengths_B, events.ids_CN, events.numbers_ND)
        return cls(*map(torch.from_numpy, arrays))

    def to(self, device: torch.device | str) -> "Sequences":
        return Sequences(self.lengths_B, self.ids_CN.to(device), self.numbers_ND.to(device))


def padded(encoded_NW: Tensor, lengths_B: Tensor) -> Tensor:
    """Pad sequences that lie one after the other to (B, T, W), with zeros after the end of each."""
    users, longest = len(lengths_B), int(lengths_B.max())
    starts_B = torch.arange(users) * longest - (lengths_B.cumsum(0) - lengths_B)
    cells_N = torch.repeat_interleave(starts_B, lengths_B) + torch.arange(len(encoded_NW))
    flat = encoded_NW.new_zeros(users * longest, encoded_NW.shape[1])
    return flat.index_copy(0, cells_N.to(encoded_NW.device), encoded_NW).view(users, longest, -1)


def buckets(encoded_NW: Tensor, lengths_B: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Split sequences, in their order, into ``count`` groups of about equal size; yield each padded, (b, T, W), with
    lengths (b,).

    Sequences in the order of their length need the least padding.
    """
    ends_B = lengths_B.cumsum(0)
    users = len(lengths_B)
    bounds = [users * group // count for group in range(count + 1)]
    for first, last in pairwise(bounds):
        if first < last:
            begin = int(ends_B[first] - lengths_B[first])
            yield padded(encoded_NW[begin : int(ends_B[last - 1])], lengths_B[first:last]), lengths_B[first:last]
