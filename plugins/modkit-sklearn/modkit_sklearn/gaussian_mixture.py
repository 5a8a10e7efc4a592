r"""A mixture of Gaussians fitted by scikit-learn's expectation maximisation: a Model trained without gradients.

    p(x) = sum_k proportions_k N(x; means_k, factors_k factors_k^T)
    k = the first with cumulative proportion above u ~ U[0, 1),   x = means_k + factors_k eps,   eps ~ N(0, I)

Samples are flattened, so x may be any continuous tensor. EM runs once, in float64, in the player's `prepare`.

Shape letters: b batch, k components, d values in a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from modkit import Batch, Cond, Model, Player, Rng, Step, TensorType
from modkit.types import NonNegativeFloat, PositiveInt, checked

__all__ = ["GaussianMixture"]


@checked
@checked
class GaussianMixture(Model):
    """A mixture of Gaussians with full or diagonal covariances.

    Args:
        x: Type of the data, continuous; samples are clamped to its range, if any.
        num_components: Number of Gaussians.
        covariance: `full` covariances, or `diag`onal ones.
        regularization: Added to the diagonal of the covariances.
        restarts: Number of fits from different k-means starts; the likeliest is kept.
        max_iterations: Greatest number of EM steps in a fit.
        max_samples: Greatest number of samples to fit: the first of a shuffled pass, all held in memory.

    Raises:
        ValueError: If x holds codes, a number is out of its range, or `covariance` is unknown.

    References:
        Maximum Likelihood from Incomplete Data via the EM Algorithm (Dempster et al., 1977), section 4.3

    Examples:
        >>> model = GaussianMixture(TensorType((2,)), num_components=1)
        >>> model.prepare("mixture", [Batch(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), {})], Rng(0))
        >>> model.means
        tensor([[1., 2.]])
    """

    proportions: Tensor
    means: Tensor
    factors: Tensor

    def __init__(
        self,
        x: TensorType,
        *,
        num_components: PositiveInt = 10,
        covariance: Literal["full", "diag"] = "full",
        regularization: NonNegativeFloat = 1e-6,
        restarts: PositiveInt = 3,
        max_iterations: PositiveInt = 200,
        max_samples: int = 50_000,
    ) -> None:
        super().__init__()
        if (reason := self.accepts(x)) is not None:
            raise ValueError(reason)
        if max_samples < max(2, num_components):
            raise ValueError(f"GaussianMixture expects max_samples of at least 2 and num_components, got {max_samples}")
        self.event = x
        self.covariance: Literal["full", "diag"] = covariance
        self.regularization, self.restarts = regularization, restarts
        self.max_iterations, self.max_samples = max_iterations, max_samples
        shape = (num_components, x.numel)
        self.register_buffer("proportions", torch.full((num_components,), torch.nan))
        self.register_buffer("means", torch.zeros(shape))
        self.register_buffer("factors", torch.zeros(*shape, x.numel) if covariance == "full" else torch.zeros(shape))

    def players(self) -> tuple[Player, ...]:
        """Returns `mixture`, which has no parameters: it is fitted in `prepare`, to a sample for each component."""
        return (Player("mixture", (), least=self._least),)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Returns no losses."""
        return {}

    @torch.no_grad()
    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Fits the mixture to the first `max_samples` samples of a pass.

        Raises:
            ValueError: If there are fewer samples than components, or one is not finite.
        """
        rows = _take_rows(batches, self.max_samples)
        if len(rows) < self._least:
            raise ValueError(f"GaussianMixture expects at least {self._least} samples to fit, got {len(rows)}")
        from sklearn.mixture import GaussianMixture as Fit  # takes a second, and a fitted mixture needs it no more

        fit = Fit(
            n_components=len(self.means),
            covariance_type=self.covariance,
            reg_covar=self.regularization,
            n_init=self.restarts,
            max_iter=self.max_iterations,
            random_state=rng.draw_seed() % 2**32,  # scikit-learn's greatest seed
        ).fit(rows.numpy())
        covariances = torch.from_numpy(fit.covariances_)
        self.proportions.copy_(torch.from_numpy(fit.weights_))
        self.means.copy_(torch.from_numpy(fit.means_))
        self.factors.copy_(torch.linalg.cholesky(covariances) if self.covariance == "full" else covariances.sqrt())

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws a component for each sample, then the sample.

        Raises:
            ValueError: If it has not been prepared.
        """
        if bool(self.proportions.isnan().any()):
            raise ValueError("GaussianMixture cannot be sampled before it has been prepared: it has not been fitted")
        cumulative = self.proportions.double().cumsum(0)
        uniform = rng.uniform("component", cumulative.new_empty(num))
        component = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).clamp_max(len(self.means) - 1)
        eps = rng.normal("eps", self.means.new_empty(num, self.means.shape[1]))
        x = self.means[component] + self._scale(eps, component)
        if self.single.range is not None:
            x = x.clamp(*self.single.range)
        return x.view(num, *self.single.shape)

    @property
    def _least(self) -> int:
        return max(2, len(self.means))

    def _scale(self, eps: Tensor, component: Tensor) -> Tensor:
        """Computes `factors_k eps` with each row's own k, by component, since `b d d` would not fit in memory."""
        if self.covariance == "diag":
            return self.factors[component] * eps
        scaled = torch.empty_like(eps)
        for k, factor in enumerate(self.factors):
            scaled[component == k] = (eps[component == k] @ factor.T).to(eps.dtype)  # autocast narrows products
        return scaled


def _take_rows(batches: Iterable[Batch], limit: int) -> Tensor:
    """Returns the first `limit` samples, flattened, `n d`, in float64 on the CPU."""
    rows: list[Tensor] = []
    count = 0
    for batch in batches:
        rows.append(batch.tensor[: limit - count].flatten(1).to("cpu", torch.float64))
        count += len(rows[-1])
        if count == limit:
            break
    return torch.cat(rows) if rows else torch.empty(0, 0)
