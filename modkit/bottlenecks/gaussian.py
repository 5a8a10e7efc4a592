r"""The bottleneck of a variational autoencoder: a diagonal Gaussian posterior against a standard normal prior.

    q(z | x) = N(mean, exp(logvar)),   z = mean + exp(logvar / 2) noise
    KL(q || N(0, I)) = 1/2 sum(mean^2 + exp(logvar) - 1 - logvar)        H(q) = 1/2 sum(logvar + log(2 pi e))

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes).

References:
    Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix B, https://arxiv.org/abs/1312.6114
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modkit.bottlenecks.pointwise import check_features, pointwise
from modkit.kinds import Step
from modkit.precision import widen
from modkit.rng import Rng
from modkit.samplers.sampling import draw_start
from modkit.types import Event, Latents, TensorType

__all__ = ["Gaussian"]

_LOGVAR = (-30.0, 20.0)
_LOG_TWO_PI = math.log(2 * math.pi)


class Gaussian(nn.Module):
    """A Gaussian posterior with a standard normal prior.

    A 1x1 convolution (a linear layer for vectors) computes the mean and the log variance from the features.

    Args:
        channels: Channels of the latent map, or the width of a latent vector; with None, as many as the features have.

    Raises:
        ValueError: If `channels` is below 1, or the features are a hierarchy or codes.

    Examples:
        >>> bottleneck = Gaussian(TensorType((8, 4, 4)), channels=2)
        >>> latents = bottleneck(torch.zeros(2, 8, 4, 4), None)
        >>> latents.values["continuous"].shape, latents.kl.shape
        (torch.Size([2, 2, 4, 4]), torch.Size([2, 2]))
        >>> bottleneck.sample(3, Rng(0)).shape
        torch.Size([3, 2, 4, 4])
    """

    def __init__(self, h: Event, *, channels: int | None = 4) -> None:
        super().__init__()
        h = check_features("Gaussian", h)
        channels = h.shape[0] if channels is None else channels
        if channels < 1:
            raise ValueError(f"Gaussian expects channels of at least 1, got {channels}")
        self._z = TensorType((channels, *h.shape[1:]))
        self.start_noise = TensorType(self._z.shape, std=1.0)
        self.latents: dict[str, Event] = {"continuous": self._z}
        self.project = pointwise(h, 2 * channels)

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Draws a reparametrised z, `b channels h w`, and computes the KL in nats of each channel, `b channels`.

        Without a step, z is the mean. Statistics are computed in at least float32; gradients reach `h` through both z
        and the KL.
        """
        condensed = self.condense("continuous", h)
        mean, logvar = _split_statistics(condensed)
        kl = 0.5 * (mean.square() + torch.expm1(logvar) - logvar)
        z = self.expand("continuous", condensed, None if step is None else step.rng)
        return Latents({"continuous": z}, kl[..., None].flatten(2).sum(2), {})

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Returns `latent` unchanged.

        Raises:
            ValueError: If `name` is not `continuous`.
        """
        if name not in self.latents:
            raise ValueError(f"Gaussian expects one of the latents {list(self.latents)}, got {name!r}")
        return latent

    def sample(self, num: int, rng: Rng) -> Tensor:
        """Draws a standard normal z, `num channels h w`."""
        return draw_start(rng, "prior", self._weight.new_empty((num, *self._z.shape)))

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Draws the same z as `forward` with this rng, `b channels h w`, and computes log q(z | h), `b`."""
        mean, logvar = _split_statistics(self.condense(name, h))
        noise = rng.normal("posterior", mean)
        log_q = -0.5 * (noise.square() + logvar + _LOG_TWO_PI).flatten(1).sum(1)
        return self._draw(mean, logvar, noise), log_q

    def posterior_entropy(self, name: str, h: Tensor) -> Tensor:
        """Computes the entropy of q(z | h) in nats, `b`."""
        logvar = _split_statistics(self.condense(name, h))[1]
        return 0.5 * (logvar + 1 + _LOG_TWO_PI).flatten(1).sum(1)

    def posterior_moments(self, name: str, h: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the means and standard deviations of q(z | h), both `b channels h w`."""
        mean, logvar = _split_statistics(self.condense(name, h))
        return mean, (logvar / 2).exp()

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """Computes the log density of z under N(0, I), `b`."""
        return -0.5 * (widen(self.to_z(name, latent)).square() + _LOG_TWO_PI).flatten(1).sum(1)

    def condense(self, name: str, h: Tensor) -> tuple[Tensor]:
        """Computes the means and log variances, `b (2 channels) h w`, in the precision of the network."""
        return (self.to_z(name, self.project(h)),)

    def expand(self, name: str, condensed: tuple[Tensor, ...], rng: Rng | None) -> Tensor:
        """Draws the same z as `forward` with this rng, `b channels h w`, or its mean."""
        mean, logvar = _split_statistics(condensed)
        return self.to_z(name, self._draw(mean, logvar, None if rng is None else rng.normal("posterior", mean)))

    def _draw(self, mean: Tensor, logvar: Tensor, noise: Tensor | None) -> Tensor:
        return (mean if noise is None else mean + (logvar / 2).exp() * noise).to(self._weight.dtype)

    @property
    def _weight(self) -> Tensor:
        return next(self.project.parameters())


def _split_statistics(condensed: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Splits (mean, logvar), `b channels h w`, in at least float32."""
    mean, logvar = widen(condensed[0]).chunk(2, dim=1)
    return mean, logvar.clamp(*_LOGVAR)
