"""Log-likelihood: how well a Model predicts data, by log p(x) itself, in nats and in bits per dimension."""

from __future__ import annotations

from torch import Tensor

from modkit.metrics.bound import Bound
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.types import Batch, PositiveInt, TensorType, checked

__all__ = ["LogLikelihood"]


@checked
class LogLikelihood(Bound):
    """The mean of a Model's log p(x), in nats per sample and, for data with levels, bits per dimension.

    A diffusion model's is that of its probability flow, without the gap between its bound and log p(x). A `latent` has
    a bound, in which its prior has no gap. The error is s / sqrt(n), and includes the noise of dequantization and of
    random signs.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), section 4.3,
        https://arxiv.org/abs/2011.13456

    Args:
        num: Number of draws per sample where log p(x) is estimated from draws: of diffusion above 64 dimensions.
        steps: Number of steps of the probability flow, of four evaluations each.
        seed: Seed of the draws.

    Raises:
        ValueError: If `num` or `steps` is not positive.

    Examples:
        >>> import torch
        >>> from modkit import Batch, TensorType
        >>> from modkit.models import Flow
        >>> values = {"model": Flow(TensorType((2,))), "batch": Batch(torch.zeros(4, 2), {}), "levels": None}
        >>> {name: round(score.value, 3) for name, score in LogLikelihood().compute(real=values).items()}
        {'log-likelihood': -1.838}
    """

    def __init__(self, *, num: int = 1, steps: PositiveInt = 64, seed: int = 0) -> None:
        super().__init__(num=num, seed=seed)
        self.settings = {"num": num, "steps": steps}
        self.names = ("log-likelihood", "bits/dim (log-likelihood)")

    def refuse(self, model: Model, x: TensorType) -> str | None:
        """Returns the reason of a Model without a log p(x), or None."""
        return model.explain_lack("log_prob")

    def compute_nats(self, model: Model, batch: Batch, rng: Rng, grain: float) -> Tensor:
        """Computes log p(x), `b`."""
        return model.log_prob(batch, self.num, rng, grain=grain, steps=self.settings["steps"])
