"""The loss ``contrastive``: the two views of a user are found among views of others, never among the user's own."""

import math

import numpy as np
import pytest
import torch

from gur_spark.batches.aggregates import AggregateBatch, Views, to_batch
from gur_spark.batches.layout import Layout
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.losses import contrastive_loss, training_loss
from gur_spark.models.gur.reconstruction import Projections
from gur_spark.models.gur.settings import Contrastive, GurModel
from tests.aggregate_data import SIZES, WINDOWS, random_events, tiny_manifest, to_rows


def views(users: list[int], there: list[bool] | None = None) -> Views:
    return Views((), torch.tensor(users), torch.tensor(there or [True] * len(users)))


def loss(first: torch.Tensor, second: torch.Tensor, of: Views, temperature: float = 1.0) -> torch.Tensor:
    return contrastive_loss(Projections(first, second, temperature), of)


def test_the_loss_is_the_number_derived_by_hand() -> None:
    augmented = torch.eye(2) * torch.tensor([[2.0], [3.0]])  # lengths do not count
    found = loss(augmented, augmented, views([1, 2]))
    assert found.tolist() == pytest.approx([-math.log(math.e / (math.e + 2))] * 2)
    # At temperature 1/2 the cosine 1 becomes 2.
    assert loss(augmented, augmented, views([1, 2]), 0.5)[0].item() == pytest.approx(math.log(1 + 2 / math.e**2))


def nt_xent(z: np.ndarray, positive: list[int], users: list[int], temperature: float) -> list[float]:
    """Equation 1 of SimCLR, pair by pair."""
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    found = []
    for i, k in enumerate(positive):
        others = [j for j in range(len(z)) if j == k or users[j] != users[i]]
        total = sum(math.exp(z[i] @ z[j] / temperature) for j in others)
        found.append(-math.log(math.exp(z[i] @ z[k] / temperature) / total))
    return found


def test_the_loss_is_that_of_the_equation_pair_by_pair() -> None:
    first, second = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    users, there = [1, 2, 3, 1, 4, 5, 3], [True, True, True, True, False, True, True]
    found = loss(first, second, views(users, there), 0.3)
    kept = [row for row in range(7) if there[row]]
    z = np.concatenate([first.numpy()[kept], second.numpy()[kept]])
    n = len(kept)
    expected = nt_xent(z, [(i + n) % (2 * n) for i in range(2 * n)], [users[row] for row in kept] * 2, 0.3)
    by_row = {row: (expected[i] + expected[i + n]) / 2 for i, row in enumerate(kept)}
    assert found.tolist() == pytest.approx([by_row.get(row, 0.0) for row in range(7)], rel=1e-5)


def test_a_second_row_of_a_user_is_no_negative_and_the_order_of_rows_does_not_matter() -> None:
    first, second = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    alone = loss(first[:1], second[:1], views([7]))
    assert alone.tolist() == [0.0]  # nobody else to be told from
    assert loss(first, second, views([7, 7, 7])).tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    order = [2, 0, 1]
    torch.testing.assert_close(
        loss(first[order], second[order], views([3, 1, 2])), loss(first, second, views([1, 2, 3]))[order]
    )


def test_a_batch_without_a_pair_has_no_loss_and_still_a_gradient() -> None:
    first = torch.randn(3, 2, requires_grad=True)
    loss(first, first, views([1, 2, 3], [False] * 3)).sum().backward()
    assert first.grad is not None
    assert not first.grad.any()


LAYOUT = Layout.of(tiny_manifest(), SIZES)
CONFIG = GurModel(
    latent_dim=6, dropout=0, block_dropout=0, loss={"contrastive": 1.0}, tables="trained", dense_scale="signed_log1p"
)


def test_a_model_without_the_loss_has_no_head_for_it() -> None:
    assert GUR(LAYOUT, CONFIG.model_copy(update={"loss": {"likelihood": 1.0}})).projection_head is None


@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize("several", [1, 2])
@pytest.mark.parametrize("weights", [{"contrastive": 1.0}, {"likelihood": 1.0, "contrastive": 0.5}])
def test_the_last_two_views_are_the_pair_and_every_parameter_learns(
    several: int, weights: dict[str, float], unit_norm: bool
) -> None:
    augmented = [
        to_batch(to_rows(random_events(30, SIZES, ["amount"], seed, WINDOWS[-1]), tiny_manifest()), LAYOUT)
        for seed in range(1 + several)
    ]
    own = augmented[0]
    of = Views(tuple(augmented[1:]), torch.arange(30), torch.ones(30, dtype=torch.bool))
    batch = AggregateBatch(own.dense_BD, own.histograms, views=of)
    torch.manual_seed(0)
    module = GUR(
        LAYOUT,
        CONFIG.model_copy(
            update={"loss": weights, "contrastive": Contrastive(temperature=0.2), "unit_norm": unit_norm}
        ),
    )
    assert (module.decoder is None) == ("likelihood" not in weights)
    found = module(batch)
    assert found.projections is not None
    assert found.projections.temperature == 0.2
    assert module.projection_head is not None
    # Components of variance 1, for which layers are initialised, whatever the length of the embedding.
    scale = 6**0.5 if unit_norm else 1
    # The head sees the nonlinear half alone.
    for projected, view in ((found.projections.first_BL, augmented[-2]), (found.projections.second_BL, augmented[-1])):
        torch.testing.assert_close(projected, module.projection_head(module.encode(view)[:, 3:] * scale))
    training_loss(found, batch, module.loss_weights).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())
    with pytest.raises(ValueError, match="needs batches of training pairs, with other views"):
        training_loss(module(own), own, module.loss_weights)
