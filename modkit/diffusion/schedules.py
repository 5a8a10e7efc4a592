r"""Schedules: how much signal and noise x_t holds.

    x_t = alpha_t x_0 + sigma_t eps

The variances beta_i of a discrete chain, a table, give alphas_cumprod (here ac) at t = (i + 1) / num. Between these
points, and down to ac = 1 at t = 0, log ac is linear in t, so that every time in [0, 1] has scales and every noise
level up to the table's highest has a time:

    ac_i = prod_{j <= i} (1 - beta_j)      alpha = sqrt(ac)      sigma = sqrt(1 - ac) = sqrt(-expm1(log ac))

Everything is float64: a float32 table is off by up to 2e-4. Tables are built on the CPU, whatever torch's default
device is, and copied once to each device on which they are used. A schedule does not change after its construction.

Shape letters: b batch, n table.
"""

from __future__ import annotations

import math
from typing import Annotated, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from modkit.kinds import Schedule
from modkit.types import Range, TensorType, checked

__all__ = [
    *("EDM", "LEAST_SIGNAL", "VP", "Bounded", "Cosine", "Even", "Flow", "Linear", "Table"),
    *("choose_levels", "find_noise_range", "get_std", "scale_levels"),
]

_CPU = torch.device("cpu")
_LONGEST = 100_000  # of a table
Num: TypeAlias = Annotated[int, Range(1, _LONGEST)]
_STD = 0.5  # EDM's sigma_data, assumed where the deviation of the data is unknown
_LOWEST = 0.002  # EDM's lowest noise level, for schedules without a table that state none
LEAST_SIGNAL = 2.0**-24  # float32 rounds so small a signal away beside noise of unit variance


