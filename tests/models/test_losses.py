import math

import numpy as np
import pytest
import torch
from torch.distributions import Multinomial

from gur_spark.batches.aggregates import AggregateBatch, Future, Histogram
from gur_spark.models.gur.layers import multinomial_nll
from gur_spark.models.gur.losses import (
    future_loss,
    masked_squared_error,
    reconstruction_loss,
    training_loss,
)
from gur_spark.models.gur.reconstruction import Block, Prediction, Reconstruction, RSquared
from gur_spark.statistics.moments import Moments


def histogram_of(counts_MV: list[list[int]]) -> Histogram:
    """Bags of counts per id, in the sparse form of a batch."""
    counts = torch.tensor(counts_MV, dtype=torch.float32)
    bags_N, ids_N = counts.nonzero(as_tuple=True)
    events_M = counts.sum(1)
    offsets_M = torch.cat([torch.zeros(1, dtype=torch.long), (counts > 0).sum(1).cumsum(0)])
    return Histogram(ids_N, bags_N, counts[bags_N, ids_N] / events_M[bags_N], offsets_M, events_M > 0)


def test_squared_error_is_the_number_derived_by_hand() -> None:
    found = masked_squared_error(torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[3.0, math.nan, 4.0]]))
    assert found.tolist() == [2.5]


def test_a_user_without_any_target_has_no_squared_error() -> None:
    assert masked_squared_error(torch.ones(1, 2), torch.full((1, 2), math.nan)).tolist() == [0.0]


def test_the_target_gets_no_gradient_and_a_missing_one_gives_none() -> None:
    prediction = torch.tensor([[1.0, 2.0]], requires_grad=True)
    target = torch.tensor([[3.0, math.nan]], requires_grad=True)
    masked_squared_error(prediction, target).sum().backward()
    assert target.grad is None
    assert prediction.grad is not None
    assert prediction.grad.tolist() == [[-4.0, 0.0]]


def test_multinomial_likelihood_is_the_number_derived_by_hand() -> None:
    log_p = torch.tensor([[0.5, 0.25, 0.25]]).log()
    assert multinomial_nll(log_p, histogram_of([[2, 1, 1]])).item() == pytest.approx(1.5 * math.log(2))


def test_multinomial_likelihood_is_that_of_torch_without_the_constant() -> None:
    counts = [[2, 0, 3, 1], [0, 0, 1, 0], [0, 0, 0, 0], [7, 1, 1, 9]]
    log_p = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    found = multinomial_nll(log_p, histogram_of(counts))
    for bag, row in enumerate(counts):
        n = sum(row)
        # log of n! / (c1! c2! ...), which does not depend on p
        constant = math.lgamma(n + 1) - sum(math.lgamma(c + 1) for c in row)
        trusted = Multinomial(n, logits=log_p[bag]).log_prob(torch.tensor(row, dtype=torch.float32)) if n else 0.0
        assert found[bag].item() == pytest.approx((constant - float(trusted)) / max(n, 1), rel=1e-5)


def test_numbers_and_histograms_weigh_alike_whatever_their_number() -> None:
    # Two windows of one user: terms ln 2 and 0 (an empty bag), mean ln 2 / 2; squared error 2.5.
    batch = AggregateBatch(torch.zeros(1, 3), {"mcc": histogram_of([[1, 0], [0, 0]])})
    made = Reconstruction(
        target_BT=torch.tensor([[3.0, math.nan, 4.0]]),
        prediction_BT=torch.tensor([[1.0, 2.0, 5.0]]),
        logits={"mcc": torch.full((2, 2), 0.5).log()},
    )
    assert reconstruction_loss(made, batch).tolist() == pytest.approx([2.5 + math.log(2) / 2])


def test_moments_of_batches_are_those_of_numpy_over_all_rows() -> None:
    x = np.random.default_rng(0).normal(1e6, 3, (50, 4))
    x[::3, 1] = np.nan
    x[:, 2] = 5.0
    moments = Moments(4)
    for part in np.array_split(x, 7):
        moments.update(part)
    np.testing.assert_allclose(moments.mean_T, np.nanmean(x, axis=0))
    np.testing.assert_allclose(moments.std()[[0, 1, 3]], np.nanstd(x, axis=0)[[0, 1, 3]])
    assert moments.std()[2] == 1.0


