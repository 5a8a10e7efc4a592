r"""Vector quantisation by the library's `VectorQuantize`: each position becomes the nearest of a set of learned codes.

    k = argmin_k |z - e_k|,   z_q = e_k
    commitment = beta |z - sg e_k|^2 (EMA), beta |z - e_k|^2 (gradient)
    diversity = -lambda H(E softmax_k(-100 |z - e_k|))

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions, k codes, q heads.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), eq. 1-3 and appendix A.1,
    https://arxiv.org/abs/1711.00937
    Restructuring Vector Quantization with the Rotation Trick (Fifty et al., 2024), section 4,
    https://arxiv.org/abs/2410.06424
"""

from __future__ import annotations

from torch import Tensor
from vector_quantize_pytorch import VectorQuantize  # type: ignore[import-untyped, unused-ignore]

from modkit.types import Event
from modkit_quantizers.moving import Distance, Gradient, Moved, Moving, checked
from modkit_quantizers.wrapped import Quantized, at_least

__all__ = ["VectorQuantizer"]


class VectorQuantizer(Moving):
    """The nearest of `num_codes` learned codes at each position, by the library's `VectorQuantize`.

    Args:
        num_codes: Number of codes.
        channels: Channels of z; a 1x1 convolution (a linear layer for vectors) maps the features to them.
        heads: Parts of the channels that have a codebook each; codes are `heads h w` where there are several.
        codebook: What moves the codes: `ema`, moving averages of the vectors nearest to each; `gradient`, the
            commitment loss, which then pulls both ways.
        distance: `euclidean`, or `cosine`: codes and vectors are on the unit sphere.
        gradient: How gradients pass: `straight-through`, unchanged; `rotation`, turned and scaled as the vector is
            to become its code.
        commitment: Weight of the commitment loss.
        diversity: Weight of the entropy of the codes used, which is to be high.
        decay: Decay of the moving averages, in [0, 1).
        expire: A code whose average count of vectors a step is below this is replaced by a vector of the step; 0:
            never.
        kmeans: Whether the codes start at k-means centres of encoded data.

    Raises:
        ValueError: If a number is out of its range, a choice is unknown, the features are a hierarchy or codes, heads
            do not divide channels, or `codebook: gradient` meets `distance: cosine` or `expire`.
    """

    def __init__(
        self,
        h: Event,
        *,
        num_codes: int = 256,
        channels: int = 4,
        heads: int = 1,
        codebook: Moved = "ema",
        distance: Distance = "euclidean",
        gradient: Gradient = "rotation",
        commitment: float = 1.0,
        diversity: float = 0.0,
        decay: float = 0.8,
        expire: float = 0.0,
        kmeans: bool = True,
    ) -> None:
        chosen = checked("VectorQuantizer", codebook, distance, gradient, commitment, decay, expire)
        at_least("VectorQuantizer", heads=(heads, 1), diversity=(diversity, 0))
        if channels % heads:
            raise ValueError(f"VectorQuantizer expects heads that divide channels, got {heads} of {channels}")
        depth = heads if heads > 1 else None
        super().__init__(h, channels=channels, num_codes=num_codes, depth=depth, codebook=codebook, kmeans=kmeans)
        self.commitment, self.diversity = commitment, diversity
        self.quantizer = VectorQuantize(
            dim=channels,
            codebook_size=num_codes,
            codebook_dim=channels // heads,
            heads=heads,
            separate_codebook_per_head=heads > 1,
            codebook_diversity_loss_weight=diversity,
            **chosen,
        )

    def decoded(self, indices: Tensor) -> Tensor:
        """Codes' vectors `b n c`."""
        z_q: Tensor = self.quantizer.get_output_from_indices(indices)
        return z_q

    def _frozen(self, vectors: Tensor) -> Quantized:
        z_q, indices, _, parts = self.quantizer(vectors, freeze_codebook=self.averaged, return_loss_breakdown=True)
        losses = {"commitment": self.commitment * parts.commitment}
        if self.diversity:
            losses["diversity"] = self.diversity * parts.codebook_diversity
        return Quantized(z_q, indices, losses)

    def _blank_losses(self, vectors: Tensor) -> dict[str, Tensor]:
        names = ("commitment", "diversity") if self.diversity else ("commitment",)
        return {name: vectors.new_zeros(()) for name in names}
