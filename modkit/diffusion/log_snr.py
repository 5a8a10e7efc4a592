r"""Schedules of log SNR: linear in t, or learned, monotone and linear in pieces.

With the logarithm l of the noise level sigma_t / alpha_t, half of -log SNR, variance is preserved:

    alpha_t^2 = 1 / (1 + e^{2 l})      sigma_t^2 = 1 / (1 + e^{-2 l})      l_t = low + (high - low) u_t

A diffusion model's bound depends only on the ends of l; between them the schedule sets which levels are trained how
often, and so the variance of the loss (Kingma et al., 2021). With the share p_k of times that belong to the k-th of K
equal bins of u, du / dt is 1 / (K p_k) there, and the loss L of a sample at time t, a term of the bound, has

    E[L^2] = sum_k E[L_k^2] / (K^2 p_k),    L_k the loss at an even pace;    d E[L^2] = -E[L^2 d log p_k]

The latter needs no gradient of the network. It is smallest for p_k in proportion to the root of E[L_k^2].

t = 0 is clean: from 2^-30 down, the noise level is in proportion to t.

Shape letters: b batch, k bins.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.diffusion.schedules import choose_levels, get_std
from modkit.types import Range, TensorType, checked

__all__ = ["Learned", "LogLinear"]

_FIRST = 2.0**-30  # the time of the lowest level
_EVEN = 0.1  # share of the times that stay spread evenly, so that no loss is divided by less


class LogLinear:
    """Log SNR falls linearly in t, so that noise levels sigma_t / alpha_t are spread evenly in their logarithm.

    It implies log-normal times: even ones, which the likelihood needs, spend half of training where there is next to no
    noise or next to no data. A model of digits has an FD of .34 with the former after as much time as .74 with the
    latter.

    References:
        Variational Diffusion Models (Kingma et al., 2021), appendix D, https://arxiv.org/abs/2107.00630

    Args:
        x: Type of the data.
        sigma_min: Lowest noise level, near t = 0; by default 0.004 standard deviations of the data, or 0.002 if that
            deviation is unknown.
        sigma_max: Highest noise level, at t = 1; by default 160 standard deviations of the data, or 80.

    Raises:
        ValueError: If not 0 < sigma_min < sigma_max.

    Examples:
        >>> schedule = LogLinear(sigma_min=0.01, sigma_max=100.0)
        >>> alpha, sigma = schedule.scales(torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64))
        >>> [f"{level:.3g}" for level in (sigma / alpha).tolist()]
        ['0.1', '1', '100']
    """

    implies = {"times": "log-normal"}
    num: int | None = None

    def __init__(
        self, x: TensorType | None = None, *, sigma_min: float | None = None, sigma_max: float | None = None
    ) -> None:
        self.sigma_min, self.sigma_max = choose_levels(x, sigma_min, sigma_max)
        if not 0 < self.sigma_min < self.sigma_max:
            got = f"{self.sigma_min:g} and {self.sigma_max:g}"
            raise ValueError(f"LogLinear expects 0 < sigma_min < sigma_max, got {got}")

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t, sigma_t)`, float64, at `t` >= 0, of any shape and on any device."""
        t = t.to(torch.float64)
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return _make_scales(low + (high - low) * _find_share(t), t)

    def time(self, sigma: Tensor) -> Tensor:
        """The t, float64, at which sigma_t / alpha_t is `sigma`."""
        level = sigma.to(torch.float64).log()
        low, high = math.log(self.sigma_min), math.log(self.sigma_max)
        return _find_time((level - low) / (high - low), level - low)


