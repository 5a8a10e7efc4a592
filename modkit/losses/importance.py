r"""Importance-weighted objectives: bounds by K draws of a latent for each sample, and their gradients.

    L_K = E log 1/K sum_k w_k,    w_k = p(x | z_k) p(z_k) / q(z_k | x),    z_k = z(noise_k, phi) ~ q(z | x)

L_1 is the ELBO, and L_K increases to log p(x) with K. Two mixtures keep more of the signal for q, which vanishes beside
its noise as K increases; with M > 1 or beta > 0, the bound is less tight:

    MIWAE    1/M sum_m log 1/K sum_k w_mk                    the mean of M bounds by K draws each
    CIWAE    beta 1/K sum_k log w_k + (1 - beta) log 1/K sum_k w_k

With v_k = w_k / sum_j w_j, the gradient of L_K by the parameters phi of q is the mean of either

    sum_k v_k d log w_k / d phi                                     reparametrized
    sum_k v_k^2 (d log w_k / d z_k) d z_k / d phi                   doubly reparametrized

The second reparametrizes the score as well, the derivative of log q(z_k | x) by phi at a given z_k. Its signal does not
vanish as K increases, and its variance is zero where q is the posterior of the model. In a mixture, each bound has its
own, and beta/K stands beside (1 - beta) v_k^2. All other gradients are the same.

Shape letters: b batch, m bounds, k draws.

References:
    Importance Weighted Autoencoders (Burda et al., 2016), eq. 8, https://arxiv.org/abs/1509.00519
    Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018), section 4,
    https://arxiv.org/abs/1802.04537
    Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker et al., 2019), eq. 8,
    https://arxiv.org/abs/1810.04152
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from modkit.kinds import Draw, Evidence, Step
from modkit.rng import Rng
from modkit.types import PositiveInt, Range, checked

__all__ = ["IWAE", "average_weights", "move_draws"]

_FORMER = {"draws": 1, "gradient": "reparametrized"}  # parameters of `autoencoder` before objectives were parts


@checked
class IWAE:
    """The importance-weighted bound; the loss `bound` stands in place of `nll` and `kl`.

    All draws are in memory at once, as rows of one batch: the decoder's activations take K M times as much. All other
    losses see the first draw of each sample.

    Args:
        draws: Number K of draws of a bound, for each sample.
        gradient: Which gradient the encoder receives: `reparametrized`, or `doubly-reparametrized` (DReG), whose
            variance is smaller; no other loss may stand beside it. With the latter and one draw, the loss is the ELBO
            by this draw (sticking the landing).
        bounds: Number M of bounds whose mean is maximised (MIWAE), each by draws of its own.
        elbo: The share beta of the ELBO by the same draws (CIWAE).

    Raises:
        ValueError: If `draws` or `bounds` is below 1, `elbo` is outside [0, 1], or `gradient` is unknown.

    Examples:
        >>> log_weights = torch.tensor([[1.0, 3.0]]).log()
        >>> IWAE(draws=2).combine(log_weights).exp(), IWAE(draws=2, elbo=1.0).combine(log_weights).exp()
        (tensor([2.]), tensor([1.7321]))
    """

    weighs = True

    def __init__(
        self,
        *,
        draws: PositiveInt = 5,
        gradient: Literal["reparametrized", "doubly-reparametrized"] = "reparametrized",
        bounds: PositiveInt = 1,
        elbo: Annotated[float, Range(0, 1)] = 0.0,
    ) -> None:
        self.draws, self.bounds, self.elbo = draws, bounds, elbo
        self.holds = gradient == "doubly-reparametrized"

    def __call__(self, evidence: Evidence, step: Step) -> tuple[Draw, dict[str, Tensor]]:
        """Computes `bound`, `b`, an upper bound on -log p(x)."""
        draw = evidence.weigh(self.bounds * self.draws, hold=self.holds)
        assert draw.log_weights is not None, "draws that are weighed have weights"
        if self.holds and isinstance(draw.latent, Tensor) and draw.latent.requires_grad:
            factor = self._compute_factors(draw.log_weights.detach()).to(draw.latent.dtype)
            draw.latent.register_hook(lambda gradient: torch.einsum("b,b...->b...", factor, gradient))
        return draw, {"bound": -self.combine(draw.log_weights)}

    def combine(self, log_weights: Tensor) -> Tensor:
        """Computes the bound on log p(x), `b`, by log w of each draw, `b (m k)`."""
        log_weights = log_weights.unflatten(1, (self.bounds, self.draws))
        bound = log_weights.logsumexp(2) - math.log(self.draws)
        return (torch.lerp(bound, log_weights.mean(2), self.elbo) if self.elbo else bound).mean(1)

    def _compute_factors(self, log_weights: Tensor) -> Tensor:
        """Computes what turns a gradient by each draw into the doubly reparametrized one, `(b m k)`.

        The bound's derivative by log w is u = beta/K + (1 - beta) v; beta/K + (1 - beta) v^2 is to take its place, so
        the factor is v + beta/K (1 - v) / u.
        """
        v = log_weights.unflatten(1, (self.bounds, self.draws)).softmax(2)
        share = self.elbo / self.draws
        rest = share * (1 - v) / (share + (1 - self.elbo) * v).clamp_min(torch.finfo(v.dtype).tiny)
        return (v + rest).flatten()


def average_weights(weigh: Callable[[Rng], Tensor], num: int, rng: Rng) -> Tensor:
    """Computes log 1/K sum_k w_k, `b`, by log w of `num` draws, with one draw in memory at a time.

    Examples:
        >>> average_weights(lambda rng: torch.tensor([2.0]).log(), 4, Rng(0)).exp()
        tensor([2.])
    """
    total = weigh(rng.at(0))
    for index in range(1, num):
        total = torch.logaddexp(total, weigh(rng.at(index)))
    return total - math.log(num)


def move_draws(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rewrites the parameters of an autoencoder from before objectives were parts: `draws`, `gradient`.

    Raises:
        ValueError: If there are several draws beside an objective that does not weigh them.

    Examples:
        >>> move_draws({"draws": 8, "objective": "elbo"})
        {'objective': {'use': 'iwae', 'draws': 8}}
        >>> move_draws({"draws": 1, "gradient": "reparametrized", "encoder": "mlp"})
        {'encoder': 'mlp'}
    """
    former = {key: params[key] for key in _FORMER if key in params}
    if not former:
        return params
    kept = {key: value for key, value in params.items() if key not in _FORMER}
    given = kept.get("objective", "elbo")
    written = dict(given) if isinstance(given, Mapping) else {"use": given}
    name = written.get("use", "elbo")
    if name != "iwae" and {**_FORMER, **former} == _FORMER:
        return kept
    if name not in ("iwae", "elbo", "sum"):
        raise ValueError(f"expected {' and '.join(former)} of the objective `iwae`, got the objective {name!r}")
    return {**kept, "objective": {**(written if name == "iwae" else {"use": "iwae", "draws": 1}), **former}}
