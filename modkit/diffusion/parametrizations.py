r"""Parametrizations: what a network is trained to predict, and how x_0 follows from its output.

With r^2 = alpha_t^2 + sigma_t^2 (1 where variance is preserved), the network's input is x_t / r (EDM and the flow, the
last two rows, scale it differently), and it predicts

    x_0                                             x_0 = out
    eps                                             x_0 = (x_t - sigma_t out) / alpha_t
    v = (alpha_t eps - sigma_t x_0) / r             x_0 = (alpha_t x_t / r - sigma_t out) / r
    EDM's own target                                x_0 = c_skip x_t / alpha_t + c_out out
    eps - x_0                                       x_0 = (x_t - sigma_t out) / (alpha_t + sigma_t)

Each x_0 is affine in the output, so that |d x_0 / d out|^2 (`error_scale`) converts a weight on one error into a weight
on another. What depends only on the time are coefficients, computed from alpha_t and sigma_t in float64 on the CPU.

Shape letters: b batch, c channels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.diffusion.coefficients import expand_time
from modkit.diffusion.gaussian import broadcast, combine, weigh_posterior
from modkit.diffusion.schedules import LEAST_SIGNAL, get_std
from modkit.kinds import Coefficients, Schedule
from modkit.precision import widen
from modkit.types import Denoised, PositiveFloat, TensorType, checked

__all__ = ["EDM", "X0", "Affine", "Eps", "EpsLearned", "Flow", "V"]

_FLOW_TIMES = 1000  # the number that networks embed for t = 1 (Esser et al., 2024, and diffusers)


class Affine(ABC):
    """Base class of parametrizations whose target is linear in x_0 and eps; a subclass provides the scales.

    The target is `to_x_0 x_0 + to_eps eps`, the prediction `x_0 = from_x_t x_t + from_out out`. By default, the
    network's input is `x_t / r`, which has unit variance where x_0 has, and the time that it embeds is an index if the
    schedule has a table, otherwise EDM's `ln(sigma_t / alpha_t) / 4`.

    `weights` holds default weights of its losses by name; a loss without one weighs 1, and the user's own weights take
    precedence.
    """

    weights: Mapping[str, float] = {}

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    @abstractmethod
    def compute_target_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """The scales of the target, `(to_x_0, to_eps)`, `b`, float64."""

    @abstractmethod
    def compute_prediction_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """The scales of the prediction, `(from_x_t, from_out)`, `b`, float64."""

    def compute_inputs(self, t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """The scale of x_t in the network's input and the time that it embeds, `(to_input, time)`, `b`, float64."""
        time = torch.log(sigma_t / alpha_t) / 4 if self.schedule.num is None else t * self.schedule.num - 1
        return torch.rsqrt(alpha_t**2 + sigma_t**2), time

    def out(self, x: TensorType) -> TensorType:
        """The type that the network must emit: the shape of x, unbounded."""
        return TensorType(x.shape)

    def coefficients(self, t: Tensor, scales: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The numbers above by name, and `to_input` and `time`, `b`, float64.

        Args:
            t: Times, `b`, float64 on the CPU.
            scales: The schedule's `(alpha_t, sigma_t)` there.
        """
        values = *self.compute_target_scales(*scales), *self.compute_prediction_scales(*scales)
        names = ("to_input", "time", "to_x_0", "to_eps", "from_x_t", "from_out")
        return dict(zip(names, (*self.compute_inputs(t, *scales), *values)))

    def inputs(self, x_t: Tensor, coefficients: Coefficients) -> tuple[Tensor, Tensor]:
        """The network's input and the time that it embeds.

        Args:
            x_t: Noisy sample, `b ...`.
            coefficients: Those of its time, numbers or `b`.

        Returns:
            `(x_in, time)`, `b ...` and `b`; the time is at least float32, which represents every index of a table. If
            the scale is the number 1, as for samplers of a schedule that preserves variance, x_in is `x_t` itself.
        """
        scale, time = coefficients["to_input"], expand_time(coefficients["time"], x_t)
        same = isinstance(scale, float) and math.isclose(scale, 1.0, rel_tol=1e-15)
        return x_t if same else broadcast(scale, x_t) * x_t, time

    def denoised(self, out: Tensor, x_t: Tensor, coefficients: Coefficients) -> Denoised:
        """The prediction of x_0 that follows from the network's output `out`."""
        return Denoised(combine(coefficients["from_x_t"], x_t, coefficients["from_out"], out))

    def losses(
        self, out: Tensor, x_0: Tensor, eps: Tensor, x_t: Tensor, coefficients: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`denoising`: the squared error between `out` and its target, averaged over a sample's elements, `b`."""
        return {"denoising": _average(self._compare(out, x_0, eps, coefficients))}

    def error_scale(self, coefficients: Mapping[str, Tensor]) -> Tensor:
        """|d x_0 / d out|^2, `b`, float64."""
        return coefficients["from_out"] ** 2

    def _compare(self, out: Tensor, x_0: Tensor, eps: Tensor, coefficients: Mapping[str, Tensor]) -> Tensor:
        """The squared error of each element."""
        target = combine(coefficients["to_x_0"], x_0, coefficients["to_eps"], eps)
        return F.mse_loss(out, target, reduction="none")


class Eps(Affine):
    """The network predicts the noise.

    Implies the loss weight `min-snr`: with equal weights, as in DDPM (`loss_weight: simple`), little noise, where the
    target is hardest to tell, takes most of the loss.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), eq. 11 and 14, https://arxiv.org/abs/2006.11239

    Raises:
        ValueError: If the schedule's table ends without signal.

    Examples:
        >>> from modkit.diffusion.gaussian import add_noise
        >>> from modkit.diffusion.schedules import Cosine
        >>> part, t = Eps(Cosine()), torch.tensor([0.5], dtype=torch.float64)
        >>> scales = part.schedule.scales(t)
        >>> x_0, eps = torch.tensor([[0.25]]), torch.tensor([[-1.0]])
        >>> x_t, coefficients = add_noise(x_0, eps, scales), part.coefficients(t, scales)
        >>> part.denoised(eps, x_t, coefficients).x_0  # the true noise gives x_0
        tensor([[0.2500]])
        >>> part.losses(eps + 0.5, x_0, eps, x_t, coefficients)
        {'denoising': tensor([0.2500])}
    """

    implies = {"loss_weight": "min-snr"}

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        if schedule.num is not None and schedule.scales(torch.ones((), device="cpu"))[0].float() <= LEAST_SIGNAL:
            expected = "a table with some signal at t = 1 (where there is none: v, x0 or flow)"
            raise ValueError(f"{type(self).__name__} expects {expected}, got {type(schedule).__name__}")

    def compute_target_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """The noise."""
        one = torch.ones_like(alpha_t)
        return 0 * one, one

    def compute_prediction_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`(x_t - sigma_t out) / alpha_t`."""
        return 1 / alpha_t, -sigma_t / alpha_t


class X0(Affine):
    """The network predicts the clean sample.

    Implies the loss weight `min-snr`: with equal weights (`loss_weight: simple`), little noise, where the target is
    almost given, takes little of the loss.

    References:
        Progressive Distillation for Fast Sampling of Diffusion Models (Salimans and Ho, 2022), section 4,
        https://arxiv.org/abs/2202.00512

    Examples:
        >>> from modkit.diffusion.schedules import Cosine
        >>> part, t = X0(Cosine()), torch.tensor([0.5], dtype=torch.float64)
        >>> coefficients = part.coefficients(t, part.schedule.scales(t))
        >>> part.denoised(torch.tensor([[0.25]]), torch.tensor([[-0.5]]), coefficients).x_0
        tensor([[0.2500]])
    """

    implies = {"loss_weight": "min-snr"}

    def compute_target_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """The clean sample."""
        one = torch.ones_like(alpha_t)
        return one, 0 * one

    def compute_prediction_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`out`."""
        one = torch.ones_like(alpha_t)
        return 0 * one, one


class V(Affine):
    """The network predicts the velocity of the rotation from x_0 to eps; its error is that of x_0 times SNR + 1.

    References:
        Progressive Distillation for Fast Sampling of Diffusion Models (Salimans and Ho, 2022), section 4 and
        appendix D, https://arxiv.org/abs/2202.00512

    Examples:
        >>> from modkit.diffusion.schedules import Cosine
        >>> part, t = V(Cosine()), torch.tensor([0.25, 0.5], dtype=torch.float64)
        >>> alpha, sigma = part.schedule.scales(t)
        >>> coefficients = part.coefficients(t, (alpha, sigma))
        >>> torch.allclose(1 / part.error_scale(coefficients), (alpha / sigma) ** 2 + 1)
        True
    """

    def compute_target_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t eps - sigma_t x_0) / r`."""
        r = torch.sqrt(alpha_t**2 + sigma_t**2)
        return -sigma_t / r, alpha_t / r

    def compute_prediction_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`(alpha_t x_t / r - sigma_t out) / r`."""
        square = alpha_t**2 + sigma_t**2
        return alpha_t / square, -sigma_t / torch.sqrt(square)


@checked
class EDM(Affine):
    """EDM's preconditioning: input and target have unit variance at every noise level sigma = sigma_t / alpha_t.

        c_skip = sigma_data^2 / (sigma^2 + sigma_data^2)        c_out = sigma sigma_data / sqrt(sigma^2 + sigma_data^2)
        c_in = 1 / sqrt(sigma^2 + sigma_data^2)                 c_noise = ln(sigma) / 4

    The error of its own target weighs 1 at every time; on the error of x_0 this is the paper's weight
    `lambda = 1 / c_out^2` (eq. 8). It works on x_t / alpha_t, and therefore on any schedule.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), eq. 7 and table 1,
        https://arxiv.org/abs/2206.00364

    Args:
        schedule: The schedule.
        x: Type of the data.
        sigma_data: Standard deviation of the data; by default that of their type, or 0.5, the paper's, if it is
            unknown.

    Raises:
        ValueError: If `sigma_data` is not positive.

    Examples:
        >>> from modkit.diffusion import schedules
        >>> part = EDM(schedules.EDM(sigma_max=80.0), sigma_data=0.5)
        >>> t = torch.tensor([0.5 / 80], dtype=torch.float64)
        >>> part.inputs(torch.tensor([[0.5]]), part.coefficients(t, part.schedule.scales(t)))
        (tensor([[0.7071]]), tensor([-0.1733]))

        sigma is 0.5 there, c_in sqrt(2) and c_noise ln(0.5) / 4.
    """

    def __init__(
        self, schedule: Schedule, x: TensorType | None = None, *, sigma_data: PositiveFloat | None = None
    ) -> None:
        super().__init__(schedule)
        self.sigma_data = get_std(x) if sigma_data is None else sigma_data

    def compute_inputs(self, t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`c_in / alpha_t` and c_noise, whether or not the schedule has a table."""
        sigma, root = self._compute_sigma(alpha_t, sigma_t)
        return 1 / (alpha_t * root), torch.log(sigma) / 4

    def compute_target_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`(x_0 - c_skip x_t / alpha_t) / c_out = (sigma x_0 / d - d eps) / sqrt(sigma^2 + d^2)`, d = sigma_data."""
        sigma, root = self._compute_sigma(alpha_t, sigma_t)
        return sigma / (self.sigma_data * root), -self.sigma_data / root

    def compute_prediction_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`c_skip x_t / alpha_t + c_out out`."""
        sigma, root = self._compute_sigma(alpha_t, sigma_t)
        return (self.sigma_data / root) ** 2 / alpha_t, sigma * self.sigma_data / root

    def _compute_sigma(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = sigma_t / alpha_t
        return sigma, torch.sqrt(sigma**2 + self.sigma_data**2)


class Flow(Affine):
    """The network predicts `eps - x_0`, the velocity along the straight line from data to noise.

        z_u = x_t / (alpha_t + sigma_t) = (1 - u) x_0 + u eps        u = sigma_t / (alpha_t + sigma_t)
        x_0 = z_u - u out

    The network's input is z_u and its time 1000 u, so that on any schedule this is a rectified flow; on the schedule
    `flow`, z_u is x_t and u is t. Nothing is divided only by alpha_t, so x_0 stays finite where no signal is left.

    References:
        Flow Straight and Fast (Liu et al., 2023), eq. 1, https://arxiv.org/abs/2209.03003
        Flow Matching for Generative Modeling (Lipman et al., 2023), eq. 23, https://arxiv.org/abs/2210.02747
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), eq. 13,
        https://arxiv.org/abs/2403.03206

    Examples:
        >>> from modkit.diffusion import schedules
        >>> part, t = Flow(schedules.Flow()), torch.tensor([0.25], dtype=torch.float64)
        >>> x_t, coefficients = torch.tensor([[1.0]]), part.coefficients(t, part.schedule.scales(t))
        >>> part.inputs(x_t, coefficients)
        (tensor([[1.]]), tensor([250.]))
        >>> part.denoised(torch.tensor([[2.0]]), x_t, coefficients).x_0  # x_t - t out
        tensor([[0.5000]])
    """

    def compute_inputs(self, t: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`1 / (alpha_t + sigma_t)` and `1000 u`, whether or not the schedule has a table."""
        return 1 / (alpha_t + sigma_t), _FLOW_TIMES * sigma_t / (alpha_t + sigma_t)

    def compute_target_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`eps - x_0`."""
        one = torch.ones_like(alpha_t)
        return -one, one

    def compute_prediction_scales(self, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
        """`z_u - u out`."""
        return 1 / (alpha_t + sigma_t), -sigma_t / (alpha_t + sigma_t)


class EpsLearned(Eps):
    """The network predicts the noise and, in a second half of its channels, the variance of each step of the table.

    With u the second half, `v = (u + 1) / 2` interpolates between the two variances of the posterior, the log-variance
    being `v log beta + (1 - v) log beta_tilde`; like the paper's, v is not clamped. It is trained by the loss `bound`,
    the term of the variational bound at t,

        KL(q(x_s | x_t, x_0) || p(x_s | x_t)),    -log p(x_0 | x_t) at the first index of the table,

    in nats a dimension; no gradient reaches the mean. The term at the first index is a Gaussian density, where the
    paper discretises it to 8-bit pixels; beta_tilde is 0 there, so that of the second index is used. With rho the
    log-ratio of beta_tilde and the learned variance, and d the distance of the two means, the two terms are

        1/2 (exp(rho) (1 + d^2 / beta_tilde) - rho - 1)    1/2 (exp(rho) d^2 / beta_tilde - rho + log(2 pi beta_tilde))

    The default weight of `bound` is num / 1000, num being the length of the table: the paper's hybrid loss adds 0.001
    times the sum over the table, whose mean over times is `bound`. The authors' code does the same, in bits.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), section 3.1 and eq. 16,
        https://arxiv.org/abs/2102.09672

    Raises:
        ValueError: If the schedule has no table, or one with fewer than two indices.

    Examples:
        >>> from modkit.diffusion.schedules import Linear
        >>> part = EpsLearned(Linear(num=100, beta_end=0.2))
        >>> part.out(TensorType((3, 8, 8))).shape
        (6, 8, 8)
        >>> part.weights
        {'bound': 0.1}
    """

    def __init__(self, schedule: Schedule) -> None:
        if schedule.num is None or schedule.num < 2:
            raise ValueError(f"EpsLearned expects a schedule with a table of 2 or more, got num {schedule.num}")
        super().__init__(schedule)
        self.num = schedule.num
        self.weights = {"bound": schedule.num / 1000}
        alpha, sigma = schedule.scales(torch.tensor([2, 1], dtype=torch.float64, device="cpu") / schedule.num)
        second, first = zip(alpha.tolist(), sigma.tolist())
        self._first_variance = weigh_posterior(second, first).small

    def out(self, x: TensorType) -> TensorType:
        """The type that the network must emit: twice the channels of x, unbounded."""
        return TensorType((2 * x.shape[0], *x.shape[1:]))

    def coefficients(self, t: Tensor, scales: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Those of the mean, and four numbers of `bound`."""
        mean = super().coefficients(t, scales)
        first = t * self.num < 1.5
        to_x_0, _, small, large = weigh_posterior(scales, self.schedule.scales(torch.where(first, 0, t - 1 / self.num)))
        small = torch.where(first, self._first_variance, small)
        return {
            **mean,
            "to_log_ratio": torch.log(small / large) / 2,
            "to_distance": (to_x_0 * mean["from_out"]) ** 2 / small,
            "variance": (~first).to(t.dtype),
            "offset": torch.where(first, torch.log(2 * math.pi * small), -1.0) / 2,
        }

    def denoised(self, out: Tensor, x_t: Tensor, coefficients: Coefficients) -> Denoised:
        """The prediction of x_0 that follows from the first half, and v."""
        eps, u = out.chunk(2, dim=1)
        return Denoised(super().denoised(eps, x_t, coefficients).x_0, (u + 1) / 2)

    def losses(
        self, out: Tensor, x_0: Tensor, eps: Tensor, x_t: Tensor, coefficients: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`denoising` of the first half, and `bound`, nats a dimension, which trains the second half; both `b`."""
        eps_hat, u = out.chunk(2, dim=1)
        error = self._compare(eps_hat, x_0, eps, coefficients)
        return {"denoising": _average(error), "bound": self._compute_bound(error.detach(), u, coefficients)}

    def _compute_bound(self, error: Tensor, u: Tensor, coefficients: Mapping[str, Tensor]) -> Tensor:
        u = widen(u)  # of which an exponential is taken
        to_log_ratio, to_distance, variance, offset = (
            broadcast(coefficients[name], u) for name in ("to_log_ratio", "to_distance", "variance", "offset")
        )
        log_ratio = torch.addcmul(to_log_ratio, to_log_ratio, u)  # v (log beta_tilde - log beta)
        each = log_ratio.exp() * torch.addcmul(variance, to_distance, error) - log_ratio
        return torch.add(offset.flatten(), _average(each), alpha=0.5)


def _average(each: Tensor) -> Tensor:
    """Averages over a sample's elements, `b`."""
    return each.flatten(1).mean(1)
