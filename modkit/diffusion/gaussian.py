r"""The Gaussian forward process: how noise turns x_0 into x_t, and what is known about x_s in between.

    q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I)        x_t = alpha_t x_0 + sigma_t eps,    eps ~ N(0, I)

Between any two times s < t the process is `x_t = (alpha_t / alpha_s) x_s + noise`, so that given x_0

    q(x_s | x_t, x_0) = N(alpha_s tau x_0 + c x_t, sigma_s^2 tau I)
    c = alpha_t sigma_s^2 / (alpha_s sigma_t^2)
    tau = 1 - (alpha_t sigma_s / (alpha_s sigma_t))^2

With s one index of a table below t, these are DDPM's posterior mean and beta_tilde; no table is needed, though.

Scales are numbers that apply to the whole batch, or tensors with one value per sample. They are computed in float64 on
the CPU, like the times, and sent to the device of x in its dtype (`modkit.diffusion.coefficients`): some devices have
no float64, and arithmetic on a few numbers costs a device as much as arithmetic on x.

Shape letters: b batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, overload

import torch
from torch import Tensor

from modkit.precision import widen

__all__ = [
    "Posterior",
    "PosteriorScales",
    "Scale",
    "Scales",
    "add_noise",
    "add_scaled",
    "broadcast",
    "combine",
    "compute_log_normal",
    "find_slope",
    "gaussian_kl",
    "interpolate_logvar",
    "move",
    "posterior",
    "snr",
    "tau",
    "weigh_posterior",
]

_LOG_TWO_PI = math.log(2 * math.pi)

Scale: TypeAlias = float | Tensor
"""A number for the whole batch, or one value per sample: `b`."""

Scales: TypeAlias = tuple[float, float] | tuple[Tensor, Tensor]
"""`(alpha_t, sigma_t)`."""


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(mean, small I), and the two ends of the range in which a model's variance lies.

    Args:
        mean: `b ...`.
        small: The posterior's own variance, beta_tilde: exact where x_0 is known; 0 at s = 0.
        large: Variance of x_t given x_s, beta: exact where x_0 is white noise.
    """

    mean: Tensor
    small: Scale
    large: Scale


class PosteriorScales(NamedTuple):
    """The numbers of a `Posterior`, whose mean is `to_x_0 x_0 + to_x_t x_t`.

    Args:
        to_x_0: A number, or `b`, as all of them.
        to_x_t: The c above.
        small: The posterior's own variance.
        large: Variance of x_t given x_s.
    """

    to_x_0: Scale
    to_x_t: Scale
    small: Scale
    large: Scale


@overload
def broadcast(value: float, x: Tensor) -> float: ...
@overload
def broadcast(value: Tensor, x: Tensor) -> Tensor: ...
@overload
def broadcast(value: Scale, x: Tensor) -> Scale: ...
def broadcast(value: Scale, x: Tensor) -> Scale:
    """Reshapes one value per sample so that it multiplies `x`, in the dtype and on the device of `x`.

    Args:
        value: A number, which is returned unchanged, or a tensor `b`.
        x: `b ...`.

    Returns:
        The number, or a tensor `b 1 ... 1` with as many axes as `x`.

    Examples:
        >>> x = torch.zeros(2, 3, 4)
        >>> broadcast(torch.tensor([0.5, 2.0]), x).shape
        torch.Size([2, 1, 1])
    """
    if not isinstance(value, Tensor):
        return value
    return move(value, x).view(-1, *[1] * (x.ndim - 1))


