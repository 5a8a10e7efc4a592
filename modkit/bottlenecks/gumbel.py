r"""A discrete VAE: a code is drawn at each position, and Gumbel noise makes the draw differentiable.

    q(k | h) = softmax(logits),   k = argmax(logits + g),   g = -log(-log u),   z_q = e_k
    dz_q / dlogits = d(sum_k y_k e_k) / dlogits,   y = softmax((logits + g) / tau)        (straight through)
    KL(q || uniform) = sum over positions of log K + sum_k q_k log q_k
    tau = tau_start (tau_end / tau_start)^min(1, step / tau_steps)

The draw follows q for every tau, so the KL belongs to a valid bound on log p(x); tau trades the bias of the gradient
for its variance.

Shape letters: b batch, k codes, c channels, h w spatial (one, two or three sizes).

References:
    Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), eq. 1-2 and section 2.2,
    https://arxiv.org/abs/1611.01144
    Zero-Shot Text-to-Image Generation (Ramesh et al., 2021), section 2.1, https://arxiv.org/abs/2102.12092
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from modkit.bottlenecks.places import Places, Tokens
from modkit.bottlenecks.pointwise import check_features
from modkit.bottlenecks.straight_through import straight_through
from modkit.kinds import Step
from modkit.precision import widen
from modkit.rng import Rng
from modkit.types import Event, Latents, NonNegativeInt, PositiveFloat, PositiveInt, TensorType, checked

__all__ = ["GumbelQuantizer"]


@checked
class GumbelQuantizer(nn.Module):
    """Draws one of `num_codes` learned codes at each position, with a uniform prior; a vector becomes several.

    Args:
        num_codes: Number of codes; a 1x1 convolution (a linear layer for vectors) maps the features to their logits.
        channels: Channels of a code.
        tau_start: Temperature of the gradient at the first step.
        tau_end: Temperature from step `tau_steps` on; it is approached geometrically.
        tau_steps: Number of annealing steps; with 0, the temperature is always `tau_end`.

    Raises:
        ValueError: If a number is out of its range, or the features are a hierarchy or codes.

    Examples:
        >>> bottleneck = GumbelQuantizer(TensorType((8, 4, 4)), num_codes=16)
        >>> latents = bottleneck(torch.zeros(2, 8, 4, 4), None)
        >>> {name: tuple(value.shape) for name, value in latents.values.items()}
        {'codes': (2, 4, 4), 'quantized': (2, 4, 4, 4)}
        >>> bottleneck.tau(0), bottleneck.tau(500), bottleneck.tau(1000)
        (1.0, 0.25, 0.0625)
    """

    def __init__(
        self,
        h: Event,
        *,
        num_codes: PositiveInt = 256,
        channels: PositiveInt = 4,
        tau_start: PositiveFloat = 1.0,
        tau_end: PositiveFloat = 0.0625,
        tau_steps: NonNegativeInt = 1000,
        tokens: Tokens = 8,
    ) -> None:
        super().__init__()
        h = check_features("GumbelQuantizer", h)
        self.tau_start, self.tau_end, self.tau_steps = tau_start, tau_end, tau_steps
        self._places = Places(h, tokens)
        self._codes = TensorType(self._places.size, classes=num_codes)
        self.latents: dict[str, Event] = {"codes": self._codes, "quantized": self._places.make_type(channels)}
        self.project = self._places.make_projection(num_codes)
        self.codebook = nn.Parameter(torch.empty(num_codes, channels).normal_())

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Draws codes `b h w` and computes their embeddings `b c h w` and the KL in nats, `b`.

        Without a step the codes are the most likely ones. Gradients of `quantized` reach the drawn codes' embeddings
        and, through y, the logits. The KL and y are computed in at least float32.
        """
        logits = self._compute_logits(h)
        log_q = logits.log_softmax(1)
        kl = (log_q.exp() * log_q).flatten(1).sum(1) + self._codes.numel * math.log(len(self.codebook))
        perturbed = logits if step is None else logits + _draw_gumbel(logits, step.rng)
        codes = perturbed.argmax(1)
        z_q = self.to_z("codes", codes)
        if step is not None:
            y = (perturbed / self.tau(step.index)).softmax(1)
            soft = self._places.join(einsum(y, self.codebook.detach().to(y.dtype), "b k ..., k c -> b c ..."))
            z_q = z_q + straight_through(soft, torch.zeros_like(soft)).to(z_q.dtype)
        return Latents({"codes": codes, "quantized": z_q}, kl, {})

    def tau(self, index: int) -> float:
        """Computes the temperature at step `index`."""
        share = min(1.0, index / self.tau_steps) if self.tau_steps else 1.0
        return self.tau_start * math.pow(self.tau_end / self.tau_start, share)

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Embeds codes; returns `quantized` unchanged.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name == "quantized":
            return latent
        if name != "codes":
            raise ValueError(f"GumbelQuantizer expects one of the latents {list(self.latents)}, got {name!r}")
        return self._places.join(rearrange(F.embedding(latent, self.codebook), "b ... c -> b c ..."))

    def sample(self, num: int, rng: Rng) -> Tensor:
        """Draws uniform codes and embeds them."""
        places = self.codebook.new_empty((num, *self._codes.shape))
        return self.to_z("codes", rng.integers("prior", places, 0, len(self.codebook)))

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Draws the same codes as `forward` with this rng, `b h w`, and computes log q(codes | h), `b`.

        Raises:
            ValueError: If `name` is not `codes`.
        """
        self._check_density(name)
        logits = self._compute_logits(h)
        codes = (logits + _draw_gumbel(logits, rng)).argmax(1)
        return codes, logits.log_softmax(1).gather(1, codes[:, None]).flatten(1).sum(1)

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """Computes the log probability of codes `b h w` under the uniform prior, -n log K, `b`.

        Raises:
            ValueError: If `name` is not `codes`.
        """
        self._check_density(name)
        each = -self._codes.numel * math.log(len(self.codebook))
        return widen(self.codebook).new_full((len(latent),), each)

    def _compute_logits(self, h: Tensor) -> Tensor:
        return widen(self._places.split(self.project(h)))

    def _check_density(self, name: str) -> None:
        if name != "codes":
            raise ValueError(f"GumbelQuantizer has a density of its codes only, not of {name!r}")


def _draw_gumbel(logits: Tensor, rng: Rng) -> Tensor:
    u = rng.uniform("posterior", logits).clamp_min(torch.finfo(torch.float32).tiny)
    return -(-u.log()).log()