class Table:
    """The schedule of a discrete chain, given its variances.

    Args:
        betas: Variances of the steps, `n`, each in (0, 1).

    Raises:
        ValueError: If there are no variances, or one is outside (0, 1).

    Examples:
        >>> table = Table(torch.tensor([0.1, 0.2], dtype=torch.float64))
        >>> table.num, table.alphas_cumprod
        (2, tensor([0.9000, 0.7200], dtype=torch.float64))
    """

    num: int | None

    def __init__(self, betas: Tensor) -> None:
        betas = betas.detach().to("cpu", torch.float64)
        if betas.ndim != 1 or not len(betas) or not bool(((betas > 0) & (betas < 1)).all()):
            got: object = betas.tolist()
            if betas.ndim == 1 and len(betas):
                got = f"{len(betas)} from {betas.min():g} to {betas.max():g}"
            raise ValueError(f"{type(self).__name__} expects a list of betas in (0, 1), got {got}")
        self.num = len(betas)
        self.betas = betas
        log_ac = torch.log1p(-betas).cumsum(0)
        self.alphas_cumprod = log_ac.exp()
        self._knots = {_CPU: torch.cat([log_ac.new_zeros(1), log_ac])}

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t, sigma_t)`, float64, at `t` in [0, 1], of any shape and on any device."""
        knots = self._get_knots(t.device)
        position = (t.to(torch.float64) * len(self.betas)).clamp(0, len(self.betas))
        index = position.long().clamp(max=len(self.betas) - 1)
        log_ac = torch.lerp(knots.take(index), knots.take(index + 1), position - index)  # take: no sync for a scalar
        return torch.exp(log_ac / 2), torch.sqrt(-torch.expm1(log_ac))

    def time(self, sigma: Tensor) -> Tensor:
        """The t, float64, at which sigma_t / alpha_t is `sigma`; 1 for levels above the table's highest."""
        knots = self._get_knots(sigma.device)
        log_ac = -torch.log1p(sigma.to(torch.float64) ** 2)
        index = (torch.searchsorted(-knots, -log_ac, right=True) - 1).clamp(0, len(self.betas) - 1)
        low, high = knots.take(index), knots.take(index + 1)
        return ((index + (log_ac - low) / (high - low)) / len(self.betas)).clamp(0, 1)

    def _get_knots(self, device: torch.device) -> Tensor:
        if device not in self._knots:
            self._knots[device] = self._knots[_CPU].to(device)
        return self._knots[device]


@checked
class Linear(Table):
    """A table of variances that increase linearly.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), section 4, https://arxiv.org/abs/2006.11239

    Args:
        num: Length of the table.
        beta_start: First variance; by default .1 / num, the paper's 1e-4 of 1000 steps, so that tables of any length
            have the same noise.
        beta_end: Last variance; by default 20 / num, the paper's .02, but at most .999.

    Raises:
        ValueError: If `num` is outside [1, 100000] or a variance outside (0, 1).

    Examples:
        >>> alpha, sigma = Linear().scales(torch.tensor([0.001, 1.0], dtype=torch.float64))
        >>> alpha**2
        tensor([9.9990e-01, 4.0358e-05], dtype=torch.float64)
    """

    def __init__(self, *, num: Num = 1000, beta_start: float | None = None, beta_end: float | None = None) -> None:
        start = 0.1 / num if beta_start is None else beta_start
        end = min(20 / num, 0.999) if beta_end is None else beta_end
        super().__init__(torch.linspace(start, end, num, dtype=torch.float64, device=_CPU))


@checked
class Cosine(Table):
    """A table whose alphas_cumprod fall like a squared cosine.

        ac(t) = f(t) / f(0),    f(t) = cos^2((t + s) / (1 + s) pi / 2)

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), eq. 17,
        https://arxiv.org/abs/2102.09672

    Args:
        num: Length of the table.
        offset: The s above, which keeps the first variances from being too small.
        max_beta: Upper bound to which variances are clipped.

    Raises:
        ValueError: If `num` is outside [1, 100000] or a variance outside (0, 1).

    Examples:
        >>> cosine = Cosine(num=4)
        >>> cosine.betas
        tensor([0.1530, 0.4170, 0.7079, 0.9990], dtype=torch.float64)
    """

    def __init__(self, *, num: Num = 1000, offset: float = 0.008, max_beta: float = 0.999) -> None:
        t = torch.linspace(0, 1, num + 1, dtype=torch.float64, device=_CPU)
        f = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=max_beta))


class EDM:
    """Unbounded noise on an unscaled signal: `alpha_t = 1`, `sigma_t = sigma_max t`; t may exceed 1.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), table 1,
        https://arxiv.org/abs/2206.00364

    Args:
        x: Type of the data.
        sigma_min: Lowest noise level that samplers visit before 0. By default, it is 0.004 standard deviations of the
            data, the paper's 0.002 at its deviation of 0.5, which is assumed if that of the data is unknown.
        sigma_max: Highest noise level that samplers visit, at t = 1; by default 160 standard deviations of the data,
            the paper's 80.

    Raises:
        ValueError: If not 0 < sigma_min < sigma_max.

    Examples:
        >>> EDM(sigma_max=80.0).time(torch.tensor([8.0, 160.0]))
        tensor([0.1000, 2.0000], dtype=torch.float64)
        >>> latent = TensorType((4, 8, 8), std=1.0)
        >>> EDM(latent).sigma_min, EDM(latent).sigma_max
        (0.004, 160.0)
    """

    implies = {"times": "log-normal", "parametrization": "edm", "sampler": "heun"}
    num: int | None = None

    def __init__(
        self, x: TensorType | None = None, *, sigma_min: float | None = None, sigma_max: float | None = None
    ) -> None:
        low, high = choose_levels(x, sigma_min, sigma_max)
        if not 0 < low < high:
            raise ValueError(f"EDM expects 0 < sigma_min < sigma_max, got {low} and {high}")
        self.sigma_min, self.sigma_max = low, high

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t, sigma_t)`, float64, at `t` >= 0, of any shape and on any device."""
        sigma = t.to(torch.float64) * self.sigma_max
        return torch.ones_like(sigma), sigma

    def time(self, sigma: Tensor) -> Tensor:
        """The t, float64, at which the noise level is `sigma`."""
        return sigma.to(torch.float64) / self.sigma_max


@checked
class VP:
    """A variance-preserving process whose rate of noise grows linearly; it has no table, and t = 0 is clean.

        log ac(u) = -(beta_max - beta_min) u^2 / 2 - beta_min u,    u = t_min + (1 - t_min) t
        alpha_t^2 = ac(u) / ac(t_min),    sigma_t^2 = 1 - alpha_t^2

    At T evenly spaced times this is the chain of the denoising diffusion GAN, with betas `1 - alpha_t^2 / alpha_s^2`;
    with `t_min = 0` it is the process of Score SDE.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), eq. 33,
        https://arxiv.org/abs/2011.13456
        Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), appendix C,
        https://arxiv.org/abs/2112.07804

    Args:
        beta_min: Rate at u = 0.
        beta_max: Rate at u = 1.
        t_min: The u at t = 0.

    Raises:
        ValueError: If not 0 < beta_min <= beta_max, or `t_min` is outside [0, 1).

    Examples:
        >>> alpha, _ = VP().scales(torch.arange(5) / 4)
        >>> 1 - (alpha[1:] / alpha[:-1]) ** 2  # the betas of four steps
        tensor([0.4783, 0.8492, 0.9564, 0.9874], dtype=torch.float64)
    """

    num: int | None = None

    def __init__(
        self, *, beta_min: float = 0.1, beta_max: float = 20.0, t_min: Annotated[float, Range(0, below=1)] = 1e-3
    ) -> None:
        if not 0 < beta_min <= beta_max < math.inf:
            raise ValueError(f"VP expects 0 < beta_min <= beta_max, got {beta_min} and {beta_max}")
        slope = beta_max - beta_min
        self._square = slope * (1 - t_min) ** 2 / 2
        self._linear = (slope * t_min + beta_min) * (1 - t_min)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t, sigma_t)`, float64, at `t` >= 0, of any shape and on any device."""
        t = t.to(torch.float64)
        log_ac = -(self._square * t + self._linear) * t
        return torch.exp(log_ac / 2), torch.sqrt(-torch.expm1(log_ac))

    def time(self, sigma: Tensor) -> Tensor:
        """The t, float64, at which sigma_t / alpha_t is `sigma`."""
        decay = torch.log1p(sigma.to(torch.float64) ** 2)  # -log ac, a quadratic in t solved without cancellation
        return 2 * decay / (self._linear + torch.sqrt(self._linear**2 + 4 * self._square * decay))