def move(value: Tensor, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Casts `value` to a dtype, that of `x` by default, and then moves it to the device of `x`.

    The copy does not wait for what is computed there.

    Examples:
        >>> move(torch.ones(2, dtype=torch.float64), torch.zeros(3)).dtype
        torch.float32
    """
    return value.to(dtype or x.dtype).to(x.device, non_blocking=x.device.type != "mps")  # MPS reads host memory later


def combine(a: Scale, x: Tensor, b: Scale, y: Tensor) -> Tensor:
    """Computes `a x + b y`, in two kernels.

    Args:
        a: A number, or `b`.
        x: `b ...`; gradients flow through both tensors.
        b: A number, or `b`.
        y: Shape of `x`.

    Examples:
        >>> combine(2.0, torch.ones(2, 1), torch.tensor([0.0, 0.5]), torch.ones(2, 1))
        tensor([[2.0000],
                [2.5000]])
    """
    return add_scaled(broadcast(a, x) * x, b, y)


def add_scaled(x: Tensor, b: Scale, y: Tensor) -> Tensor:
    """Computes `x + b y`, in one kernel.

    Examples:
        >>> add_scaled(torch.ones(2), 0.5, torch.ones(2))
        tensor([1.5000, 1.5000])
    """
    return torch.addcmul(x, broadcast(b, y), y) if isinstance(b, Tensor) else torch.add(x, y, alpha=b)


def add_noise(x_0: Tensor, eps: Tensor, scales_t: Scales) -> Tensor:
    """Computes `x_t = alpha_t x_0 + sigma_t eps`.

    Args:
        x_0: Clean samples, `b ...`; gradients flow through them and through `eps`.
        eps: Standard normal noise, shape of `x_0`.
        scales_t: `(alpha_t, sigma_t)`, numbers or `b`.

    Returns:
        x_t, shape and dtype of `x_0`.

    Examples:
        >>> add_noise(torch.tensor([[1.0], [1.0]]), torch.tensor([[0.5], [-0.5]]), (0.6, 0.8))
        tensor([[1.0000],
                [0.2000]])
    """
    alpha_t, sigma_t = scales_t
    return combine(alpha_t, x_0, sigma_t, eps)


def tau(scales_t: Scales, scales_s: Scales) -> Scale:
    """Computes the share of the variance of x_s, s < t, that remains when x_t and x_0 are known.

        tau = 1 - (alpha_t sigma_s / (alpha_s sigma_t))^2

    Examples:
        >>> round(tau((0.6, 0.8), (0.8, 0.6)), 4)
        0.6836
        >>> tau((0.6, 0.8), (1.0, 0.0))
        1.0
    """
    alpha_t, sigma_t = scales_t
    alpha_s, sigma_s = scales_s
    kept: Scale = alpha_t * sigma_s / (alpha_s * sigma_t)
    share = 1 - kept * kept  # where s is close to t, rounding may leave -1e-17
    return share.clamp_min(0) if isinstance(share, Tensor) else max(share, 0.0)


def snr(scales_t: tuple[Tensor, Tensor]) -> Tensor:
    """Computes the signal-to-noise ratio `(alpha_t / sigma_t)^2`, infinite at t = 0."""
    alpha_t, sigma_t = scales_t
    return (alpha_t / sigma_t) ** 2


def find_slope(scales: Callable[[Tensor], tuple[Tensor, Tensor]], t: Tensor, *, learns: bool = False) -> Tensor:
    """Computes -d log SNR / dt at times `t`, `b`; gradients flow to what `scales` depends on if it learns.

    Examples:
        >>> from modkit.diffusion.schedules import Flow
        >>> find_slope(Flow().scales, torch.tensor([0.5, 0.8]))  # 2 / (t (1 - t))
        tensor([ 8.0000, 12.5000])
    """
    with torch.enable_grad():
        t = t.detach().requires_grad_()
        log_snr = snr(scales(t)).log().sum()
        (slope,) = torch.autograd.grad(log_snr, t, create_graph=learns)
    return -slope


def posterior(x_t: Tensor, x_0: Tensor, scales_t: Scales, scales_s: Scales) -> Posterior:
    """The forward process's posterior of x_s given x_t and x_0, s < t.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), eq. 6 and 7, https://arxiv.org/abs/2006.11239

    Args:
        x_t: Current sample, `b ...`.
        x_0: Clean sample or its prediction, shape of `x_t`; gradients flow through both.
        scales_t: `(alpha_t, sigma_t)`, numbers or `b`; `sigma_t > 0`.
        scales_s: `(alpha_s, sigma_s)` at the target time.

    Returns:
        Mean and variances; like the scales, the variances are numbers or `b`.

    Examples:
        >>> x_t, x_0 = torch.tensor([[1.4]]), torch.tensor([[1.0]])
        >>> posterior(x_t, x_0, (0.6, 0.8), (1.0, 0.0)).mean  # at s = 0 it is x_0
        tensor([[1.]])
        >>> round(posterior(x_t, x_0, (0.6, 0.8), (0.8, 0.6)).small, 4)
        0.2461
    """
    to_x_0, to_x_t, small, large = weigh_posterior(scales_t, scales_s)
    return Posterior(combine(to_x_0, x_0, to_x_t, x_t), small, large)


def weigh_posterior(scales_t: Scales, scales_s: Scales) -> PosteriorScales:
    """Computes the numbers of the posterior of x_s given x_t and x_0, s < t.

    Examples:
        >>> [round(one, 4) for one in weigh_posterior((0.6, 0.8), (0.8, 0.6))]
        [0.5469, 0.4219, 0.2461, 0.4375]
    """
    alpha_t, sigma_t = scales_t
    alpha_s, sigma_s = scales_s
    share = tau(scales_t, scales_s)
    to_x_t: Scale = alpha_t * sigma_s**2 / (alpha_s * sigma_t**2)
    return PosteriorScales(alpha_s * share, to_x_t, sigma_s**2 * share, sigma_t**2 * share)


def interpolate_logvar(small: Scale, large: Scale, v: Tensor) -> Tensor:
    """Computes a learned log-variance, `v log large + (1 - v) log small`.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), eq. 15,
        https://arxiv.org/abs/2102.09672

    Args:
        small: The variance at `v = 0`, above 0: a number or `b`.
        large: The variance at `v = 1`, above 0: a number or `b`.
        v: What the network learned, `b ...`.

    Returns:
        The log-variance, shape of `v`.

    Examples:
        >>> interpolate_logvar(0.01, 1.0, torch.tensor([[0.0, 0.5, 1.0]])).exp()
        tensor([[0.0100, 0.1000, 1.0000]])
    """
    low, high = (end.log().reshape(-1) if isinstance(end, Tensor) else math.log(end) for end in (small, large))
    return broadcast(low, v) + v * broadcast(high - low, v)


def compute_log_normal(z: Tensor) -> Tensor:
    """Computes log N(z; 0, I) in nats, `b`, in at least float32.

    Examples:
        >>> print(f"{float(compute_log_normal(torch.zeros(1, 2))):.4f}")
        -1.8379
    """
    return -0.5 * (widen(z).square() + _LOG_TWO_PI).flatten(1).sum(1)


def gaussian_kl(difference: Tensor, log_ratio: Tensor, logvar: Tensor) -> Tensor:
    """Computes KL(q || p) of two Gaussians, element by element, in nats.

        KL = 1/2 (exp(log_ratio) - 1 - log_ratio + difference^2 / exp(logvar))

    Args:
        difference: Mean of q minus mean of p, `b ...`.
        log_ratio: Log-variance of q minus that of p, shape of `difference`.
        logvar: Log-variance of p, shape of `difference`.

    Examples:
        >>> gaussian_kl(torch.tensor([0.0, 2.0]), torch.zeros(2), torch.zeros(2))
        tensor([0., 2.])
    """
    return (log_ratio.exp() - 1 - log_ratio + difference**2 * torch.exp(-logvar)) / 2
