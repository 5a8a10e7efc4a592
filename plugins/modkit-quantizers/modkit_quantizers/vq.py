r"""Vector quantization by the library's `VectorQuantize`: each position becomes the nearest of the learned codes.

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

from modkit.bottlenecks.places import Tokens
from modkit.types import Event, NonNegativeFloat, PositiveInt, checked
from modkit_quantizers import moving
from modkit_quantizers.wrapped import Quantized

__all__ = ["VectorQuantizer"]


@checked
class VectorQuantizer(moving.Moving):
    """The nearest of `num_codes` learned codes at each position, by the library's `VectorQuantize`.

    Args:
        heads: Parts of the channels with a codebook each; codes are `heads h w` if there are several.
        diversity: Weight of the loss that raises the entropy of the codes used, by the rows that a process has of each
            microbatch.

    Raises:
        ValueError: If a number is out of its range, a choice is unknown, the features are a hierarchy or codes, heads
            do not divide channels, or `codebook: gradient` meets `distance: cosine` or `expire`.
    """

    def __init__(
        self,
        h: Event,
        *,
        num_codes: moving.NumCodes = 256,
        channels: moving.Channels = 4,
        heads: PositiveInt = 1,
        codebook: moving.Moved = "ema",
        distance: moving.Distance = "euclidean",
        gradient: moving.Gradient = "rotation",
        commitment: moving.Commitment = 1.0,
        diversity: NonNegativeFloat = 0.0,
        decay: moving.Decay = 0.8,
        expire: moving.Expire = 0.0,
        kmeans: moving.KMeans = True,
        tokens: Tokens = 8,
    ) -> None:
        chosen = moving.check_choices("VectorQuantizer", codebook, distance, gradient, commitment, decay, expire)
        if channels % heads:
            raise ValueError(f"VectorQuantizer expects heads that divide channels, got {heads} of {channels}")
        depth = heads if heads > 1 else None
        super().__init__(
            h,
            channels=channels,
            num_codes=num_codes,
            tokens=tokens,
            depth=depth,
            codebook=codebook,
            kmeans=kmeans,
        )
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

    def look_up(self, indices: Tensor) -> Tensor:
        """Returns the codes' vectors, `b n c`."""
        return self.quantizer.get_output_from_indices(indices)

    def _quantize(self, vectors: Tensor) -> Quantized:
        z_q, indices, _, parts = self.quantizer(vectors, freeze_codebook=self.averaged, return_loss_breakdown=True)
        losses = {"commitment": self.commitment * parts.commitment}
        if self.diversity:
            losses["diversity"] = self.diversity * parts.codebook_diversity
        return Quantized(z_q, indices, losses)

    def _make_blank_losses(self, vectors: Tensor) -> dict[str, Tensor]:
        names = ("commitment", "diversity") if self.diversity else ("commitment",)
        return {name: vectors.new_zeros(()) for name in names}
