"""Runs of a sampler from noise, a source of unit impulses, and diffusers' schedulers in float64."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

import modkit
from modkit.kinds import Denoise, Sampler, Schedule
from modkit.rng import Rng
from modkit.types import Denoised
from tests.mixture import Mixture


def sample(
    sampler: Sampler, denoise: Denoise, eps: Tensor, rng: Rng | None = None, times: Tensor | None = None
) -> Tensor:
    """Runs a sampler from standard normal `eps`, on its own times or on those given."""
    if times is not None:
        sampler = copy.copy(sampler)
        sampler.times = lambda: times  # type: ignore[method-assign]
    return modkit.sample(sampler, denoise, sampler.start(eps, sampler.times()[0]), rng=rng or Rng(0))


class Impulses:
    """Noise that is 1 in one row and feature of one step, from which an affine sampler's covariance follows."""

    def __init__(self, first: int) -> None:
        self.row = first

    def at(self, *names: int | str) -> Impulses:
        return self

    def normal(self, name: str, like: Tensor) -> Tensor:
        eps = torch.zeros_like(like)
        for feature in range(like.shape[1]):
            eps[self.row, feature] = 1
            self.row += 1
        return eps


def moments(sampler: Sampler, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of what a sampler makes with the denoiser of a single Gaussian."""
    d = mixture.means.shape[1]
    eps = torch.zeros(1 + d + d * (len(sampler.times()) - 1), d, dtype=torch.float64)
    eps[1 : 1 + d] = torch.eye(d)
    rng: Any = Impulses(1 + d)
    x = sample(sampler, mixture.denoiser(sampler.schedule), eps, rng)  # type: ignore[attr-defined]
    response = x[1:] - x[0]
    return x[0], response.T @ response


class Counter:
    """A denoiser that records the times of its calls."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self.times: list[float] = []

    def __call__(self, x_t: Tensor, t: Tensor) -> Denoised:
        self.times.append(float(t))
        return self.denoise(x_t, t)


def network(x_t: Tensor, t: Tensor) -> Tensor:
    """A smooth, bounded stand-in for a network's eps at time t in [0, 1]."""
    return torch.tanh(x_t.roll(1, -1) + 0.3 * x_t) * torch.cos(3 * t) + 0.2 * x_t


def denoiser(schedule: Schedule) -> Denoise:
    """`network` as a denoiser."""

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        alpha, sigma = schedule.scales(t)
        return Denoised((x_t - sigma * network(x_t, t)) / alpha)

    return denoise


def in_float64(scheduler: Any, betas: Tensor) -> Any:
    """A diffusers scheduler with its float32 tables overwritten."""
    scheduler.betas = betas
    scheduler.alphas = 1 - betas
    scheduler.alphas_cumprod = torch.cumprod(1 - betas, 0)
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler
