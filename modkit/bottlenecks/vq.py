r"""Vector quantisation: each position becomes the nearest of a set of learned codes.

    k = argmin_k |z - e_k|^2,   z_q = e_k,   dz_q / dz = I (straight through)
    commitment = beta |z - sg e_k|^2
    codebook = |sg z - e_k|^2 (gradient), or moving averages of what each code is nearest to (EMA):
        N <- gamma N + (1 - gamma) n,   m <- gamma m + (1 - gamma) sum z,   e = m / smoothed(N)
        smoothed(N) = (N + tiny) / (sum N + K tiny) sum N

Since e = m / smoothed(N) always, m is not kept beside them. The sums of a step are collected by `forward` in buffers,
over as many calls as there are, and moved once by `update`.

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions, k codes.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), eq. 1-3 and appendix A.1,
    https://arxiv.org/abs/1711.00937
    Jukebox (Dhariwal et al., 2020), section 3.2: reviving codes, https://arxiv.org/abs/2005.00341
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.bottlenecks.codebook import kmeans, lowest, nearest
from modkit.bottlenecks.pointwise import feature_type, pointwise
from modkit.kinds import Step
from modkit.precision import widened
from modkit.rng import Rng
from modkit.types import Event, Latents, TensorType

__all__ = ["VectorQuantizer"]

_TINY = 1e-5
_UNSEEN = 2.0  # priority of an empty place: above every uniform draw


class VectorQuantizer(nn.Module):
    """The nearest of `num_codes` learned codes at each position; a vector becomes one code.

    Args:
        num_codes: Number of codes.
        channels: Channels of a code; a 1x1 convolution (a linear layer for vectors) maps the features to them.
        codebook: What moves the codes: `ema`, moving averages of the vectors nearest to each; `gradient`, a loss.
        commitment: Weight beta of the commitment loss, which keeps the encoder near its codes.
        decay: Decay gamma of the moving averages, in [0, 1).
        revive: A code is dead when its average usage falls below this share of the mean usage; it is then replaced by
            an encoder output of the step. 0: never.

    Raises:
        ValueError: If a number is out of its range, `codebook` is unknown, or the features are a hierarchy or codes.
    """

    codebook: Tensor
    usage: Tensor
    counts: Tensor
    sums: Tensor
    seen: Tensor
    priority: Tensor

    def __init__(
        self,
        h: Event,
        *,
        num_codes: int = 256,
        channels: int = 4,
        codebook: Literal["ema", "gradient"] = "ema",
        commitment: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.05,
    ) -> None:
        super().__init__()
        h = feature_type("VectorQuantizer", h)
        if num_codes < 1 or channels < 1:
            raise ValueError(f"VectorQuantizer expects num_codes, channels of at least 1, got {num_codes}, {channels}")
        if codebook not in ("ema", "gradient"):
            raise ValueError(f"VectorQuantizer expects codebook 'ema' or 'gradient', got {codebook!r}")
        if not (0 <= decay < 1 and 0 <= revive < 1 and commitment >= 0):
            received = f"decay {decay}, revive {revive}, commitment {commitment}"
            raise ValueError(f"VectorQuantizer expects decay and revive in [0, 1), commitment >= 0, got {received}")
        self.commitment, self.decay, self.revive, self.ema = commitment, decay, revive, codebook == "ema"
        self.latents: dict[str, Event] = {
            "codes": TensorType(h.shape[1:] or (1,), classes=num_codes),
            "continuous": TensorType((channels, *h.shape[1:])),
            "quantized": TensorType((channels, *h.shape[1:])),
        }
        self._vector = len(h.shape) == 1
        self.project = pointwise(h, channels)
        codes = torch.empty(num_codes, channels).normal_()
        if self.ema:
            self.register_buffer("codebook", codes)
            self.register_buffer("sums", torch.zeros_like(codes), persistent=False)
        else:
            self.codebook = nn.Parameter(codes)
        self.register_buffer("usage", torch.ones(num_codes))
        self.register_buffer("counts", torch.zeros(num_codes), persistent=False)
        if revive:
            self.register_buffer("seen", torch.zeros_like(codes), persistent=False)
            self.register_buffer("priority", torch.full((num_codes,), _UNSEEN), persistent=False)

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Codes `b h w`, the vectors before them and the codes' embeddings, both `b c h w`.

        Gradients of `quantized` pass to `continuous` unchanged, and none reach the codebook through it. The sums for
        `update` are kept in the owner's turn in training only.
        """
        z = self._projected(h)
        codes = self._codes(z)
        z_q = self._embedded(codes)
        losses = {"commitment": self.commitment * F.mse_loss(z, z_q.detach())}
        if not self.ema:
            losses["codebook"] = F.mse_loss(z_q, z.detach())
        if step is not None and step.moves:
            self._observe(z, codes, step.rng)
        return Latents({"codes": codes, "continuous": z, "quantized": _straight_through(z, z_q)}, None, losses)

    def to_z(self, name: str, latent: Tensor) -> Tensor:
        """Embeddings `b c h w` of codes `b h w`, or of the codes nearest to `continuous`; `quantized` as it is.

        Raises:
            ValueError: If there is no latent of that name.
        """
        if name == "codes":
            return self._embedded(latent)
        if name == "continuous":
            return _straight_through(latent, self._embedded(self._codes(latent)))
        if name == "quantized":
            return latent
        raise ValueError(f"VectorQuantizer expects one of the latents {list(self.latents)}, got {name!r}")

    def sample(self, num: int, rng: Rng) -> NoReturn:
        """Refuses: codes have no prior of their own.

        Raises:
            ValueError: Always.
        """
        raise ValueError("VectorQuantizer has no prior to sample from: compose the autoencoder with one by `latent`")

    def posterior(self, name: str, h: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """The nearest codes, `b h w`, and log q = 0, `b`: they are a function of `h`.

        Raises:
            ValueError: If `name` is not `codes`: what is continuous and certain has no density.
        """
        if name != "codes":
            raise ValueError(f"VectorQuantizer has a posterior of its codes alone, {name!r} has no density")
        z = self._projected(h)
        return self._codes(z), widened(z).new_zeros(len(z))

    def log_prior(self, name: str, latent: Tensor) -> Tensor:
        """The log probability of codes `b h w` under the uniform prior of training, `b`: -n log K (section 3.2).

        Raises:
            ValueError: If `name` is not `codes`.
        """
        if name != "codes":
            raise ValueError(f"VectorQuantizer has a prior of its codes alone, none of {name!r}")
        each = -latent[0].numel() * math.log(len(self.codebook))
        return widened(self.codebook).new_full((len(latent),), each)

    @torch.no_grad()
    def update(self, step: Step) -> None:
        """Moves usage and, under `ema`, the codes by what this step has seen; revives dead codes; forgets the sums."""
        if not step.moves:
            return
        smoothed = self._smoothed_usage()
        self.usage.lerp_(self.counts, 1 - self.decay)
        if self.ema:
            moment = self.decay * smoothed * self.codebook + (1 - self.decay) * self.sums
            self.codebook.copy_(moment / self._smoothed_usage())
        if self.revive:
            self._revive_dead()
        self._forget()

    @torch.no_grad()
    def prepare(self, features: Iterable[Tensor], rng: Rng) -> None:
        """Starts the codes at k-means centres of a fair sample of the features' vectors.

        Raises:
            ValueError: If there are no features.
        """
        num_codes, channels = self.codebook.shape
        limit = max(num_codes, min(64 * num_codes, 2**16))
        priority, vectors = self.usage.new_empty(0), self.codebook.new_empty(0, channels)
        for index, h in enumerate(features):
            z = self._tokens(self._projected(h))
            drawn = rng.at(index).uniform("keep", _like(z)).flatten()
            priority, vectors = lowest(torch.cat([priority, drawn]), torch.cat([vectors, z.flatten(0, 1)]), limit)
        if not len(vectors):
            raise ValueError("VectorQuantizer expects features to start its codes from, got none")
        self.codebook.copy_(kmeans(vectors, self.codebook, rng))
        self.usage.fill_(1)
        self._forget()

    def _projected(self, h: Tensor) -> Tensor:
        z: Tensor = self.project(h)
        return z.to(self.codebook.dtype)  # autocast's bfloat16 ends here

    def _tokens(self, z: Tensor) -> Tensor:
        """`b c h w` as `b n c`."""
        return z.reshape(*z.shape[:2], -1).movedim(1, -1)

    def _codes(self, z: Tensor) -> Tensor:
        codes = nearest(self._tokens(z.detach()).flatten(0, 1), self.codebook.detach())
        return codes.view(len(z), *(z.shape[2:] or (1,)))

    def _embedded(self, codes: Tensor) -> Tensor:
        z_q = F.embedding(codes, self.codebook).movedim(-1, 1)
        return z_q.flatten(1) if self._vector else z_q

    def _smoothed_usage(self) -> Tensor:
        """Laplace-smoothed usage, `k 1`."""
        total = self.usage.sum()
        return ((self.usage + _TINY) / (total + len(self.usage) * _TINY) * total)[:, None]

    @torch.no_grad()
    def _observe(self, z: Tensor, codes: Tensor, rng: Rng) -> None:
        tokens, flat = self._tokens(z.detach()), codes.flatten()
        vectors = tokens.flatten(0, 1)
        self.counts.index_add_(0, flat, self.counts.new_ones(len(flat)))
        if self.ema:
            self.sums.index_add_(0, flat, vectors)
        if self.revive:
            drawn = rng.uniform("revive", _like(tokens)).flatten()
            merged = torch.cat([self.priority, drawn]), torch.cat([self.seen, vectors])
            priority, seen = lowest(*merged, len(self.seen))
            self.priority.copy_(priority)
            self.seen.copy_(seen)

    def _revive_dead(self) -> None:
        """Gives the i-th dead code the i-th vector kept, as far as there are any; its usage becomes the mean."""
        mean = self.usage.mean()
        dead = self.usage < self.revive * mean
        source = (dead.cumsum(0) - 1).clamp_min(0)
        dead &= self.priority[source] < _UNSEEN
        self.codebook.copy_(torch.where(dead[:, None], self.seen[source], self.codebook))
        self.usage.copy_(torch.where(dead, mean, self.usage))

    def _forget(self) -> None:
        self.counts.zero_()
        if self.ema:
            self.sums.zero_()
        if self.revive:
            self.priority.fill_(_UNSEEN)


def _straight_through(z: Tensor, z_q: Tensor) -> Tensor:
    """Exactly `z_q`, with the gradient of `z`."""
    return z_q.detach() + (z - z.detach())


def _like(tokens: Tensor) -> Tensor:
    """An empty float32 tensor with a place for each position, `b n`."""
    return torch.empty(tokens.shape[:2], dtype=torch.float32, device=tokens.device)
