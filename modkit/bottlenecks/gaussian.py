r"""The bottleneck of a variational autoencoder: a diagonal Gaussian posterior against a standard normal prior.

    q(z | x) = N(mean, exp(logvar)),   z = mean + exp(logvar / 2) noise
    KL(q || N(0, I)) = 1/2 sum(mean^2 + exp(logvar) - 1 - logvar)        H(q) = 1/2 sum(logvar + log(2 pi e))

With a flow (IAF), the Gaussian's draw z_0 is mapped to the latent by a bijection that is given the features:

    z = flow(z_0; h),   log q(z | x) = log N(z_0; mean, exp(logvar)) - log|det dz/dz_0|

The KL is then an estimate from this draw, log q(z | x) - log N(z; 0, I).

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes).

References:
    Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix B, https://arxiv.org/abs/1312.6114
    Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), eq. 5 and algorithm 1,
    https://arxiv.org/abs/1606.04934
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import count

import torch
from torch import Tensor, nn

from modkit.bottlenecks.pointwise import check_features, pointwise
from modkit.diffusion.gaussian import compute_log_normal
from modkit.kinds import Bijection, BijectionExtras, Slot, Step, read_extras
from modkit.models.passes import Passes
from modkit.precision import widen
from modkit.rng import Rng
from modkit.samplers.sampling import draw_start
from modkit.types import Batch, Cond, CondType, Event, Latents, PositiveInt, TensorType, checked

__all__ = ["Gaussian"]

_LOGVAR = (-30.0, 20.0)
_LOG_TWO_PI = math.log(2 * math.pi)


@checked
class Gaussian(nn.Module):
    """A Gaussian posterior with a standard normal prior.

    A 1x1 convolution (a linear layer for vectors) computes the mean and the log variance from the features.

    Args:
        channels: Channels of the latent map, or the width of a latent vector; with None, as many as the features have.
        flow: Bijection of the Gaussian's draws to the latent, which is given the features: as `vector` where they are a
            vector, as `concat` where they are a map. The KL of the latent is then an estimate, as is its entropy.

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

    def __init__(self, h: Event, *, channels: PositiveInt | None = 4, flow: Slot[Bijection] | None = None) -> None:
        super().__init__()
        h = check_features("Gaussian", h)
        channels = h.shape[0] if channels is None else channels
        self._z = TensorType((channels, *h.shape[1:]))
        self.start_noise = TensorType(self._z.shape, std=1.0)
        self.latents: dict[str, Event] = {"continuous": self._z}
        self.project = pointwise(h, 2 * channels)
        cond = CondType(concat=h) if h.shape[1:] else CondType(vector=h.shape[0])
        self.flow = flow(x=self._z, cond=cond) if flow else None

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Draws a reparametrised z, `b channels h w`, and computes the KL in nats of each channel, `b channels`.

        With a flow there is one KL, of a draw. Without a step, z is the mean, or where the flow maps it. Statistics are
        computed in at least float32; gradients reach `h` through both z and the KL.
        """
        condensed = self.condense("continuous", h)
        z, log_q = self._draw(condensed, None if step is None else step.rng)
        if self.flow is not None:
            return Latents({"continuous": z}, log_q - compute_log_normal(z), {})
        mean, logvar = _split_statistics(condensed)
        kl = 0.5 * (mean.square() + torch.expm1(logvar) - logvar)
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

    def prepare(self, features: Iterable[Tensor], rng: Rng) -> None:
        """Prepares the flow with draws of the Gaussian, if there is one that has to be."""
        prepare, passes = read_extras(self.flow, BijectionExtras).prepare, count(1)

        def start() -> Iterator[Batch]:
            draws = rng.at("flow", next(passes))
            for index, h in enumerate(features):
                condensed = self.condense("continuous", h)
                yield Batch(self._draw_base(condensed, draws.at(index))[0], {}, self._make_cond(condensed))

        if prepare:
            prepare(Passes(start))

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Draws the same z as `forward` with this rng, `b channels h w`, and computes log q(z | h), `b`."""
        return self._draw(self.condense(name, h), rng)

    @property
    def posterior_entropy(self) -> Callable[[str, Tensor], Tensor] | None:
        """Computes the entropy of q(z | h) in nats, `b`; None if there is a flow."""
        return None if self.flow is not None else self._compute_entropy

    @property
    def posterior_moments(self) -> Callable[[str, Tensor], tuple[Tensor, Tensor]] | None:
        """Computes the means and standard deviations of q(z | h), both `b channels h w`; None if there is a flow."""
        return None if self.flow is not None else self._compute_moments

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """Computes the log density of z under N(0, I), `b`."""
        return compute_log_normal(self.to_z(name, latent))

    def condense(self, name: str, h: Tensor) -> tuple[Tensor, ...]:
        """Computes the means and log variances, `b (2 channels) h w`, in the precision of the network.

        With a flow, the features follow, which it is given.
        """
        statistics = self.to_z(name, self.project(h))
        return (statistics,) if self.flow is None else (statistics, h)

    def expand(self, name: str, condensed: tuple[Tensor, ...], rng: Rng | None) -> Tensor:
        """Draws the same z as `forward` with this rng, `b channels h w`, or its mean."""
        return self.to_z(name, self._draw(condensed, rng)[0])

    def _draw(self, condensed: tuple[Tensor, ...], rng: Rng | None) -> tuple[Tensor, Tensor]:
        """Draws z, or maps the mean, and computes log q(z | h)."""
        z, log_q = self._draw_base(condensed, rng)
        if self.flow is not None:
            z, log_det = self.flow(z, self._make_cond(condensed))
            log_q = log_q - log_det
        return z.to(self._weight.dtype), log_q

    def _draw_base(self, condensed: tuple[Tensor, ...], rng: Rng | None) -> tuple[Tensor, Tensor]:
        """Draws from the Gaussian, or returns its mean, and computes the log density."""
        mean, logvar = _split_statistics(condensed)
        noise = torch.zeros_like(mean) if rng is None else rng.normal("posterior", mean)
        log_q = -0.5 * (noise.square() + logvar + _LOG_TWO_PI).flatten(1).sum(1)
        return mean + (logvar / 2).exp() * noise, log_q

    def _make_cond(self, condensed: tuple[Tensor, ...]) -> Cond:
        h = condensed[-1]
        return Cond(vector=h) if h.ndim == 2 else Cond(concat=h)

    def _compute_entropy(self, name: str, h: Tensor) -> Tensor:
        logvar = _split_statistics(self.condense(name, h))[1]
        return 0.5 * (logvar + 1 + _LOG_TWO_PI).flatten(1).sum(1)

    def _compute_moments(self, name: str, h: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = _split_statistics(self.condense(name, h))
        return mean, (logvar / 2).exp()

    @property
    def _weight(self) -> Tensor:
        return next(self.project.parameters())


def _split_statistics(condensed: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Splits (mean, logvar), `b channels h w`, in at least float32."""
    mean, logvar = widen(condensed[0]).chunk(2, dim=1)
    return mean, logvar.clamp(*_LOGVAR)
