r"""Lookup-free quantisation: the code's bits are the signs of z, so that no codebook is kept or searched.

    z_q = sign(z),   k = sum_i 2^i [z_i > 0],   dz_q / dz = I (straight through)
    q(k | z) = softmax_k(-|z - e_k|^2 / tau) = prod_i q(bit_i | z_i),   q(bit_i = 1 | z_i) = sigmoid(4 z_i / tau)
    code_entropy = lambda (E H(q(k | z)) - gamma H(E q(k | z))),   commitment = beta |z - sg z_q|^2

The mean is over positions. The first entropy is a sum over bits since q is a product. The second is over all codes of
up to 8 bits; of more it is the sum over groups of 8, which bounds it from above, with equality where groups are
independent, so that no table of 2^n codes is built. It looks across a batch, and so depends on how that is split.

Shape letters: b batch, c bits, h w spatial (none, one, two or three sizes).

References:
    Language Model Beats Diffusion: Tokenizer is Key to Visual Generation (Yu et al., 2023), eq. 2-5,
    https://arxiv.org/abs/2310.05737
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.bottlenecks.mixed_radix import MixedRadix
from modkit.bottlenecks.pointwise import tokens
from modkit.bottlenecks.quantizer import Quantizer
from modkit.kinds import Step
from modkit.precision import widen
from modkit.types import Event, Latents

__all__ = ["LookupFreeQuantizer", "code_entropies"]

_GROUP = 8


class LookupFreeQuantizer(Quantizer):
    """One bit a channel: its sign, -1 or 1; a vector becomes one code.

    Args:
        bits: Number of channels; there are 2^bits codes.
        entropy: Weight lambda of the entropy loss, which wants each vector sure of its code and all codes used.
        diversity: Weight gamma of the second wish against the first.
        temperature: Temperature tau of the soft assignment of vectors to codes.
        commitment: Weight beta of the commitment loss.

    Raises:
        ValueError: If a number is out of its range, or the features are a hierarchy or codes.
    """

    def __init__(
        self,
        h: Event,
        *,
        bits: int = 8,
        entropy: float = 0.1,
        diversity: float = 1.0,
        temperature: float = 0.1,
        commitment: float = 0.25,
    ) -> None:
        if not 1 <= bits <= 30:
            raise ValueError(f"LookupFreeQuantizer expects bits in [1, 30], got {bits}")
        if min(entropy, diversity, commitment) < 0 or temperature <= 0:
            received = f"{entropy}, {diversity}, {commitment} and {temperature}"
            expected = "entropy, diversity and commitment of at least 0 and temperature above 0"
            raise ValueError(f"LookupFreeQuantizer expects {expected}, got {received}")
        super().__init__(h, channels=bits, num_codes=2**bits)
        self.radix = MixedRadix([2] * bits, rank=self._rank)
        self.entropy, self.diversity, self.temperature, self.commitment = entropy, diversity, temperature, commitment

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Codes `b h w`, z and its signs, both `b c h w`.

        Gradients of `quantized` pass to `continuous` unchanged. Losses are in float32 at least.
        """
        z = self.continuous(h)
        codes = self.encoded(z)
        z_q = self.embedded(codes)
        each, whole = code_entropies(4 * tokens(widen(z)) / self.temperature)
        losses = {
            "code_entropy": self.entropy * (each - self.diversity * whole),
            "commitment": self.commitment * F.mse_loss(z, z_q),
        }
        return self._latents(z, codes, z_q, losses)

    def encoded(self, z: Tensor) -> Tensor:
        """Codes `b h w`; the first channel is the least significant bit."""
        return self.radix.number((z > 0).to(torch.int64))

    def embedded(self, codes: Tensor) -> Tensor:
        """Signs `b c h w`."""
        return self.radix.digits(codes).to(next(self.project.parameters()).dtype) * 2 - 1


def code_entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The mean entropy of codes, and the entropy of their mean (the sum of its groups'), in nats.

    Args:
        logits: log q(bit = 1) - log q(bit = 0), `b n c`.
    """
    logits = logits.flatten(0, 1)
    each = (F.softplus(logits) - logits * torch.sigmoid(logits)).mean(0).sum()
    return each, torch.stack([_mean_entropy(group) for group in torch.split(logits, _GROUP, 1)]).sum()


def _mean_entropy(logits: Tensor) -> Tensor:
    """The entropy of the mean of q over the codes of these bits, from `n c`: no table has n 2^c entries."""
    upper, lower = (_over_codes(half) for half in logits.tensor_split(2, 1))
    kind = logits.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        mean: Tensor = upper.T @ lower / len(logits)
    tiny = torch.finfo(mean.dtype).tiny  # the logarithm of a code that is never used would be infinite
    entropy: Tensor = torch.special.entr(mean.clamp_min(tiny)).sum()
    return entropy


def _over_codes(logits: Tensor) -> Tensor:
    """The q of the codes of these bits, `n 2^c`, from `n c`."""
    q = logits.new_ones(len(logits), 1)
    for bit in logits.unbind(1):
        q = torch.cat([q * torch.sigmoid(-bit)[:, None], q * torch.sigmoid(bit)[:, None]], 1)
    return q
