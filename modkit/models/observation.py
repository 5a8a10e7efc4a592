r"""p(x | z) of an autoencoder, and the bound on log p(x) that it gives with q(z | h).

    log p(x) >= E_q[log p(x | z)] - KL(q || p(z)),     log p(x) >= E log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | h)

The second, the importance-weighted bound, increases to log p(x) with K (Burda et al., 2016, eq. 8). Codes are
deterministic, and their prior is uniform.

Shape letters: b batch, k draws.

References:
    Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modkit.kinds import Decoder, Likelihood, LikelihoodExtras, read_extras
from modkit.losses.importance import average_weights
from modkit.losses.levels import Levels
from modkit.models.given import call_given
from modkit.models.posterior import Posterior, get_last
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Cond, TensorType, Value

__all__ = ["Observation"]


@dataclass(frozen=True)
class Observation:
    """p(x | z), by a decoder and a likelihood.

    Args:
        decoder: The decoder.
        likelihood: The likelihood.
        x: The type of a sample.

    Examples:
        >>> import torch
        >>> from modkit.losses.likelihoods import MSE
        >>> x = TensorType((2,))
        >>> p = Observation(lambda z: z, MSE(x), x)
        >>> p.compute_log_density(torch.zeros(1, 2), torch.zeros(1, 2), Cond())  # -log 2 pi
        tensor([-1.8379])
    """

    decoder: Decoder
    likelihood: Likelihood
    x: TensorType

    @property
    def extras(self) -> LikelihoodExtras:
        """The likelihood's optional members."""
        return read_extras(self.likelihood, LikelihoodExtras)

    def decode(self, z: Value, cond: Cond) -> Tensor:
        """Computes the mean of x."""
        return self.likelihood.mean(call_given(self.decoder, z, cond))

    def draw(self, z: Value, cond: Cond, rng: Rng) -> Tensor:
        """Draws x."""
        out = call_given(self.decoder, z, cond)
        return self.likelihood.sample(out, rng.at("likelihood")).to(out.dtype)

    def explain_lack(self) -> str | None:
        """Returns why the likelihood is no distribution of x, or not of the levels that its type states, or None."""
        extras = self.extras
        if extras.constant is None:
            name = type(self.likelihood).__name__
            return f"Autoencoder has no bound on log p(x): its likelihood {name} is not a density of x"
        return self._explain_levels(extras.levels)

    def compute_log_density(self, x: Tensor, z: Value, cond: Cond) -> Tensor:
        """Computes log p(x | z), `b`, with what `nll` leaves out.

        Raises:
            ValueError: If the likelihood is no distribution of x, or x has values that it gives no probability.
        """
        extras = self.extras
        if extras.constant is None:
            raise ValueError(self.explain_lack())
        if reason := self._explain_levels(extras.levels, x):
            raise ValueError(reason)
        return -self.likelihood.nll(call_given(self.decoder, z, cond), x) - extras.constant * self.x.numel

    def weigh(self, x: Tensor, q: Posterior, name: str, h: Value, cond: Cond, rng: Rng) -> tuple[Value, Tensor]:
        """Draws a latent from q(latent | h), and computes log p(x | latent) - log q(latent | h), `b`."""
        latent, log_q = q.draw(name, h, rng)
        return latent, self.compute_log_density(x, q.bottleneck.to_z(name, latent), cond) - log_q

    def compute_bound(self, x: Tensor, q: Posterior, h: Value, cond: Cond, num: int, rng: Rng) -> Tensor:
        """Computes the ELBO for one draw, with the KL where there is one, or the importance-weighted bound for `num`.

        One draw is in memory at a time. The bound is `b`.
        """
        if num == 1:
            latents = q.bottleneck(h, StepContext(rng.at(0)))
            if latents.total_kl is not None:
                return self.compute_log_density(x, get_last(latents.values), cond) - latents.total_kl
        name = next(iter(q.bottleneck.latents))

        def weigh(rng: Rng) -> Tensor:
            latent, log_weight = self.weigh(x, q, name, h, cond, rng)
            return log_weight + q.compute_log_prior(name, latent)

        return average_weights(weigh, num, rng)

    def _explain_levels(self, num: int | None, x: Tensor | None = None) -> str | None:
        """Returns which values x has beside the levels whose probability the likelihood gives, or None."""
        name = type(self.likelihood).__name__
        if num is None or (received := Levels(name, self.x, num).explain_lack(x)) is None:
            return None
        return (
            f"Autoencoder has no bound on log p(x): its likelihood {name} gives the probability of {num} values of x, "
            f"evenly spaced over its range, got {received}; expected such data, or a likelihood that is a density"
        )
