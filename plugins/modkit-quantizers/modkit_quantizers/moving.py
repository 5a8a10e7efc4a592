r"""Codebooks that the library updates in its forward pass; here they are updated once per step, in the owner's turn.

    forward: codes of a frozen codebook; the vectors of the step's microbatches are stored
    update:  the library's own forward pass over those of all processes, in training, without gradients, updates the
             averages

So a step updates the codebook as one call of the bare class on the whole batch would, however the batch was split, at
the price of a second search of the codebook. A step that is skipped updates nothing. The library's random draws use the
step's rng.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import Codebook  # type: ignore[import-untyped, unused-ignore]

from modkit.bottlenecks.codebook import sample_vectors
from modkit.bottlenecks.pointwise import to_tokens
from modkit.kinds import Step
from modkit.rng import Rng
from modkit.types import Event, Latents, Range
from modkit_quantizers.wrapped import Quantized, Wrapped

__all__ = ["Channels", "Commitment", "Decay", "Distance", "Expire", "Gradient", "KMeans", "Moved", "Moving", "NumCodes"]
__all__ += ["check_choices"]

NumCodes = Annotated[int, "Number of codes of a codebook."]
Channels = Annotated[int, "Channels of z; a 1x1 convolution (a linear layer for vectors) maps the features to them."]
Moved = Annotated[
    Literal["ema", "gradient"],
    "What updates the codes: `ema`, moving averages of the vectors nearest to each; `gradient`, the commitment loss, "
    "which then pulls both ways.",
]
Distance = Annotated[Literal["euclidean", "cosine"], "With `cosine`, codes and vectors are on the unit sphere."]
Gradient = Annotated[
    Literal["straight-through", "rotation"],
    "How gradients pass: `straight-through`, unchanged; `rotation`, rotated and scaled as the vector is to become its "
    "code.",
]
Commitment = Annotated[float, "Weight of the commitment loss.", Range(0)]
Decay = Annotated[float, "Decay of the moving averages, in [0, 1).", Range(0, below=1)]
Expire = Annotated[
    float,
    "A code whose average count of vectors per step is below this is replaced by one of the step's; 0: never.",
    Range(0),
]
KMeans = Annotated[bool, "Whether the codes start at the k-means centres of encoded data."]

_SAMPLE = 2**16  # most vectors for k-means


class Moving(Wrapped):
    """A quantizer whose codebooks the library's moving averages update, or gradients.

    Args:
        h: Type of the features.
        channels: Channels of z.
        num_codes: Number of codes of a codebook.
        tokens: Number of codes of a vector.
        depth: Codes per position; with None one, without such an axis.
        codebook: What updates the codes.
        kmeans: Whether `prepare` initialises the codes at k-means centres.
    """

    def __init__(
        self,
        h: Event,
        *,
        channels: int,
        num_codes: int,
        tokens: int,
        depth: int | None,
        codebook: Moved,
        kmeans: bool,
    ) -> None:
        super().__init__(h, channels=channels, num_codes=num_codes, tokens=tokens, depth=depth)
        self.averaged, self.kmeans = codebook == "ema", kmeans
        self._limit = max(num_codes, min(64 * num_codes, _SAMPLE))
        self._kept: list[Tensor] = []
        self._index = -1  # the step of the vectors that are kept

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Computes codes, continuous and quantized vectors, both `b c h w`, and the library's losses.

        In training, in the owner's turn, the vectors are stored for `update`.
        """
        made = super().forward(h, step)
        if step is not None and step.training and self.training and self.averaged:
            z = made.values["continuous"]
            assert isinstance(z, Tensor)
            if step.index != self._index:  # the last one may have been skipped
                self._kept, self._index = [], step.index
            self._kept.append(to_tokens(self._places.split(z)).detach())
        return made

    def quantize(self, vectors: Tensor) -> Quantized:
        """Quantizes vectors `b n c` with frozen averages."""
        if vectors.is_meta:  # the library reads from a buffer whether k-means has been done
            codes = vectors.new_empty((*vectors.shape[:2], *([self.depth] if self.depth else [])), dtype=torch.int64)
            return Quantized(vectors.clone(), codes, self._make_blank_losses(vectors))
        return self._quantize(vectors)

    @torch.no_grad()
    def update(self, step: Step) -> None:
        """Updates the averages by the vectors of this step, of all processes."""
        if step.training and self._kept and step.index == self._index:
            vectors = step.gather(torch.cat(self._kept))
            self._kept.clear()
            with step.rng.seed_torch():
                self.quantizer(vectors)

    @torch.no_grad()
    def prepare(self, features: Iterable[Tensor], rng: Rng) -> None:
        """Initialises the codes by the library's k-means over a fair sample of the features' vectors.

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

    def _quantize(self, vectors: Tensor) -> Quantized:
        raise NotImplementedError

    def _make_blank_losses(self, vectors: Tensor) -> dict[str, Tensor]:
        return {"commitment": vectors.new_zeros(())}


def check_choices(
    owner: str, codebook: Moved, distance: Distance, gradient: Gradient, commitment: float, decay: float, expire: float
) -> dict[str, Any]:
    """Checks choices and returns the library's keywords for them.

    Raises:
        ValueError: If a choice is unknown, a number is out of its range, or the library cannot combine them.
    """
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
        "sync_codebook": False,  # `update` is given the vectors of all processes
    }
