"""The latent: as the encoder gives it or drawn from a distribution, of any length or of length 1."""

# B = users, L = latent width

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gur_spark.models.gur.settings import GurModel

LOG_VARIANCES = (-20.0, 20.0)
"""Beyond them a float32 knows no variance, and no gradient."""


@dataclass(frozen=True)
class Posterior:
    """The normal distributions that a variational encoder gives."""

    mean_BL: Tensor
    log_variance_BL: Tensor

    def draw(self) -> Tensor:
        """A latent of each user, (B, L); the gradient reaches mean and variance (Kingma & Welling 2014)."""
        return self.mean_BL + (0.5 * self.log_variance_BL).exp() * torch.randn_like(self.mean_BL)


class Latent(nn.Module):
    """What the encoder gives -> the latent: the embedding, and what all heads read."""

    def __init__(self, config: GurModel) -> None:
        super().__init__()
        self._variational, self._unit_norm = config.latent == "variational", config.unit_norm
        self.inputs = config.latent_dim * (2 if self._variational else 1)
        self._scale = config.latent_dim**0.5 if config.unit_norm else 1.0

    def forward(self, encoded_BX: Tensor) -> tuple[Tensor, Posterior | None]:
        """(B, L), drawn in training only, and what it was drawn from."""
        posterior = None
        if self._variational:
            mean_BL, log_variance_BL = encoded_BX.chunk(2, dim=1)
            posterior = Posterior(mean_BL, log_variance_BL.clamp(*LOG_VARIANCES))
            encoded_BX = posterior.draw() if self.training else mean_BL
        return F.normalize(encoded_BX, dim=1) if self._unit_norm else encoded_BX, posterior

    def for_heads(self, latent_BL: Tensor) -> Tensor:
        """With components of variance 1, for which layers are initialised, where the latent has length 1."""
        return latent_BL * self._scale
