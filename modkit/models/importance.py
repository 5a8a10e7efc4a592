r"""Importance-weighted training: the bound by K draws of a latent for each sample, and its gradients.

    L_K = E log 1/K sum_k w_k,    w_k = p(x | z_k) p(z_k) / q(z_k | x),    z_k = z(noise_k, phi) ~ q(z | x)

L_1 is the ELBO, and L_K increases to log p(x) with K. With v_k = w_k / sum_j w_j, the gradient by the parameters phi of
q is the mean of either

    sum_k v_k d log w_k / d phi                                     reparametrized
    sum_k v_k^2 (d log w_k / d z_k) d z_k / d phi                   doubly reparametrized

The second reparametrizes the score as well, the derivative of log q(z_k | x) by phi at a given z_k. The signal of the
first vanishes beside its noise as K increases; that of the second does not, and its variance is zero where q is the
posterior of the model. All other gradients are the same.

Shape letters: b batch, k draws.

References:
    Importance Weighted Autoencoders (Burda et al., 2016), eq. 8, https://arxiv.org/abs/1509.00519
    Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker et al., 2019), eq. 8,
    https://arxiv.org/abs/1810.04152
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from modkit.diffusion.gaussian import compute_log_normal
from modkit.kinds import Bottleneck, BottleneckExtras, Unfit, read_extras
from modkit.rng import Rng
from modkit.types import PositiveInt, Value, checked, split_levels

__all__ = ["Gradient", "ImportanceWeights"]

Gradient = Literal["reparametrized", "doubly-reparametrized"]


@checked
class ImportanceWeights:
    """Draws the first latent of a bottleneck, and computes the bound by its weights.

    Args:
        bottleneck: The bottleneck.
        source: Where it was declared, for messages.
        draws: The number K of draws for each sample.
        gradient: Which gradient the parameters of q receive.

    Raises:
        Unfit: If the bottleneck has no densities, its draws pass no gradients on, or, for the doubly reparametrized
            gradient, q is not a diagonal Gaussian.
        ValueError: If `draws` is below 1, or `gradient` is unknown.
    """

    def __init__(self, bottleneck: Bottleneck, source: str, draws: PositiveInt, gradient: Gradient) -> None:
        self.draws, self.doubly = draws, gradient == "doubly-reparametrized"
        self._name, event = next(iter(bottleneck.latents.items()))
        extras = read_extras(bottleneck, BottleneckExtras)
        if extras.posterior is None or extras.log_prior is None:
            self._refuse(source, "with densities of its latent, as `gaussian` has", "which has none")
        if any(level.classes is not None for level in split_levels(event)):
            self._refuse(source, "whose draws pass gradients on", f"whose first latent, {self._name!r}, is codes")
        if self.doubly and extras.posterior_moments is None:
            self._refuse(source, "whose posterior is a diagonal Gaussian, as `gaussian` without a flow has", "another")

    def check_alone(self, game: str, others: object) -> None:
        """Checks that no other part of an autoencoder needs what these weights do not leave.

        Raises:
            Unfit: If the game with a critic compares features in place of `nll`.
            ValueError: If there are others beside a doubly reparametrized gradient.
        """
        if game != "vqgan":
            raise Unfit("critic_game", f"importance weights expect the game vqgan, got {game}")
        if self.doubly and others:
            raise ValueError(
                "Autoencoder expects no critics, features, regularizers or aggregates with a doubly reparametrized "
                "gradient, which scales the gradients of all losses that reach a draw, got some"
            )

    def draw(self, bottleneck: Bottleneck, h: Value, rng: Rng) -> tuple[Value, Tensor]:
        """Draws latents, `(b k) ...`, and computes log p(z) - log q(z | x) of each, `(b k)`.

        All draws are in memory at once, as rows of one batch: the decoder's activations take K times as much.
        """
        extras = read_extras(bottleneck, BottleneckExtras)
        h = tuple(map(self.repeat, h)) if isinstance(h, tuple) else self.repeat(h)
        assert extras.posterior is not None and extras.log_prior is not None
        latent, log_q = extras.posterior(self._name, h, rng.repeat(self.draws))
        if self.doubly and extras.posterior_moments is not None and isinstance(latent, Tensor):
            mean, std = (moment.detach() for moment in extras.posterior_moments(self._name, h))
            log_q = compute_log_normal((latent - mean) / std) - std.log().flatten(1).sum(1)
        return latent, extras.log_prior(self._name, latent) - log_q

    def repeat(self, value: Tensor) -> Tensor:
        """Repeats each row for its draws, `(b k) ...`."""
        return value.repeat_interleave(self.draws, 0)

    def select_first(self, value: Value) -> Value:
        """Selects the first draw of each sample, `b ...`."""
        if isinstance(value, tuple):
            return tuple(level[:: self.draws] for level in value)
        return value[:: self.draws]

    def compute_bound(self, latent: Value, log_weights: Tensor) -> Tensor:
        """Computes log 1/K sum_k w_k, `b`.

        The doubly reparametrized gradient scales all gradients that reach the draws, so that no other loss may.

        Args:
            latent: The draws, `(b k) ...`.
            log_weights: log w of each, `(b k)`.
        """
        log_weights = log_weights.reshape(-1, self.draws)
        if self.doubly and isinstance(latent, Tensor) and latent.requires_grad:
            share = log_weights.detach().softmax(1).flatten().to(latent.dtype)
            latent.register_hook(lambda gradient: torch.einsum("b,b...->b...", share, gradient))
        return log_weights.logsumexp(1) - math.log(self.draws)

    def _refuse(self, source: str, expected: str, received: str) -> None:
        raise Unfit("bottleneck", f"importance weights expect a bottleneck {expected}, got {source}, {received}")
