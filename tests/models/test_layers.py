"""Layers that are written for speed equal torch's own, gradients included."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from gur_spark.batches.aggregates import Histogram
from gur_spark.models.gur.layers import NARROW, SELU, Dropout, dropped, log_softmax, mlp, multinomial_nll, pooled


def histogram_of(bags: list[dict[int, int]]) -> Histogram:
    """Bags of counts by id."""
    pairs = [(bag, i, n / sum(counts.values())) for bag, counts in enumerate(bags) for i, n in sorted(counts.items())]
    bags_N, ids_N = (torch.tensor([pair[part] for pair in pairs], dtype=torch.long) for part in (0, 1))
    sizes_M = torch.tensor([len(counts) for counts in bags])
    offsets_M = torch.cat([torch.zeros(1, dtype=torch.long), sizes_M.cumsum(0)])
    return Histogram(ids_N, bags_N, torch.tensor([pair[2] for pair in pairs]), offsets_M, sizes_M > 0)


BAGS = [{1: 2, 3: 1}, {}, {2: 5}, {1: 1, 2: 1, 4: 2}, {}]


def values_and_gradients(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    made = module(x)
    made.square().sum().backward()
    assert x.grad is not None
    return made.detach(), x.grad


def test_selu_is_that_of_torch_in_training_and_the_same_bits_in_evaluation() -> None:
    x = torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([0.0, -1e-8, 1e-8, -1e4, 1e4])])
    for found, expected in zip(values_and_gradients(SELU(), x), values_and_gradients(nn.SELU(), x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(SELU().eval()(x), nn.SELU()(x))


def test_dropout_gives_the_numbers_derived_by_hand_and_nothing_changes_in_evaluation() -> None:
    torch.manual_seed(0)
    found = Dropout(0.5)(torch.ones(1000))
    assert sorted(set(found.tolist())) == [0.0, 2.0]
    x = torch.randn(10)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("p", [0.05, 0.3])
def test_the_mean_of_dropout_is_the_value_itself_and_its_variance_is_that_of_torch(p: float) -> None:
    torch.manual_seed(0)
    x = torch.tensor([-1.0, 0.25, 2.0]).repeat(200_000, 1)
    ours, theirs = Dropout(p)(x), nn.Dropout(p)(x)
    assert ours.mean(0).tolist() == pytest.approx(x[0].tolist(), abs=0.01)
    assert ours.std(0).tolist() == pytest.approx(theirs.std(0).tolist(), abs=0.01)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999])
def test_a_share_p_is_dropped_in_every_column_and_neighbours_are_independent(p: float) -> None:
    torch.manual_seed(0)
    mask = dropped(torch.empty(20_000, 7), p).double()
    error = 5 * math.sqrt(max(p * (1 - p), 1e-9) / 20_000)
    assert mask.mean(0).tolist() == pytest.approx([p] * 7, abs=error + 1e-5)
    # Four values share a random word: pairs of them are dropped together as often as chance has it.
    together = (mask.T @ mask) / len(mask)
    for a in range(7):
        for b in range(a):
            assert together[a, b].item() == pytest.approx(p * p, abs=error + 1e-5)


def test_the_mask_is_drawn_from_the_seed() -> None:
    masks = [(torch.manual_seed(seed), dropped(torch.empty(3, 5), 0.5))[1] for seed in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("size", [5, NARROW, NARROW + 1, 300])
def test_log_softmax_is_that_of_torch_for_few_ids_and_for_many(size: int) -> None:
    logits = torch.randn(7, size, generator=torch.Generator().manual_seed(0))
    logits[:, 0] = -torch.inf
    torch.testing.assert_close(log_softmax(logits), logits.log_softmax(1))
    assert log_softmax(logits).is_contiguous()


@pytest.mark.parametrize("size", [5, NARROW + 1])
def test_the_likelihood_and_its_gradient_are_those_of_autograd_over_all_ids(size: int) -> None:
    histogram = histogram_of(BAGS)
    logits = torch.randn(len(BAGS), size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[:, 0] = -torch.inf
    weights_M = torch.arange(1.0, 1 + len(BAGS), dtype=torch.float64)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    (multinomial_nll(ours, histogram) * weights_M).sum().backward()
    terms = []
    for bag, counts in enumerate(BAGS):
        p = Categorical(logits=theirs[bag])
        events = [i for i, n in counts.items() for _ in range(n)]
        terms.append(-p.log_prob(torch.tensor(events)).mean() if events else theirs[bag, 1] * 0)
    (torch.stack(terms) * weights_M).sum().backward()
    torch.testing.assert_close(multinomial_nll(logits, histogram), torch.stack(terms).detach(), atol=1e-6, rtol=1e-6)
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad.nan_to_num(), atol=1e-6, rtol=1e-6)


def test_pooling_and_its_gradient_are_those_of_an_embedding_bag() -> None:
    histogram = histogram_of(BAGS)
    weight = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    ours, bag = (
        weight.clone().requires_grad_(),
        nn.EmbeddingBag.from_pretrained(weight.clone(), freeze=False, mode="sum", include_last_offset=True),
    )
    found, expected = (
        pooled(ours, histogram),
        bag(histogram.ids_N, histogram.offsets_M, per_sample_weights=histogram.shares_N),
    )
    assert torch.equal(found, expected)
    for made in (found, expected):
        (made * torch.arange(15.0).view(5, 3)).sum().backward()
    assert ours.grad is not None
    assert bag.weight.grad is not None
    torch.testing.assert_close(ours.grad, bag.weight.grad)


def test_an_mlp_of_our_layers_has_the_names_of_weights_that_torchs_would_give() -> None:
    # Artefacts are loaded by them.
    assert list(mlp([4, 3, 2], 0.1).state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias"]
