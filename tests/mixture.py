"""A Gaussian mixture under x_t = alpha_t x_0 + sigma_t eps, in closed form and float64: the oracle of all of diffusion.

    p_t(x) = sum_k w_k N(x; alpha m_k, S_k),    S_k = alpha^2 C_k + sigma^2 I
    E[x_0 | x_t = x] = sum_k r_k(x) (m_k + alpha C_k S_k^-1 (x - alpha m_k)),    r_k(x) = p(k | x)

Shape letters: b batch, k components, d features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modkit.kinds import Denoise, Schedule
from modkit.rng import Rng
from modkit.types import Denoised


class Mixture:
    """A mixture of Gaussians.

    Args:
        weights: `k`, summing to 1.
        means: `k d`.
        covs: `k d d`.
    """

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor) -> None:
        self.weights, self.means, self.covs = (v.to(torch.float64) for v in (weights, means, covs))

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean, `d`, and covariance, `d d`, of x_0."""
        mean = self.weights @ self.means
        centred = self.means - mean
        within = torch.einsum("k,kij->ij", self.weights, self.covs)
        return mean, within + torch.einsum("k,ki,kj->ij", self.weights, centred, centred)

    def log_prob(self, x_t: Tensor, alpha: float = 1.0, sigma: float = 0.0) -> Tensor:
        """log p_t, `b`."""
        return torch.logsumexp(self._terms(x_t, alpha, sigma)[0], dim=1)

    def score(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """Gradient of log p_t, `b d`."""
        joint, solved = self._terms(x_t, alpha, sigma)
        return -(torch.softmax(joint, dim=1)[..., None] * solved).sum(1)

    def denoised(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x_0 | x_t], `b d`."""
        joint, solved = self._terms(x_t, alpha, sigma)
        each = self.means + alpha * (self.covs @ solved[..., None])[..., 0]
        return (torch.softmax(joint, dim=1)[..., None] * each).sum(1)

    def responsibilities(self, x_t: Tensor, alpha: float = 1.0, sigma: float = 0.0) -> Tensor:
        """p(k | x_t), `b k`."""
        return torch.softmax(self._terms(x_t, alpha, sigma)[0], dim=1)

    def sample(self, num: int, rng: Rng) -> Tensor:
        """Draws of x_0, `num d`."""
        edges = self.weights.cumsum(0)
        k = torch.searchsorted(edges, rng.uniform("component", edges.new_empty(num))).clamp(max=len(edges) - 1)
        eps = rng.normal("x_0", self.means.new_empty(num, self.means.shape[1]))
        return self.means[k] + torch.einsum("bij,bj->bi", torch.linalg.cholesky(self.covs)[k], eps)

    def denoiser(self, schedule: Schedule) -> Denoise:
        """The best denoiser there is under `schedule`."""

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            alpha, sigma = schedule.scales(t)
            return Denoised(self.denoised(x_t, float(alpha), float(sigma)))

        return denoise

    def _terms(self, x_t: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
        """log p_t(x_t, k), `b k`, and S_k^-1 (x_t - alpha m_k), `b k d`."""
        d = x_t.shape[1]
        factor = torch.linalg.cholesky(alpha**2 * self.covs + sigma**2 * torch.eye(d, dtype=torch.float64))
        centred = x_t[:, None] - alpha * self.means
        solved = (torch.cholesky_inverse(factor) @ centred[..., None])[..., 0]
        norm = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1) + d * math.log(2 * math.pi)
        return torch.log(self.weights) - ((centred * solved).sum(2) + norm) / 2, solved


def gaussian(mean: list[float], cov: list[list[float]]) -> Mixture:
    """A single Gaussian: every sampler with its denoiser is an affine map."""
    return Mixture(torch.ones(1), torch.tensor([mean], dtype=torch.float64), torch.tensor([cov], dtype=torch.float64))


def ring(num: int = 3, radius: float = 2.0, std: float = 0.3) -> Mixture:
    """Components on a circle, with unequal weights."""
    angle = torch.arange(num, dtype=torch.float64) * 2 * math.pi / num
    weights = torch.arange(1, num + 1, dtype=torch.float64) / (num * (num + 1) / 2)
    means = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    return Mixture(weights, means, (std**2 * torch.eye(2, dtype=torch.float64)).expand(num, 2, 2))
