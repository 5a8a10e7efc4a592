r"""Mixture: Gaussians with diagonal covariances, learned by gradients, whose density is exact.

    p(x) = sum_k share_k N(x; mean_k, exp(logvar_k)),   share = softmax(logits)
    k ~ share,   x = mean_k + exp(logvar_k / 2) eps

Shape letters: b batch, k components, d values of a sample.

References:
    Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders (Dilokthanakul et al., 2017), section 3,
    https://arxiv.org/abs/1611.02648
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modkit.kinds import Step
from modkit.models.model import Model, check_draws
from modkit.models.player import Player
from modkit.precision import widen
from modkit.rng import Rng
from modkit.types import Batch, Cond, PositiveInt, TensorType, checked

__all__ = ["DiagonalMixture", "MixtureModel", "compute_log_mixture", "draw_mixture"]

_LOG_TWO_PI = math.log(2 * math.pi)


class MixtureModel(Model):
    """A Model whose density is a mixture of Gaussians with diagonal covariances; a subclass computes these."""

    @abstractmethod
    def _compute_gaussians(self) -> tuple[Tensor, Tensor, Tensor]:
        """Computes the means and log variances, `k ...`, and the unnormalised log shares of the components, `k`."""

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `nll`."""
        return {"nll": -self.bound(batch, 1, step.rng).mean() / self.single.numel}

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Chooses a component for each sample, and draws from it; samples are clamped to the range of x."""
        x = draw_mixture(self.allocate(num, self.single), *self._compute_gaussians(), rng)
        return x if self.single.range is None else x.clamp(*self.single.range)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The exact log p(x), without draws."""
        check_draws(self, num)
        return compute_log_mixture(batch.tensor, *self._compute_gaussians())

    def log_prob(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0, steps: int = 64) -> Tensor:
        """As `bound`, which is exact."""
        return self.bound(batch, num, rng)

    @property
    def exact(self) -> bool:
        """True."""
        return True

    @property
    def differentiable(self) -> bool:
        """True."""
        return True


@checked
class DiagonalMixture(MixtureModel):
    """A mixture of Gaussians with diagonal covariances.

    Trained by itself it is a density model; under a `latent` with `joint: true` it is the prior that a VAE is trained
    with. The loss `nll` is -log p(x) in nats per value: averaged over the batch and divided by the number of values.
    Each batch takes the memory of `b k d` values.

    Args:
        x: Type of the data, continuous; samples are clamped to its range, if it has one.
        components: Number of Gaussians. One starts as N(0, I), several start around draws of it.

    Examples:
        >>> model = DiagonalMixture(TensorType((2,)), components=1)
        >>> model.bound(Batch(torch.zeros(1, 2), {}), 1, Rng(0)).tolist()  # -log 2 pi
        [-1.8378770351409912]
        >>> model.sample(3, seed=0).shape
        torch.Size([3, 2])
    """

    def __init__(self, x: TensorType, *, components: PositiveInt = 10) -> None:
        super().__init__()
        if reason := self.accepts(x):
            raise ValueError(reason)
        self.event = x
        mean = torch.randn(components, *x.shape) if components > 1 else torch.zeros(1, *x.shape)
        values = {"mean": mean, "logvar": torch.zeros_like(mean), "logits": mean.new_zeros(components)}
        self.gaussians = nn.ParameterDict({name: nn.Parameter(value) for name, value in values.items()})

    def players(self) -> tuple[Player, ...]:
        """`mixture`."""
        return (Player("mixture", ("gaussians",)),)

    def _compute_gaussians(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.gaussians["mean"], self.gaussians["logvar"], self.gaussians["logits"]


def compute_log_mixture(x: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor) -> Tensor:
    """Computes the log density of a mixture of diagonal Gaussians in nats, `b`, in at least float32.

    Args:
        x: Samples, `b ...`; gradients flow through all arguments.
        mean: Means of the components, `k ...`.
        logvar: Log variances, `k ...`.
        logits: Unnormalised log shares of the components, `k`.

    Examples:
        >>> zero = torch.zeros(1, 2)
        >>> compute_log_mixture(zero, torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3))
        tensor([-1.8379])
    """
    x, mean, logvar = (widen(value).flatten(1) for value in (x, mean, logvar))
    squares = (x[:, None] - mean).square() * (-logvar).exp()  # b k d
    log_p = -0.5 * (squares + logvar + _LOG_TWO_PI).sum(2)
    return (log_p + widen(logits).log_softmax(0)).logsumexp(1)


def draw_mixture(like: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor, rng: Rng) -> Tensor:
    """Draws from a mixture of diagonal Gaussians, with the shape, dtype and device of `like`, `b ...`.

    Args:
        like: Says how many samples are drawn, and of what type.
        mean: Means of the components, `k ...`.
        logvar: Log variances, `k ...`.
        logits: Unnormalised log shares of the components, `k`.
        rng: Source of the draws.
    """
    shares = widen(logits).softmax(0).cumsum(0)
    u = rng.uniform("component", shares.new_empty(len(like)))
    chosen = torch.searchsorted(shares, u).clamp(max=len(shares) - 1)
    return (mean[chosen] + (logvar[chosen] / 2).exp() * rng.normal("noise", like)).to(like.dtype)