@checked
class Learned(nn.Module):
    """Log SNR is learned: its ends by the variational bound, and how it falls between them by the loss's variance.

    It starts as `log-linear`. The ends are trained by the loss `denoising` and by the ends of the bound,

        nll = -E log p(x_0 | x_t) at the lowest level, where x_0 is read off x_t,    kl = KL(q(x_1 | x_0) || p(x_1)),

    both in nats per value, the shares of times by the loss `variance`, which is E[L^2]. So the sum of `denoising`,
    `nll` and `kl` bounds -log p(x) in nats per value. For data of a few levels, such as pixels, it has no lower limit:
    the lowest level then falls as long as the network can tell the levels apart.

    Implies the loss weight `likelihood`, without which no end would have a reason to be where it is, and times that are
    spread over a batch. Where the paper has a monotone network, bins have an exact inverse, by which samplers and
    bounds find the time of a noise level. A tenth of all times stays spread evenly. Noise that is paired with the data
    is refused: the losses would bound nothing, and the lowest level would fall without limit.

    References:
        Variational Diffusion Models (Kingma et al., 2021), eq. 11 to 18 and appendix I, https://arxiv.org/abs/2107.00630

    Args:
        x: Type of the data.
        sigma_min: Lowest noise level at the start, below the data's deviation; by default 0.004 times that.
        sigma_max: Highest noise level at the start, above the data's deviation; by default 160 times that.
        bins: Number of pieces.

    Raises:
        ValueError: If the data's deviation (0.5 if unknown) is not between the levels, or `bins` is below 2.

    Examples:
        >>> schedule = Learned(TensorType((2,), std=1.0), sigma_min=0.01, sigma_max=100.0, bins=4)
        >>> alpha, sigma = schedule.scales(torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64))
        >>> [f"{level:.3g}" for level in (sigma / alpha).tolist()]
        ['0.1', '1', '100']
        >>> [tuple(parameter.shape) for parameter in schedule.parameters()]
        [(2,), (4,)]
    """

    implies = {"times": "low-discrepancy", "loss_weight": "likelihood"}
    num: int | None = None

    def __init__(
        self,
        x: TensorType | None = None,
        *,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        bins: Annotated[int, Range(2)] = 32,
    ) -> None:
        super().__init__()
        low, high = choose_levels(x, sigma_min, sigma_max)
        if not 0 < low < get_std(x) < high:
            expected = f"0 < sigma_min < {get_std(x):g}, the data's deviation, < sigma_max"
            raise ValueError(f"Learned expects {expected}, got {low:g} and {high:g}")
        self._middle = math.log(get_std(x))
        self._start = (math.log(low), math.log(high))
        spans = (self._middle - math.log(low), math.log(high) - self._middle)
        self.ends = nn.Parameter(torch.tensor([math.log(math.expm1(span)) for span in spans]))  # softplus gives spans
        self.shares = nn.Parameter(torch.zeros(bins))

    @property
    def sigma_min(self) -> float:
        """The lowest noise level."""
        return math.exp(self._find_ends(torch.empty(0, dtype=torch.float64, device="cpu"))[0].item())

    @property
    def sigma_max(self) -> float:
        """The highest noise level."""
        return math.exp(self._find_ends(torch.empty(0, dtype=torch.float64, device="cpu"))[1].item())

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t, sigma_t)`, float64, at `t` >= 0, of any shape and on any device; gradients flow only to `t`."""
        t = t.to(torch.float64)
        low, high = (end.detach() for end in self._find_ends(t))
        return self._compute_scales(low, high, t)

    def time(self, sigma: Tensor) -> Tensor:
        """The t, float64, at which sigma_t / alpha_t is `sigma`; gradients flow only to `sigma`."""
        level = sigma.to(torch.float64).log()
        low, high = (end.detach() for end in self._find_ends(level))
        u, shares = (level - low) / (high - low), self._find_shares(level).detach()
        place = (u * len(shares)).clamp_min(0)
        index = place.long().clamp(max=len(shares) - 1)
        passed = (shares.cumsum(0) - shares).take(index) + (place - index) * shares.take(index)
        return _find_time(passed, level - low)

    def learn(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t, sigma_t)` in the dtype of `t`, with gradients to the ends and to `t`, but not to the shares."""
        return self._compute_scales(*self._find_ends(t), t)

    def losses(self, x_0: Tensor, t: Tensor, denoising: Tensor) -> dict[str, Tensor]:
        """`nll`, `kl` and `variance`, `b` each.

        Args:
            x_0: Samples, `b ...`.
            t: Their times, `b`, on their device.
            denoising: Their terms of the bound, `b`.
        """
        low, high = self._find_ends(t)
        shares = self._find_shares(t)
        share = shares.take(self._find_bin(shares.detach(), _find_share(t)))
        nll = low + (1 + math.log(2 * math.pi)) / 2
        kl = x_0.to(t.dtype).square().flatten(1).mean(1) * torch.exp(-2 * high) / 2
        return {"nll": nll.expand_as(t), "kl": kl, "variance": denoising.detach() ** 2 * (share.detach() / share)}

    def _compute_scales(self, low: Tensor, high: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The scales at `t`, where the levels lie between two, given by their logarithms."""
        shares, v = self._find_shares(t).detach(), _find_share(t)
        index = self._find_bin(shares, v)
        passed = (shares.cumsum(0) - shares).take(index)
        u = (index + (v - passed) / shares.take(index)) / len(shares)
        return _make_scales(low + (high - low) * u, t)

    def _find_ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithms of the lowest and the highest level; those of the start where parameters have no values."""
        if self.ends.is_meta and not like.is_meta:
            low, high = like.new_tensor(self._start)
            return low, high
        spans = F.softplus(self.ends.to(like.device).to(like.dtype))  # some devices have no float64
        return self._middle - spans[0], self._middle + spans[1]

    def _find_shares(self, like: Tensor) -> Tensor:
        """The share of times in each bin, `k`, lowest levels first."""
        if self.shares.is_meta and not like.is_meta:
            return like.new_full((len(self.shares),), 1 / len(self.shares))
        return torch.softmax(self.shares.to(like.device).to(like.dtype), 0) * (1 - _EVEN) + _EVEN / len(self.shares)

    def _find_bin(self, shares: Tensor, v: Tensor) -> Tensor:
        return torch.searchsorted(shares.cumsum(0)[:-1], v.detach().contiguous(), right=True)


def _find_share(t: Tensor) -> Tensor:
    """The share of all times that lies between the lowest level's and `t`."""
    return ((t - _FIRST) / (1 - _FIRST)).clamp_min(0)


def _find_time(share: Tensor, above: Tensor) -> Tensor:
    """The time at a share of all times, given by how much log sigma is above the lowest level's."""
    return (_FIRST + (1 - _FIRST) * share.clamp_min(0)) * torch.exp(above.clamp_max(0))


def _make_scales(level: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Scales of a noise level's logarithm; before the time of the lowest one, the level is in proportion to `t`."""
    level = level + (t.detach().clamp_max(_FIRST) / _FIRST).log()
    return torch.sigmoid(-2 * level).sqrt(), torch.sigmoid(2 * level).sqrt()
