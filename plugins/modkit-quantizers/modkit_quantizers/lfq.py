r"""Lookup-free quantization by the library's `LFQ`: the code's bits are the signs of z.

    z_q = sign(z),   q(k | z) = softmax_k(2 z . e_k / tau)
    code_entropy = lambda (E H(q(k | z)) - gamma H(E q(k | z))),   commitment = beta |z - sg z_q|^2

In training each vector is compared with all 2^c codes. The second entropy is over the batch, and so depends on how that
is split: each process has that of its own rows, of which the library divides the mean by the number of processes, N. So
it counts 1/N as much. modkit's own `lfq` has that of the rows of all processes. If spherical (BSQ), z and codes have
length one.

Shape letters: b batch, c bits, h w spatial (none, one, two or three sizes), n positions, k codes.

References:
    Language Model Beats Diffusion: Tokenizer is Key to Visual Generation (Yu et al., 2023), eq. 2-5,
    https://arxiv.org/abs/2310.05737
    Image and Video Tokenization with Binary Spherical Quantization (Zhao et al., 2024), eq. 5-8,
    https://arxiv.org/abs/2406.07548
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor
from vector_quantize_pytorch import LFQ  # type: ignore[import-untyped, unused-ignore]

from modkit.bottlenecks.places import Tokens
from modkit.types import Event, NonNegativeFloat, PositiveFloat, Range, checked
from modkit_quantizers.wrapped import Quantized, Wrapped

__all__ = ["LookupFreeQuantizer"]


@checked
class LookupFreeQuantizer(Wrapped):
    """One bit a channel, its sign, by the library's `LFQ`; the first channel is the most significant bit.

    Args:
        bits: Number of channels; there are 2^bits codes.
        entropy: Weight of the entropy loss, which favours certain codes for each vector and the use of all codes.
        diversity: Weight of the use of all codes, relative to certain codes, by the rows that a process has of each
            microbatch; of N processes, 1/N of it counts.
        temperature: Temperature of the soft assignment of vectors to codes.
        commitment: Weight of the commitment loss.
        spherical: Whether vectors and codes have length one (BSQ).

    Raises:
        ValueError: If a number is out of its range, or the features are a hierarchy or codes.
    """

    def __init__(
        self,
        h: Event,
        *,
        bits: Annotated[int, Range(1, 18)] = 8,
        entropy: NonNegativeFloat = 0.1,
        diversity: NonNegativeFloat = 1.0,
        temperature: PositiveFloat = 0.01,
        commitment: NonNegativeFloat = 0.25,
        spherical: bool = False,
        tokens: Tokens = 8,
    ) -> None:
        super().__init__(h, channels=bits, num_codes=2**bits, tokens=tokens)
        self.entropy, self.diversity, self.temperature, self.commitment = entropy, diversity, temperature, commitment
        self.quantizer = LFQ(
            dim=bits,
            codebook_size=2**bits,
            entropy_loss_weight=entropy,
            diversity_gamma=diversity,
            commitment_loss_weight=commitment,
            spherical=spherical,
        )

    def quantize(self, vectors: Tensor) -> Quantized:
        """Returns signs `b n c` and their codes; the losses are computed in training only."""
        made, parts = self.quantizer(vectors, inv_temperature=1 / self.temperature, return_loss_breakdown=True)
        entropies = parts.per_sample_entropy - self.diversity * parts.batch_entropy
        losses = {"code_entropy": self.entropy * entropies, "commitment": self.commitment * parts.commitment}
        return Quantized(made.quantized, made.indices, losses)

    def look_up(self, indices: Tensor) -> Tensor:
        """Returns the signs `b n c` of codes."""
        return self.quantizer.indices_to_codes(indices)