class Flow:
    """A straight line from data to noise: `alpha_t = 1 - t`, `sigma_t = t`.

    As t approaches 1, alpha_t is kept at 2^-24 or above, which float32 cannot distinguish from no signal. So
    `sigma_t / alpha_t` and its logarithm are finite at every time, and x_0 follows from every prediction. Samplers on
    noise levels start at `sigma_max`, since the level at t = 1 would be infinite without this bound.

    The noise level at t is `t / (1 - t)`. Hence log-normal noise levels in training are the logit-normal times of Esser
    et al. (eq. 19), and a step of DDIM is one of Euler's method along the line.

    It implies the sampler that ends closest to the exact flow of six Gaussian mixtures (rings of 3 and 5, deviation 1,
    components of .05 to .5): DPM-Solver++ at even t, with a geometric mean of rmse of .014 at 20 evaluations, against
    .021 for Heun's method and .070 for Euler's; on EDM's noise levels these are .062, .13 and .15. It is the closest of
    these at 8 evaluations (.047, .088 and .15 at even t) and at 50 (.0034, .0048 and .037) as well.

    References:
        Flow Straight and Fast (Liu et al., 2023), eq. 1, https://arxiv.org/abs/2209.03003
        Flow Matching for Generative Modeling (Lipman et al., 2023), eq. 20 to 22, whose time runs from noise to data
        and whose sigma_min is 0 here, https://arxiv.org/abs/2210.02747
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), eq. 13,
        https://arxiv.org/abs/2403.03206

    Args:
        x: Type of the data.
        sigma_min: Lowest noise level that samplers visit before 0. By default, it is 0.004 standard deviations of the
            data, or 0.002 if that deviation is unknown.
        sigma_max: Highest noise level that samplers visit, at `t = sigma_max / (1 + sigma_max)`; by default 160
            standard deviations of the data, or 80 if that deviation is unknown.

    Raises:
        ValueError: If not 0 < sigma_min < sigma_max < 2^24.

    Examples:
        >>> Flow().scales(torch.tensor([0.25, 1.0]))
        (tensor([7.5000e-01, 5.9605e-08], dtype=torch.float64), tensor([0.2500, 1.0000], dtype=torch.float64))
        >>> Flow().time(torch.tensor([3.0]))
        tensor([0.7500], dtype=torch.float64)
    """

    implies = {
        "times": {"use": "log-normal", "mean": 0.0, "std": 1.0},
        "parametrization": "flow",
        "sampler": {"use": "dpm-solver++", "grid": "even"},
    }
    num: int | None = None

    def __init__(
        self, x: TensorType | None = None, *, sigma_min: float | None = None, sigma_max: float | None = None
    ) -> None:
        low, high = choose_levels(x, sigma_min, sigma_max)
        if not 0 < low < high < 1 / LEAST_SIGNAL:
            raise ValueError(f"Flow expects 0 < sigma_min < sigma_max < 2^24, got {low} and {high}")
        self.sigma_min, self.sigma_max = low, high

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t, sigma_t)`, float64, at `t` in [0, 1], of any shape and on any device."""
        sigma = t.to(torch.float64)
        return (1 - sigma).clamp_min(LEAST_SIGNAL), sigma

    def time(self, sigma: Tensor) -> Tensor:
        """The t, float64, at which sigma_t / alpha_t is `sigma`, at most 1."""
        sigma = sigma.to(torch.float64)
        bounded = sigma * LEAST_SIGNAL  # t where alpha_t is at its lower bound
        return torch.where(bounded < 1 - LEAST_SIGNAL, sigma / (1 + sigma), bounded.clamp_max(1))


@checked
class Even:
    """A schedule with a table of `num` evenly spaced times, for chains of few steps; its scales are unchanged.

    Args:
        schedule: The schedule.
        num: Number of times above 0.

    Raises:
        ValueError: If `num` is outside [1, 100000].

    Examples:
        >>> Even(VP(), 4).num
        4
    """

    num: int | None

    def __init__(self, schedule: Schedule, num: Num) -> None:
        self.schedule = schedule
        self.num = num

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t, sigma_t)` of the underlying schedule."""
        return self.schedule.scales(t)

    def time(self, sigma: Tensor) -> Tensor:
        """The t, float64, at which the noise level of the underlying schedule is `sigma`."""
        return self.schedule.time(sigma)


@runtime_checkable
class Bounded(Protocol):
    """A schedule that states the lowest and the highest noise level that samplers visit."""

    sigma_min: float
    sigma_max: float


def find_noise_range(schedule: Schedule) -> tuple[float, float]:
    """Finds the lowest noise level sigma_t / alpha_t above 0 that samplers visit, and the highest.

    These are the levels at the first and the last index of a table. Without a table they are the `sigma_min` and
    `sigma_max` that the schedule states, or, if it states none, 0.002 and the level at t = 1.

    Examples:
        >>> find_noise_range(EDM(sigma_min=0.01, sigma_max=50.0))
        (0.01, 50.0)
    """
    if schedule.num is None:
        if isinstance(schedule, Bounded):
            return schedule.sigma_min, schedule.sigma_max
        alpha, sigma = schedule.scales(torch.ones(1, dtype=torch.float64, device=_CPU))
        return _LOWEST, float(sigma / alpha)
    alpha, sigma = schedule.scales(torch.tensor([1 / schedule.num, 1.0], dtype=torch.float64, device=_CPU))
    low, high = (sigma / alpha).tolist()
    return low, high


def get_std(x: TensorType | None) -> float:
    """Returns the standard deviation of values of type `x`; 0.5, EDM's, if it is unknown.

    Examples:
        >>> get_std(TensorType((4, 2, 2), std=1.0)), get_std(TensorType((4, 2, 2))), get_std(None)
        (1.0, 0.5, 0.5)
    """
    return _STD if x is None or x.std is None else x.std


def scale_levels(x: TensorType | None) -> tuple[float, float]:
    """Returns the lowest and the highest noise level for data of type `x`: 0.004 and 160 standard deviations.

    These are EDM's 0.002 and 80 for its standard deviation of 0.5, which is assumed if that of the data is unknown.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), table 1,
        https://arxiv.org/abs/2206.00364

    Examples:
        >>> scale_levels(TensorType((4, 2, 2), std=1.0)), scale_levels(None)
        ((0.004, 160.0), (0.002, 80.0))
    """
    return 0.004 * get_std(x), 160.0 * get_std(x)


def choose_levels(x: TensorType | None, low: float | None, high: float | None) -> tuple[float, float]:
    """Returns the lowest and the highest noise level; where one is None, it is that of `scale_levels`."""
    lowest, highest = scale_levels(x)
    return lowest if low is None else low, highest if high is None else high
