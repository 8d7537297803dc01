"""The latent: plain or drawn from a distribution, of any length or of length 1."""

# B = users, L = latent width

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gur_spark.models.gur.settings import GurModel

LOG_VARIANCES = (-20.0, 20.0)
"""Range of log variances. Beyond it a float32 has neither variance nor gradient."""


@dataclass(frozen=True)
class Posterior:
    """Normal distributions that a variational encoder gives."""

    mean_BL: Tensor
    log_variance_BL: Tensor

    def draw(self) -> Tensor:
        """Draw a latent of each user, (B, L); the gradient reaches mean and variance (Kingma & Welling 2014)."""
        return self.mean_BL + (0.5 * self.log_variance_BL).exp() * torch.randn_like(self.mean_BL)


class Latent(nn.Module):
    """Turns the encoder's output into the latent: the embedding, and the input of all heads."""

    def __init__(self, config: GurModel) -> None:
        super().__init__()
        self._variational, self._unit_norm = config.latent == "variational", config.unit_norm
        self.inputs = config.latent_dim * (2 if self._variational else 1)
        self._scale = config.latent_dim**0.5 if config.unit_norm else 1.0

    def forward(self, encoded_BX: Tensor) -> tuple[Tensor, Posterior | None]:
        """Compute the latent (B, L), drawn in training only, and the distribution that it was drawn from."""
        posterior = None
        if self._variational:
            mean_BL, log_variance_BL = encoded_BX.chunk(2, dim=1)
            posterior = Posterior(mean_BL, log_variance_BL.clamp(*LOG_VARIANCES))
            encoded_BX = posterior.draw() if self.training else mean_BL
        return F.normalize(encoded_BX, dim=1) if self._unit_norm else encoded_BX, posterior

    def for_heads(self, latent_BL: Tensor) -> Tensor:
        """Scale the latent for the heads.

        A latent of length 1 gets components of variance 1, the scale for which layers are initialised.
        """
        return latent_BL * self._scale
