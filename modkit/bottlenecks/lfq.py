r"""Lookup-free quantisation: a code's bits are the signs of z, so there is no codebook to store or search.

    z_q = sign(z),   k = sum_i 2^i [z_i > 0],   dz_q / dz = I (straight through)
    q(k | z) = softmax_k(-|z - e_k|^2 / tau) = prod_i q(bit_i | z_i),   q(bit_i = 1 | z_i) = sigmoid(4 z_i / tau)
    code_entropy = lambda (E H(q(k | z)) - gamma H(E q(k | z))),   commitment = beta |z - sg z_q|^2

E is the mean over the positions of the whole batch. The first entropy is a sum over bits, since q is a product. The
second is over all codes for up to 8 bits. For more bits it is replaced by the sum over groups of 8 bits, an upper bound
that is tight if the groups are independent, so that no table of 2^n codes is needed. It depends on the whole batch, and
so on how a batch is split into microbatches, though not into processes.

Shape letters: b batch, c bits, h w spatial (one, two or three sizes).

References:
    Language Model Beats Diffusion: Tokenizer is Key to Visual Generation (Yu et al., 2023), eq. 2-5,
    https://arxiv.org/abs/2310.05737
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from modkit.bottlenecks.mixed_radix import MixedRadix
from modkit.bottlenecks.places import Tokens
from modkit.bottlenecks.pointwise import to_tokens
from modkit.bottlenecks.quantizer import Quantizer
from modkit.kinds import Step
from modkit.precision import disable_autocast, widen
from modkit.types import Event, Latents, NonNegativeFloat, PositiveFloat, Range, checked

__all__ = ["LookupFreeQuantizer", "compute_code_entropies"]

_GROUP = 8


@checked
@checked
class LookupFreeQuantizer(Quantizer):
    """Quantises each channel to its sign, -1 or 1; each position becomes one code, a vector several.

    Args:
        bits: Number of channels; there are 2^bits codes.
        entropy: Weight lambda of the entropy loss, which favours confident assignments and the use of all codes.
        diversity: Weight gamma of the use of all codes relative to confident assignments.
        temperature: Temperature tau of the soft assignment of vectors to codes.
        commitment: Weight beta of the commitment loss.

    Raises:
        ValueError: If a number is out of its range, or the features are a hierarchy or codes.

    Examples:
        >>> from modkit.types import TensorType
        >>> bottleneck = LookupFreeQuantizer(TensorType((8, 4, 4)), bits=6)
        >>> latents = bottleneck(torch.zeros(2, 8, 4, 4), None)
        >>> latents.values["codes"].shape, sorted(latents.losses)
        (torch.Size([2, 4, 4]), ['code_entropy', 'commitment'])
    """

    across, gather = True, True

    def __init__(
        self,
        h: Event,
        *,
        bits: Annotated[int, Range(1, 30)] = 8,
        entropy: NonNegativeFloat = 0.1,
        diversity: NonNegativeFloat = 1.0,
        temperature: PositiveFloat = 0.1,
        commitment: NonNegativeFloat = 0.25,
        tokens: Tokens = 8,
    ) -> None:
        super().__init__(h, channels=bits, num_codes=2**bits, tokens=tokens)
        self.radix = MixedRadix([2] * bits, rank=len(self._places.size))
        self.entropy, self.diversity, self.temperature, self.commitment = entropy, diversity, temperature, commitment

    def forward(self, h: Tensor, step: Step | None) -> Latents:
        """Computes codes `b h w`, z and its signs, both `b c h w`, and the losses.

        Gradients of `quantized` pass to `continuous` unchanged. Losses are computed in at least float32.
        """
        z = self.to_continuous(h)
        codes = self.encode(z)
        z_q = self.embed(codes)
        each, whole = compute_code_entropies(4 * to_tokens(widen(z)) / self.temperature, step)
        losses = {
            "code_entropy": self.entropy * (each - self.diversity * whole),
            "commitment": self.commitment * F.mse_loss(z, z_q),
        }
        return self._make_latents(z, codes, z_q, losses)

    def encode(self, z: Tensor) -> Tensor:
        """Computes the codes `b h w`; the first channel is the least significant bit."""
        return self.radix.to_number((z > 0).to(torch.int64))

    def embed(self, codes: Tensor) -> Tensor:
        """Looks up the signs `b c h w` of codes."""
        return self.radix.to_digits(codes).to(next(self.project.parameters()).dtype) * 2 - 1


def compute_code_entropies(logits: Tensor, step: Step | None = None) -> tuple[Tensor, Tensor]:
    """Computes the mean entropy of the codes and the entropy of their mean (the sum over groups), in nats.

    Args:
        logits: log q(bit = 1) - log q(bit = 0), `b n c`.
        step: The step of training, of which the second mean covers the rows of all processes.

    Examples:
        >>> compute_code_entropies(torch.tensor([[[200.0], [-200.0]]]))
        (tensor(0.), tensor(0.6931))
    """
    logits = rearrange(logits, "b n c -> (b n) c")
    each = (F.softplus(logits) - logits * torch.sigmoid(logits)).mean(0).sum()
    return each, torch.stack([_compute_mean_entropy(group, step) for group in torch.split(logits, _GROUP, 1)]).sum()


def _compute_mean_entropy(logits: Tensor, step: Step | None) -> Tensor:
    """Computes the entropy of the mean of q over the codes of these bits, from `n c`, without n 2^c values."""
    upper, lower = (_expand_bits(half) for half in logits.tensor_split(2, 1))
    with disable_autocast(logits.device):
        mean: Tensor = upper.T @ lower / len(logits)
        if step is not None and step.training:
            mean = step.total(mean) / step.world
    tiny = torch.finfo(mean.dtype).tiny  # avoids the infinite gradient at a code that is never used
    return torch.special.entr(mean.clamp_min(tiny)).sum()


def _expand_bits(logits: Tensor) -> Tensor:
    """Computes q of all codes of these bits, `n 2^c`, from `n c`."""
    q = logits.new_ones(len(logits), 1)
    for bit in logits.unbind(1):
        q = torch.cat([q * torch.sigmoid(-bit)[:, None], q * torch.sigmoid(bit)[:, None]], 1)
    return q
