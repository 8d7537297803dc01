"""Layers of encoder, decoder and heads, in the forms that a CPU trains fastest.

They compute the same as torch's own modules of the same names: ``tests/models/test_layers.py`` checks it, and
``benchmarks.training`` measures the speed.
"""

# B = users, X = any width, M = bags (a user's window), N = (bag, id) pairs of one field, V = its ids, E = its width

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gur_spark.batches.aggregates import Histogram
from gur_spark.schema import PADDING_ID

ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805
"""Constants of SELU, which keeps mean 0 and variance 1 (Klambauer et al. 2017, arXiv 1706.02515)."""

NARROW = 64
"""Number of ids up to which a softmax goes by columns."""


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Make a linear layer with lecun-normal weights, with which SELU keeps activations normalised (Klambauer et al.
    2017)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Stack linear layers with SELU and dropout between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [linear(inputs, outputs), SELU(), Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class SELU(nn.SELU):
    """SELU that uses ``exp`` in training, exact to 1e-6. With AVX-512, torch's ``expm1`` takes three times as long."""

    def forward(self, x_BX: Tensor) -> Tensor:
        if not self.training:
            return F.selu(x_BX)
        above_BX = x_BX.relu()
        return (above_BX + ((x_BX - above_BX).exp() - 1) * ALPHA) * SCALE


class Dropout(nn.Dropout):
    """Dropout that draws one random number for four values, because drawing is the cost of dropout.

    It is the plain form (Srivastava et al. 2014), whose mean is the value itself. AlphaDropout sets dropped values to
    SELU's limit: given the input, the mean of a layer then shrinks in training and not in evaluation, so the loss of
    validation says little about the training.
    """

    def forward(self, x_BX: Tensor) -> Tensor:
        """Set dropped values to 0 and divide the others by 1 - p. By hand: with p = 0.5, a kept 1 becomes 2."""
        if not self.training or self.p == 0:
            return x_BX
        kept_BX = dropped(x_BX, self.p).logical_not_().to(x_BX.dtype)
        return x_BX * kept_BX.mul_(1 / (1 - self.p))


def dropped(like: Tensor, p: float) -> Tensor:
    """Draw a random mask of the same shape, true with probability ``p``, to 1/65536."""
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None)
    return words.view(torch.int16)[: like.numel()].view(like.shape) < round(p * 2**16) - 2**15


class MultinomialHead(nn.Module):
    """Logits of a field's ids per window: a query per window against one output table, plus a bias per window."""

    _padding_V: Tensor

    def __init__(self, width: int, windows: int, size: int, table: int) -> None:
        super().__init__()
        self.query = linear(width, windows * table)
        self.table_VE = nn.Parameter(torch.randn(size, table) / table**0.5)
        self.bias_WV = nn.Parameter(torch.zeros(windows, size))
        padding_V = torch.zeros(size).index_fill(0, torch.tensor([PADDING_ID]), -torch.inf)
        self.register_buffer("_padding_V", padding_V, persistent=False)

    def forward(self, last_BH: Tensor) -> Tensor:
        """Compute logits of each id in each bag, (M, V); padding has p = 0."""
        queries = self.query(last_BH).chunk(len(self.bias_WV), dim=1)
        biases = (self.bias_WV + self._padding_V).unbind()
        return torch.cat(
            [F.linear(query_BE, self.table_VE, bias_V) for query_BE, bias_V in zip(queries, biases, strict=True)]
        )


def multinomial_nll(logits_MV: Tensor, histogram: Histogram) -> Tensor:
    """Negative log-likelihood of each bag's histogram per event, without its constant; (M,), nats.

    It is that of Mult-DAE (Liang et al. 2018, arXiv 1802.05814, equation 2) divided by the bag's number of events:
    ``-sum_v share_v log p_v``, 0 for an empty bag. The histogram stays sparse.

    By hand: p = (1/2, 1/4, 1/4), counts (2, 1, 1) -> (2 ln 2 + ln 4 + ln 4) / 4 = 1.5 ln 2 = 1.0397.
    """
    made: Tensor = _MultinomialNLL.apply(  # type: ignore[no-untyped-call]
        logits_MV, histogram.ids_N, histogram.bags_N, histogram.shares_N, histogram.filled_M
    )
    return made


class _MultinomialNLL(torch.autograd.Function):
    """``multinomial_nll`` with its gradient ``p - share`` in closed form; autograd would use three dense (M, V)."""

    @staticmethod
    def forward(
        ctx: Any, logits_MV: Tensor, ids_N: Tensor, bags_N: Tensor, shares_N: Tensor, filled_M: Tensor
    ) -> Tensor:
        log_p_MV = log_softmax(logits_MV)
        place_N = bags_N * log_p_MV.shape[1] + ids_N
        ctx.save_for_backward(log_p_MV, place_N, bags_N, shares_N, filled_M)
        said_N = log_p_MV.view(-1).index_select(0, place_N)
        return log_p_MV.new_zeros(len(log_p_MV)).index_add_(0, bags_N, -shares_N * said_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        log_p_MV, place_N, bags_N, shares_N, filled_M = ctx.saved_tensors
        (grad_M,) = grads
        grad_MV = log_p_MV.exp().mul_((grad_M * filled_M)[:, None])
        grad_MV.view(-1).index_add_(0, place_N, -shares_N * grad_M.index_select(0, bags_N))
        return grad_MV, None, None, None, None


def log_softmax(logits_MV: Tensor) -> Tensor:
    """Softmax over the ids, in logarithms, (M, V)."""
    # Along so short a last dimension, torch takes 20 times as long as along the first.
    if logits_MV.shape[1] > NARROW:
        return logits_MV.log_softmax(1)
    return logits_MV.T.contiguous().log_softmax(0).T.contiguous()


def pooled(table_VE: Tensor, histogram: Histogram) -> Tensor:
    """Mean of the embedded ids of each bag, (M, E); 0 for an empty one."""
    made: Tensor = _Pooled.apply(table_VE, histogram.ids_N, histogram.bags_N, histogram.shares_N, histogram.offsets_M)  # type: ignore[no-untyped-call]
    return made


class _Pooled(torch.autograd.Function):
    """``EmbeddingBag`` over histograms. Torch's own backward sorts all ids first, which takes three times as long."""

    @staticmethod
    def forward(
        ctx: Any, table_VE: Tensor, ids_N: Tensor, bags_N: Tensor, shares_N: Tensor, offsets_M: Tensor
    ) -> Tensor:
        ctx.save_for_backward(ids_N, bags_N, shares_N)
        ctx.size = len(table_VE)
        return F.embedding_bag(
            ids_N, table_VE, offsets_M, mode="sum", per_sample_weights=shares_N, include_last_offset=True
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        ids_N, bags_N, shares_N = ctx.saved_tensors
        (grad_ME,) = grads
        of_pairs_NE = grad_ME.index_select(0, bags_N).mul_(shares_N[:, None])
        return grad_ME.new_zeros(ctx.size, grad_ME.shape[1]).index_add_(0, ids_N, of_pairs_NE), None, None, None, None
