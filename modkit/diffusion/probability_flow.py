r"""The density of a diffusion model by its probability flow, the ODE that carries noise to data without further noise.

With y = x_t / alpha_t and sigma = sigma_t / alpha_t, every schedule has the same flow,

    dy / d ln sigma = y - D(y, sigma) = f,    log p_0(y_0) = log N(y_1; 0, sigma_1^2 I) + int div f d ln sigma

from the lowest to the highest noise level, where D is the denoiser. It is integrated by the classical Runge-Kutta
method of fourth order, in steps that are even in ln sigma, of z = y / sqrt(sigma^2 + s^2) with s the data's deviation:
for normal data, z stays where it is. Below the lowest level, to which no network is trained, f is taken to be as linear
in sigma^2 as it is for smooth densities; so (y - D) / 2 and half of div f lead to it from sigma = 0.

With n steps of four evaluations each, this ends closer than Heun's method with as many evaluations: on a ring of five
Gaussians (radius 1, std .1), from sigma = .003 to 15,000, the mean error is 2e-4 nats a dimension with 64 steps and
2e-5 with 128, where Heun's are 8e-4 and 2e-4; with 32 steps, both have 7e-3.

The divergence is exact, one gradient a dimension, or estimated without bias from random signs v (Hutchinson), as the
mean of v^T (df / dy) v. A sample keeps its signs over all steps.

Shape letters: b batch, d dimensions of a sample.

References:
    Neural Ordinary Differential Equations (Chen et al., 2018), eq. 8, https://arxiv.org/abs/1806.07366
    Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), eq. 13 and 39,
    https://arxiv.org/abs/2011.13456
    FFJORD (Grathwohl et al., 2019), eq. 7 and 8, https://arxiv.org/abs/1810.01367
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modkit.diffusion.schedules import find_noise_range
from modkit.kinds import Denoise, Schedule
from modkit.precision import find_widest, widen
from modkit.rng import Rng

__all__ = ["EXACT", "draw_signs", "compute_log_prob"]

EXACT = 64
"""Number of dimensions up to which the divergence is exact."""


@torch.no_grad()
def compute_log_prob(
    schedule: Schedule,
    denoise: Denoise,
    x_0: Tensor,
    *,
    steps: int,
    std: float = 1.0,
    grain: float = 0.0,
    signs: Sequence[Tensor] = (),
) -> Tensor:
    """Computes log p(x_0) in nats a sample, `b`, float64, without gradients.

    Args:
        schedule: Signal and noise over time.
        denoise: Predicts x_0; it is called four times a step.
        x_0: Samples, `b ...`.
        steps: Number of steps.
        std: Deviation of the data.
        grain: Width of the uniform noise with which x_0 was dequantized: x_0 then has a noise level of its deviation,
            at which the flow begins, and not at 0.
        signs: Signs by which the divergence is estimated, each the shape of `x_0`; without any, it is exact.

    Raises:
        ValueError: If `steps` is below 1.

    Examples:
        With the exact denoiser of N(0, I):

        >>> from modkit.diffusion.schedules import EDM
        >>> from modkit.types import Denoised
        >>> schedule = EDM(sigma_max=1000.0)
        >>> def denoise(x_t, t):
        ...     return Denoised(x_t / (1 + schedule.scales(t)[1].item() ** 2))
        >>> nats = compute_log_prob(schedule, denoise, torch.tensor([[0.0], [1.0]]), steps=2)
        >>> [f"{one:.4f}" for one in nats.tolist()]  # -log(2 pi) / 2 = -.9189
        ['-0.9189', '-1.4189']
    """
    if steps < 1:
        raise ValueError(f"log_prob expects steps of at least 1, got {steps}")
    low, high = find_noise_range(schedule)
    low = max(low, min(grain / math.sqrt(12), high))
    numel, y = x_0[0].numel(), widen(x_0)

    def move(z: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """The velocity of z, and its divergence, at a logarithm of the noise level."""
        root, share = math.hypot(math.exp(level), std), 1 / (1 + math.exp(2 * level) / std**2)
        x_0_hat, trace = _predict_with_trace(schedule, denoise, root * z, math.exp(level), signs)
        return share * z - x_0_hat / root, share * numel - trace

    x_0_hat, trace = _predict_with_trace(schedule, denoise, y, low, signs)
    above = (1 - grain**2 / 12 / low**2) / 2
    y, nats = y + above * (y - x_0_hat), above * (numel - trace)
    z = y / math.hypot(low, std)
    levels = torch.linspace(math.log(low), math.log(high), steps + 1, dtype=torch.float64, device="cpu").tolist()
    for level, h in zip(levels, (after - before for before, after in zip(levels, levels[1:]))):
        a, div_a = move(z, level)
        b, div_b = move(z + h / 2 * a, level + h / 2)
        c, div_c = move(z + h / 2 * b, level + h / 2)
        d, div_d = move(z + h * c, level + h)
        z = z + h / 6 * (a + 2 * b + 2 * c + d)
        nats = nats + h / 6 * (div_a + 2 * div_b + 2 * div_c + div_d)
    end = math.hypot(high, std)
    square = (end / high * z).flatten(1).square().sum(1, dtype=find_widest(z.device))
    return nats + numel * (math.log(end / high / math.hypot(low, std)) - math.log(2 * math.pi) / 2) - square / 2


def draw_signs(x: Tensor, num: int, rng: Rng) -> list[Tensor]:
    """Draws `num` tensors of random signs, 1 or -1 with equal probability, each with the shape and dtype of `x`.

    Examples:
        >>> draw_signs(torch.zeros(1, 3), 1, Rng(0))[0].abs()
        tensor([[1., 1., 1.]])
    """
    return [2 * rng.at(index).integers("sign", x, 0, 2).to(x) - 1 for index in range(num)]


def _predict_with_trace(
    schedule: Schedule, denoise: Denoise, y: Tensor, sigma: float, signs: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Predicts x_0 from y = x_t / alpha_t, and computes the trace of its Jacobian, `b`, float64."""
    t = schedule.time(torch.tensor(sigma, dtype=torch.float64, device="cpu"))
    alpha = schedule.scales(t)[0].item()
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        x_0_hat = denoise(alpha * y, t).x_0
        flat = x_0_hat.flatten(1)
        if signs:
            sides = [sign.to(y).flatten(1) for sign in signs]
            products = [(side * _compute_product(flat, y, side)).sum(1, dtype=find_widest(y.device)) for side in sides]
            trace = torch.stack(products).mean(0)
        else:
            rows = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
            columns = [_compute_product(flat, y, row.expand_as(flat))[:, index] for index, row in enumerate(rows)]
            trace = torch.stack(columns, 1).sum(1, dtype=find_widest(y.device))
    return x_0_hat.detach(), trace


def _compute_product(out: Tensor, y: Tensor, side: Tensor) -> Tensor:
    """Computes side^T (d out / d y), `b d`."""
    (gradient,) = torch.autograd.grad(out, y, side, retain_graph=True)
    return gradient.flatten(1)
