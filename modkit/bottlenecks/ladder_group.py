r"""A group of a ladder: the prior and posterior of its latent given a top-down state, and what it adds to the state.

    p(z | s) = N(m(s), exp(l(s)))
    q(z | s, h) = N(m(s) + dm(s, h), exp(l(s) + dl(s, h)))
    KL(q || p) = 1/2 sum(dm^2 exp(-l) + exp(dl) - 1 - dl)

Each of (m, l), (dm, dl) and the update of the state is a network of two convolutions around a SiLU, or of two linear
layers for vectors, after a group normalisation (for vectors, one of all channels).

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes).

References:
    NVAE: A Deep Hierarchical Variational Autoencoder (Vahdat and Kautz, 2020), section 3.2, eq. 2,
    https://arxiv.org/abs/2007.03898
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.bottlenecks.pointwise import pointwise
from modkit.nn.blocks import conv, group_norm, zero_init
from modkit.precision import widen
from modkit.types import TensorType

__all__ = ["Diagonal", "LadderGroup", "Rise"]

_LOGVAR = (-10.0, 10.0)
_LOG_TWO_PI = math.log(2 * math.pi)


class Diagonal(NamedTuple):
    """Diagonal Gaussians, a row a sample.

    Args:
        mean: Means, `b c h w`.
        logvar: Logarithms of the variances, `b c h w`.

    Examples:
        >>> standard = Diagonal(torch.zeros(2, 3), torch.zeros(2, 3))
        >>> standard.compute_log_density(torch.zeros(2, 3))  # -3/2 log 2 pi
        tensor([-2.7568, -2.7568])
    """

    mean: Tensor
    logvar: Tensor

    def draw(self, noise: Tensor | None) -> Tensor:
        """Draws by standard normal noise, `b c h w`; without noise, it is the mean."""
        return self.mean if noise is None else self.mean + (self.logvar / 2).exp() * noise

    def compute_log_density(self, z: Tensor) -> Tensor:
        """Computes log N(z; mean, exp(logvar)) in nats, `b`."""
        nats = (widen(z) - self.mean).square() * (-self.logvar).exp() + self.logvar + _LOG_TWO_PI
        return -0.5 * nats.flatten(1).sum(1)


class LadderGroup(nn.Module):
    """The networks of a group.

    At first the prior is standard normal, since its last layer starts at zero, and the latent is added to the state
    with the variance `gain`^2.

    Args:
        h: Type of the features: a vector or a map.
        s: Type of the state, of the same size.
        channels: Channels of the latent.
        gain: Factor of the first weights of the layers whose outputs are added to the state: 1/sqrt(n) for n groups,
            as many of which add up to the variance of one.

    Examples:
        >>> h = TensorType((8, 4, 4))
        >>> group, s = LadderGroup(h, h, channels=2, gain=1.0), torch.zeros(3, 8, 4, 4)
        >>> posterior, kl = group.infer(s, s + 1, group.predict(s))
        >>> posterior.mean.shape, kl.shape
        (torch.Size([3, 2, 4, 4]), torch.Size([3]))
        >>> group.update(s, posterior.mean).shape
        torch.Size([3, 8, 4, 4])
    """

    def __init__(self, h: TensorType, s: TensorType, *, channels: int, gain: float) -> None:
        super().__init__()
        width = s.shape[0]
        self.prior = _make_network(s, width, 2 * channels)
        zero_init(self.prior[-1])
        self.posterior = _make_network(s, width + h.shape[0], 2 * channels)
        self.project = pointwise(TensorType((channels, *s.shape[1:])), width)
        self.block = _make_network(s, width, width)
        weight, bias = self.project.parameters()
        nn.init.normal_(weight, std=gain / math.sqrt(channels))
        nn.init.zeros_(bias)
        with torch.no_grad():
            for parameter in self.block[-1].parameters():
                parameter.mul_(gain)

    def predict(self, s: Tensor) -> Diagonal:
        """Computes the prior p(z | s), in at least float32."""
        mean, logvar = widen(self.prior(s)).chunk(2, dim=1)
        return Diagonal(mean, logvar.clamp(*_LOGVAR))

    def infer(self, s: Tensor, h: Tensor, prior: Diagonal) -> tuple[Diagonal, Tensor]:
        """Computes the posterior q(z | s, h), relative to the prior, and their KL in nats, `b`."""
        mean, logvar = widen(self.posterior(torch.cat([s, h], dim=1))).chunk(2, dim=1)
        logvar = logvar.clamp(*_LOGVAR)
        nats = mean.square() * (-prior.logvar).exp() + torch.expm1(logvar) - logvar
        return Diagonal(prior.mean + mean, prior.logvar + logvar), 0.5 * nats.flatten(1).sum(1)

    def update(self, s: Tensor, z: Tensor) -> Tensor:
        """Adds to the state what the latent says, then what a network makes of both."""
        s = s + self.project(z)
        return s + self.block(s)


class Rise(nn.Module):
    """Takes the state of a level to the next one: repeats positions, then a convolution (a linear layer for vectors).

    Args:
        upper: Type of the state at the coarser level.
        h: Type of the state at the finer level.

    Examples:
        >>> Rise(TensorType((8, 2, 2)), TensorType((4, 3, 4)))(torch.zeros(5, 8, 2, 2)).shape
        torch.Size([5, 4, 3, 4])
    """

    def __init__(self, upper: TensorType, h: TensorType) -> None:
        super().__init__()
        self._size = h.shape[1:]
        self.layer = _make_layer(h, upper.shape[0], h.shape[0])

    def forward(self, s: Tensor) -> Tensor:
        """Maps `b c h w` to the size and the channels of the finer level."""
        return self.layer(F.interpolate(s, size=self._size, mode="nearest") if self._size else s)


def _make_network(s: TensorType, channels: int, out_channels: int) -> nn.Sequential:
    """A norm and two layers around a SiLU, the hidden one as wide as the state."""
    width = s.shape[0]
    norm = group_norm(channels) if s.shape[1:] else nn.GroupNorm(1, channels)
    return nn.Sequential(norm, _make_layer(s, channels, width), nn.SiLU(), _make_layer(s, width, out_channels))


def _make_layer(h: TensorType, channels: int, out_channels: int) -> nn.Module:
    rank = len(h.shape) - 1
    return conv(rank, channels, out_channels) if rank else nn.Linear(channels, out_channels)
