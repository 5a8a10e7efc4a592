r"""Codebooks that the library moves in its forward, moved in the owner's turn, once a step.

    forward: codes of a frozen codebook, the vectors of the step's microbatches kept
    update:  the library's own forward over all of them, in train mode, without gradients: the averages move

So a step moves the codebook as one call of the bare class on the whole batch would, however it was split. The price is
a second search of the codebook a step. What the library draws, it draws under the rng of the step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import Codebook  # type: ignore[import-untyped, unused-ignore]

from modkit.bottlenecks.codebook import sample_vectors
from modkit.bottlenecks.pointwise import to_tokens
from modkit.kinds import Step
from modkit.rng import Rng
from modkit.types import Event, Latents
from modkit_quantizers.wrapped import Quantized, Wrapped, at_least

__all__ = ["Distance", "Gradient", "Moved", "Moving", "checked"]

Moved = Literal["ema", "gradient"]
Distance = Literal["euclidean", "cosine"]
Gradient = Literal["straight-through", "rotation"]

_SAMPLE = 2**16  # vectors that k-means is given at most


class Moving(Wrapped):
    """A quantizer whose codebooks the library's moving averages move, or gradients.

    Args:
        h: Type of the features.
        channels: Channels of z.
        num_codes: Number of codes of a codebook.
        depth: Codes a position; None: one, and no such axis.
        codebook: What moves the codes.
        kmeans: Whether `prepare` starts the codes at k-means centres.
    """

    def __init__(
        self, h: Event, *, channels: int, num_codes: int, depth: int | None, codebook: Moved, kmeans: bool
    ) -> None:
        super().__init__(h, channels=channels, num_codes=num_codes, depth=depth)
        self.averaged, self.kmeans = codebook == "ema", kmeans
        self._limit = max(num_codes, min(64 * num_codes, _SAMPLE))
        self._kept: list[Tensor] = []

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Codes, the vectors before them and the quantised ones, both `b c h w`, and the library's losses.

        The vectors are kept for `update` in the owner's turn in training only.
        """
        made = super().forward(h, step)
        if step is not None and step.training and self.training and self.averaged:
            z = made.values["continuous"]
            assert isinstance(z, Tensor)
            self._kept.append(to_tokens(z).detach())
        return made

    def quantized(self, vectors: Tensor) -> Quantized:
        """What the library makes of vectors `b n c`, its averages frozen."""
        if vectors.is_meta:  # the library asks a buffer whether k-means has been done
            codes = vectors.new_empty((*vectors.shape[:2], *([self.depth] if self.depth else [])), dtype=torch.int64)
            return Quantized(vectors.clone(), codes, self._blank_losses(vectors))
        return self._frozen(vectors)

    @torch.no_grad()
    def update(self, step: Step) -> None:
        """Moves the averages by what this step has seen."""
        if step.training and self._kept:
            vectors = torch.cat(self._kept)
            self._kept.clear()
            with step.rng.seed_torch():
                self.quantizer(vectors)

    @torch.no_grad()
    def prepare(self, features: Iterable[Tensor], rng: Rng) -> None:
        """Starts the codes by the library's k-means over a fair sample of the features' vectors.

        Raises:
            ValueError: If there are no features.
        """
        if not self.kmeans:
            return
        vectors = sample_vectors((to_tokens(self.to_continuous(h)) for h in features), self._limit, rng)
        if not len(vectors):
            raise ValueError(f"{type(self).__name__} expects features to initialise its codes from, got none")
        for module in self.quantizer.modules():
            if isinstance(module, Codebook):
                module.initted.fill_(False)
        with rng.seed_torch():
            self.quantizer(vectors[None])

    def _frozen(self, vectors: Tensor) -> Quantized:
        raise NotImplementedError

    def _blank_losses(self, vectors: Tensor) -> dict[str, Tensor]:
        return {"commitment": vectors.new_zeros(())}


def checked(
    owner: str, codebook: Moved, distance: Distance, gradient: Gradient, commitment: float, decay: float, expire: float
) -> dict[str, Any]:
    """The library's keywords of choices that are checked.

    Raises:
        ValueError: If a choice is unknown, a number is out of its range, or the library cannot combine them.
    """
    for name, value, choices in (
        ("codebook", codebook, ("ema", "gradient")),
        ("distance", distance, ("euclidean", "cosine")),
        ("gradient", gradient, ("straight-through", "rotation")),
    ):
        if value not in choices:
            raise ValueError(f"{owner} expects {name} {choices[0]!r} or {choices[1]!r}, got {value!r}")
    at_least(owner, commitment=(commitment, 0), expire=(expire, 0))
    if not 0 <= decay < 1:
        raise ValueError(f"{owner} expects decay in [0, 1), got {decay}")
    if codebook == "gradient" and (distance == "cosine" or expire):
        got = f"distance {distance!r}, expire {expire}"
        raise ValueError(f"{owner} expects distance 'euclidean' and expire 0 with codebook 'gradient', got {got}")
    return {
        "ema_update": codebook == "ema",
        "learnable_codebook": codebook == "gradient",
        "use_cosine_sim": distance == "cosine",
        "rotation_trick": gradient == "rotation",
        "commitment_weight": commitment,
        "decay": decay,
        "threshold_ema_dead_code": expire,
    }
