"""Losses with one value per user, so that users weigh alike however many events they have."""

# B = users, T = target values, M = W * B bags (a user's window), N = (bag, id) pairs of a field, V = its ids
# L = latent width, P = users with a positive pair, Q = 2 P latents of theirs

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from gur_spark.batches.aggregates import AggregateBatch, Future, Views
from gur_spark.models.gur.latent import Posterior
from gur_spark.models.gur.layers import multinomial_nll
from gur_spark.models.gur.reconstruction import Prediction, Projections, Reconstruction


def loss_terms(made: Reconstruction, batch: AggregateBatch, weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Compute each loss of ``GUR.loss_weights`` before it is weighted, (B,) by name; ``mse`` and ``likelihood``
    reconstruct.

    Raises:
        ValueError: the batch or the model lacks the inputs of a loss.
    """
    return {name: _TERMS[name](made, batch) for name in weights}


def training_loss(made: Reconstruction, batch: AggregateBatch, weights: Mapping[str, float]) -> Tensor:
    """Weighted sum of the losses of each user, (B,).

    By hand: likelihood 4.0 and future 1.5 with weights {likelihood: 1, future: 2} -> 4.0 + 2 * 1.5 = 7.0.
    """
    terms = loss_terms(made, batch, weights)
    return torch.stack([weights[name] * term_B for name, term_B in terms.items()]).sum(0)


def future_loss(expected: Prediction, future: Future) -> Tensor:
    """Loss of the prediction of each user's future, (B,).

    It is the sum of the cross-entropy of having an event at all, the squared error of ln(1 + events), and the mean over
    the fields of ``multinomial_nll`` (0 for a user without events). Days ahead have few events, and a count tells them
    with the least noise on a log scale.

    By hand: a user without events had the predictions p(active) = 1/2 and ln(1 + events) = 1: ln 2 + (1 - 0)^2 = 1.693.
    """
    active_B = (future.events_B > 0).to(expected.active_B.dtype)
    cross_entropy_B = F.binary_cross_entropy_with_logits(expected.active_B, active_B, reduction="none")
    loss_B = cross_entropy_B + (expected.log_events_B - future.events_B.log1p()).square()
    terms = [multinomial_nll(logits_BV, future.histograms[field]) for field, logits_BV in expected.logits.items()]
    return loss_B + torch.stack(terms).mean(0) if terms else loss_B


def reconstruction_loss(made: Reconstruction, batch: AggregateBatch) -> Tensor:
    """Loss of the reconstruction of each user, (B,).

    It is the squared error of the standardised values, plus, for ``likelihood``, the mean of the histograms' terms: the
    numbers and the histograms weigh alike, however many fields and windows there are.

    By hand: squared error 2.5, histogram terms 1.0 and 2.0 -> 2.5 + (1.0 + 2.0) / 2 = 4.0.
    """
    error_B = masked_squared_error(made.prediction_BT, made.target_BT)
    terms = [multinomial_nll(logits_MV, batch.histograms[field]) for field, logits_MV in made.logits.items()]
    return error_B + torch.cat(terms).view(-1, len(batch)).mean(0) if terms else error_B


def masked_squared_error(prediction_BT: Tensor, target_BT: Tensor) -> Tensor:
    """Mean squared error per user over the target values that are known; (B,).

    NaN in the target means "not known". The target gets no gradient: a learned target would shrink to make the error
    small.

    By hand: prediction [1, 2, 5], target [3, NaN, 4] -> ((1-3)^2 + (5-4)^2) / 2 = 2.5.
    """
    target_BT = target_BT.detach()
    missing_BT = target_BT.isnan()
    error_BT = (prediction_BT - target_BT).masked_fill(missing_BT, 0.0)
    return error_BT.square().sum(1) / (~missing_BT).sum(1).clamp(min=1)


def contrastive_loss(projections: Projections, views: Views) -> Tensor:
    """Loss of finding each user's other view among those of all users of the batch, (B,).

    It is NT-Xent (Chen et al. 2020, arXiv 2002.05709, equation 1), with cosines over the temperature: the mean over
    both views of ``-ln(e^pos / (e^pos + sum e^neg))``. Negatives are both views of all other users; other rows of the
    same user are none. A user without events in one of the views is left out, with a loss of 0.

    By hand: two users, both views of each the same, the users orthogonal, temperature 1: the positive is 1, the two
    negatives are 0: -ln(e / (e + 2)) = 0.5514.
    """
    kept_P = views.there_B.nonzero().squeeze(1)
    latent_QL = F.normalize(torch.cat([projections.first_BL[kept_P], projections.second_BL[kept_P]]), dim=1)
    users_Q = views.users_B[kept_P].repeat(2)
    positive_Q = torch.arange(len(users_Q), device=users_Q.device).roll(len(kept_P))
    others_QQ = users_Q[:, None] != users_Q[None, :]
    compared_QQ = others_QQ.scatter(1, positive_Q[:, None], True)
    logits_QQ = (latent_QL @ latent_QL.T / projections.temperature).masked_fill(~compared_QQ, -torch.inf)
    nll_Q = F.cross_entropy(logits_QQ, positive_Q, reduction="none")
    return nll_Q.new_zeros(len(views.there_B)).index_add(0, kept_P, nll_Q.view(2, -1).mean(0))


def kl_divergence(posterior: Posterior) -> Tensor:
    """Divergence of each user's distribution from the standard normal, (B,), nats.

    It is ``1/2 sum(m^2 + s^2 - 1 - ln s^2)`` (Kingma & Welling 2014, arXiv 1312.6114, appendix B).

    By hand: means (1, 0), variances (1, e): (1 + 1 - 1 - 0) / 2 + (0 + e - 1 - 1) / 2 = 0.5 + 0.3591 = 0.8591.
    """
    log_variance_BL = posterior.log_variance_BL
    return 0.5 * (posterior.mean_BL.square() + log_variance_BL.exp() - 1 - log_variance_BL).sum(1)


def _future(made: Reconstruction, batch: AggregateBatch) -> Tensor:
    if made.future is None or batch.future is None:
        raise ValueError("loss 'future' needs batches of training pairs and a model with a future head")
    return future_loss(made.future, batch.future)


def _contrastive(made: Reconstruction, batch: AggregateBatch) -> Tensor:
    if made.projections is None or batch.views is None:
        raise ValueError("loss 'contrastive' needs batches of training pairs, with other views of their users")
    return contrastive_loss(made.projections, batch.views)


def _kl(made: Reconstruction, batch: AggregateBatch) -> Tensor:
    if made.posterior is None:
        raise ValueError("loss 'kl' needs a model with a variational latent")
    return kl_divergence(made.posterior)


_TERMS: Mapping[str, Callable[[Reconstruction, AggregateBatch], Tensor]] = {
    "mse": reconstruction_loss,
    "likelihood": reconstruction_loss,
    "future": _future,
    "contrastive": _contrastive,
    "kl": _kl,
}
