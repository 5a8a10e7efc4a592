r"""SimVQ by the library's `SimVQ`: codes are random and fixed, under one learned linear map.

    e = W c,   c fixed,   k = argmin_k |z - e_k|,   z_q = e_k
    commitment = beta (|sg z - e_k|^2 + gamma |z - sg e_k|^2)

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions, k codes.

References:
    Addressing Representation Collapse in Vector Quantized Models with One Linear Layer (Zhu et al., 2024), algorithm 1,
    https://arxiv.org/abs/2411.02038
"""

from __future__ import annotations

from torch import Tensor
from vector_quantize_pytorch import SimVQ  # type: ignore[import-untyped, unused-ignore]

from modkit.bottlenecks.places import Tokens
from modkit.types import Event, NonNegativeFloat, checked
from modkit_quantizers.moving import Channels, Commitment, Gradient, NumCodes
from modkit_quantizers.wrapped import Quantized, Wrapped

__all__ = ["SimQuantizer"]


@checked
class SimQuantizer(Wrapped):
    """The nearest of `num_codes` random codes under one learned linear map, by the library's `SimVQ`.

    Args:
        pull: Weight of pulling vectors to their codes, relative to pulling codes to their vectors.

    Raises:
        ValueError: If a number is out of its range, `gradient` is unknown, or the features are a hierarchy or codes.
    """

    def __init__(
        self,
        h: Event,
        *,
        num_codes: NumCodes = 256,
        channels: Channels = 4,
        gradient: Gradient = "rotation",
        commitment: Commitment = 1.0,
        pull: NonNegativeFloat = 0.25,
        tokens: Tokens = 8,
    ) -> None:
        super().__init__(h, channels=channels, num_codes=num_codes, tokens=tokens)
        self.quantizer = SimVQ(
            dim=channels,
            codebook_size=num_codes,
            rotation_trick=gradient == "rotation",
            commitment_weight=commitment,
            input_to_quantize_commit_loss_weight=pull,
        )

    def quantize(self, vectors: Tensor) -> Quantized:
        """Returns the nearest codes and their vectors, `b n c`; in evaluation these are exact up to rounding."""
        z_q, indices, commitment = self.quantizer(vectors)
        return Quantized(z_q, indices, {"commitment": commitment})

    def look_up(self, indices: Tensor) -> Tensor:
        """Returns the codes' vectors, `b n c`."""
        return self.quantizer.indices_to_codes(indices)
