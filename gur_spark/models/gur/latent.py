"""The latent: plain or drawn from a distribution, of any length or of length 1."""

# B = users, K = width of the linear part, N = width of the nonlinear part, L = K + N, X = width of the encoder's output

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gur_spark.models.gur.settings import GurModel
from gur_spark.statistics.moments import Moments

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
    """Turns the encoder's output into the nonlinear part, and joins both parts to the latent: the input of all heads.

    A latent that is embedded is scaled as well (``embedded``), so that both parts have comparable sizes.
    """

    mean_N: Tensor
    scale: Tensor

    def __init__(self, config: GurModel) -> None:
        super().__init__()
        self._variational, self._unit_norm = config.latent == "variational", config.unit_norm
        self.width = config.nonlinear_width
        self.inputs = self.width * (2 if self._variational else 1)
        self._scale = config.latent_dim**0.5 if config.unit_norm else 1.0
        self.scaled = bool(config.linear_width) and not config.unit_norm
        """Whether the nonlinear part is centred and scaled when it is embedded."""
        if self.scaled:
            self.register_buffer("mean_N", torch.zeros(config.nonlinear_width))
            self.register_buffer("scale", torch.ones(()))

    def forward(self, encoded_BX: Tensor) -> tuple[Tensor, Posterior | None]:
        """Compute the nonlinear part (B, N), drawn in training only, and the distribution that it was drawn from."""
        if not self._variational:
            return encoded_BX, None
        mean_BN, log_variance_BN = encoded_BX.chunk(2, dim=1)
        posterior = Posterior(mean_BN, log_variance_BN.clamp(*LOG_VARIANCES))
        return posterior.draw() if self.training else mean_BN, posterior

    def joined(self, linear_BK: Tensor | None, nonlinear_BN: Tensor) -> Tensor:
        """Join the parts to the latent, (B, L)."""
        latent_BL = nonlinear_BN if linear_BK is None else torch.cat([linear_BK, nonlinear_BN], dim=1)
        return F.normalize(latent_BL, dim=1) if self._unit_norm else latent_BL

    def nonlinear(self, latent_BL: Tensor) -> Tensor:
        """Slice the nonlinear part out of a latent, (B, N)."""
        return latent_BL[:, -self.width :]

    def embedded(self, nonlinear_BN: Tensor) -> Tensor:
        """Give the nonlinear part mean 0 and, on average over its dimensions, variance 1, as the linear part has.

        One factor scales all dimensions, so that the model's own balance between them stays. It is the identity without
        a linear part, and for embeddings of length 1, in which training finds the balance of the parts.
        """
        return (nonlinear_BN - self.mean_N) * self.scale if self.scaled else nonlinear_BN

    def set_scale(self, moments: Moments) -> None:
        """Set mean and scale by the nonlinear part of some users."""
        variance = float((moments.deviation_T / np.maximum(moments.count_T, 1)).mean())
        self.mean_N.copy_(torch.from_numpy(moments.mean_T))
        self.scale.fill_(variance**-0.5 if variance > 1e-12 else 1.0)

    def for_heads(self, latent_BL: Tensor) -> Tensor:
        """Scale the latent for the heads.

        A latent of length 1 gets components of variance 1, the scale for which layers are initialised.
        """
        return latent_BL * self._scale