def test_r2_is_that_of_all_rows_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 4, (2 * 30, 5), generator=generator)
    counts[3] = 0
    target, prediction = torch.randn(2, 30, 3, generator=generator)
    target[4, 1] = math.nan
    log_p = torch.randn(60, 5, generator=generator).log_softmax(1)
    blocks = [Block(7 * 24, None), Block(7 * 24, None), Block(30 * 24, "amount")]
    found = RSquared(blocks, {"mcc": (7 * 24, 30 * 24)})
    for users in (slice(0, 20), slice(20, 30)):
        part = torch.cat([counts[users], counts[30:][users]])
        batch = AggregateBatch(target[users], {"mcc": histogram_of(part.tolist())})
        made = Reconstruction(
            target_BT=target[users],
            prediction_BT=prediction[users],
            logits={"mcc": torch.cat([log_p[users], log_p[30:][users]])},
        )
        found.update(made, batch)

    def oracle(x: np.ndarray, y: np.ndarray) -> float:
        return float(1 - np.nansum((x - y) ** 2) / np.nansum((x - np.nanmean(x, axis=0)) ** 2))

    x, y, p = target.double().numpy(), prediction.double().numpy(), log_p.double().exp().numpy()
    with np.errstate(invalid="ignore"):
        shares = counts.numpy() / counts.numpy().sum(1, keepdims=True)
    expected = {
        "r2_7d": oracle(x[:, :2], y[:, :2]),
        "r2_amount_30d": oracle(x[:, 2:], y[:, 2:]),
        "r2_mcc_7d": oracle(shares[:30], p[:30]),
        "r2_mcc_30d": oracle(shares[30:], p[30:]),
    }
    assert found.result() == pytest.approx({"r2": np.mean(list(expected.values())), **expected}, rel=1e-5)


def test_a_block_that_does_not_vary_has_no_r2() -> None:
    found = RSquared([Block(7 * 24, None), Block(30 * 24, None)], {})
    batch = AggregateBatch(torch.zeros(3, 2), {})
    target = torch.tensor([[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]])
    found.update(Reconstruction(target_BT=target, prediction_BT=target, logits={}), batch)
    assert found.result() == {"r2": 1.0, "r2_7d": 1.0}


def test_the_future_of_a_user_is_the_number_derived_by_hand() -> None:
    log_p = {"mcc": torch.tensor([[0.5, 0.5]]).log(), "channel": torch.tensor([[0.25, 0.75]]).log()}
    expected = Prediction(active_B=torch.zeros(1), log_events_B=torch.ones(1), logits=log_p)
    silent = Future(torch.zeros(1), dict.fromkeys(log_p, histogram_of([[0, 0]])))
    assert future_loss(expected, silent).item() == pytest.approx(math.log(2) + 1)
    # Three events: ln 2 of being active, (1 - ln 4)^2, and the mean of ln 2 and of ln 4 for two of three.
    came = Future(torch.tensor([3.0]), {"mcc": histogram_of([[1, 2]]), "channel": histogram_of([[2, 1]])})
    channel = (2 * math.log(4) + math.log(4 / 3)) / 3
    by_hand = math.log(2) + (1 - math.log(4)) ** 2 + (math.log(2) + channel) / 2
    assert future_loss(expected, came).item() == pytest.approx(by_hand)


def test_losses_are_added_by_their_weights() -> None:
    batch = AggregateBatch(torch.zeros(1, 1), {}, Future(torch.zeros(1), {}))
    future = Prediction(active_B=torch.zeros(1), log_events_B=torch.ones(1), logits={})
    made = Reconstruction(torch.zeros(1, 1), torch.full((1, 1), 2.0), {}, future)
    by_hand = 0.5 * 4.0 + 3 * (math.log(2) + 1)
    assert training_loss(made, batch, {"mse": 0.5, "future": 3.0}).item() == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="needs batches of training pairs"):
        training_loss(made, AggregateBatch(torch.zeros(1, 1), {}), {"future": 1.0})
