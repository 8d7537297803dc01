"""The latent: drawn in training and its mean afterwards, of length 1 where asked for, whatever reads it."""

import pyarrow as pa
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from gur_spark.batches.aggregates import AggregateBatch, to_batch
from gur_spark.batches.layout import Layout
from gur_spark.models.gur import losses
from gur_spark.models.gur.autoencoder import GUR
from gur_spark.models.gur.latent import Posterior
from gur_spark.models.gur.settings import GurModel
from tests.aggregate_data import SIZES, WINDOWS, random_events, tiny_manifest, to_rows

LAYOUT = Layout.of(tiny_manifest(), SIZES)
CONFIG = GurModel(
    latent_dim=6, dropout=0, block_dropout=0, loss={"likelihood": 1.0}, tables="trained", dense_scale="signed_log1p"
)
VARIATIONAL = CONFIG.model_copy(update={"latent": "variational", "kl_weight": 0.25, "kl_warmup_epochs": 4})
UNIT = CONFIG.model_copy(update={"unit_norm": True})
BOTH = VARIATIONAL.model_copy(update={"unit_norm": True})


@pytest.fixture(scope="module")
def batch() -> AggregateBatch:
    rows: pa.RecordBatch = to_rows(random_events(40, SIZES, ["amount"], 3, WINDOWS[-1]), tiny_manifest())
    return to_batch(rows, LAYOUT)


def made(config: GurModel) -> GUR:
    torch.manual_seed(0)
    return GUR(LAYOUT, config)


def test_the_divergence_is_the_number_derived_by_hand_and_that_of_torch() -> None:
    by_hand = Posterior(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert losses.kl_divergence(by_hand).item() == pytest.approx(0.5 + (torch.e - 2) / 2)
    mean, log_variance = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    trusted = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(losses.kl_divergence(Posterior(mean, log_variance)), trusted)


def test_draws_are_of_the_distribution_and_their_gradient_reaches_mean_and_variance() -> None:
    torch.manual_seed(0)
    mean = torch.full((20_000, 1), 3.0, requires_grad=True)
    log_variance = torch.full((20_000, 1), 2 * torch.tensor(0.5).log(), requires_grad=True)
    drawn = Posterior(mean, log_variance).draw()
    assert (drawn.mean().item(), drawn.std().item()) == pytest.approx((3, 0.5), abs=0.02)
    drawn.square().sum().backward()
    assert mean.grad is not None
    assert log_variance.grad is not None
    # d/dm E[z^2] = 2 m, and d/d(ln s^2) E[z^2] = s^2.
    assert (mean.grad.mean().item(), log_variance.grad.mean().item()) == pytest.approx((6, 0.25), abs=0.05)


@pytest.mark.parametrize("config", [VARIATIONAL, BOTH])
def test_a_variational_latent_is_drawn_in_training_and_the_mean_when_scoring(
    config: GurModel, batch: AggregateBatch
) -> None:
    module = made(config)
    assert not torch.equal(module.encode(batch), module.encode(batch))
    module.eval()
    found = module(batch)
    assert found.posterior is not None
    assert module.linear is not None
    parts_BL = torch.cat([module.linear(batch), found.posterior.mean_BL], dim=1)
    expected = torch.nn.functional.normalize(parts_BL, dim=1) if config.unit_norm else parts_BL
    torch.testing.assert_close(module.encode(batch), expected)


def test_the_weight_of_the_divergence_rises_in_the_warm_up_and_is_whole_when_validated(batch: AggregateBatch) -> None:
    module = made(VARIATIONAL)
    assert [module.weights(epoch)["kl"] for epoch in (0, 1, 4, 9)] == [0, 0.0625, 0.25, 0.25]
    assert module.loss_weights == {"likelihood": 1.0, "kl": 0.25}
    found = module.eval()(batch)
    terms = losses.loss_terms(found, batch, module.loss_weights)
    assert found.posterior is not None
    torch.testing.assert_close(terms["kl"], losses.kl_divergence(found.posterior))
    torch.testing.assert_close(
        losses.training_loss(found, batch, module.loss_weights), terms["likelihood"] + 0.25 * terms["kl"]
    )
    with pytest.raises(ValueError, match="needs a model with a variational latent"):
        losses.loss_terms(made(CONFIG)(batch), batch, {"kl": 1.0})


@pytest.mark.parametrize("config", [UNIT, BOTH])
def test_embeddings_have_length_one_and_every_parameter_still_learns(config: GurModel, batch: AggregateBatch) -> None:
    module = made(config)
    torch.testing.assert_close(module.encode(batch).norm(dim=1), torch.ones(40))
    losses.training_loss(module(batch), batch, module.loss_weights).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in module.parameters())
    module.eval()
    torch.testing.assert_close(module.encode(batch).norm(dim=1), torch.ones(40))
