r"""PacGAN: a discriminator that judges several samples at once, and so sees what they lack in variety.

    D(x_1, ..., x_m) = critic([x_1, ..., x_m]),   joined along channels

Samples that follow one another in a batch are a pack. Where the batch is no multiple of m, its first samples complete
the last pack: b samples have ceil(b / m) logits. Conditions of a pack are joined as well: maps along channels; times,
vectors, noise and labels of each sample are embedded, and the embeddings of a pack are one vector.

Shape letters: b batch, m samples of a pack, n packs, c channels.

References:
    PacGAN: The Power of Two Samples in Generative Adversarial Networks (Lin et al., 2018), section 3,
    https://arxiv.org/abs/1712.04086
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from modkit.kinds import Discriminator, DiscriminatorExtras, Slot, default, read_extras
from modkit.nn.embeddings import CondEmbedding
from modkit.types import Cond, CondType, Judgement, PositiveInt, TensorType, checked

__all__ = ["Packed"]


@checked
class Packed(nn.Module):
    """Joins samples to packs, which a discriminator judges.

    A penalty on the slope at single samples, such as R1, takes the slopes of a pack's logit at each of its samples.

    Args:
        x: Type of the data, continuous; a sample's first axis is its channels.
        cond: Type of the conditions; tokens are not supported. A map has channels.
        discriminator: Judges packs, whose type is that of x with `num` times the channels.
        num: Number m of samples of a pack; with 1, the discriminator is called as it is.
        width: Width of the embedding of a sample's conditions; unused without any.

    Raises:
        ValueError: If x is a scalar or holds codes, `cond` has a context or a map of codes, or a number is below 1.

    Examples:
        >>> from modkit import use
        >>> from modkit.models import GAN
        >>> critic = GAN(TensorType((2,)), discriminator=use("packed", num=2)).discriminator
        >>> critic(torch.zeros(5, 2), Cond()).shape
        torch.Size([3])
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        *,
        discriminator: Slot[Discriminator] = default("mlp"),
        num: PositiveInt = 2,
        width: PositiveInt = 32,
    ) -> None:
        super().__init__()
        if not x.shape or x.classes is not None:
            raise ValueError(f"Packed expects continuous x with channels, got {x}")
        self.num = self.pack = num
        self.embedding = CondEmbedding(cond if num > 1 else CondType(), width)
        self.discriminator = discriminator(x=_join_type(x, num), cond=self._join_types(cond, width))
        if read_extras(self.discriminator, DiscriminatorExtras).judge is None:
            self.judge = None  # type: ignore[assignment, method-assign]

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of the packs of `x`, `n` or, of patches, `n 1 h w`."""
        return self.discriminator(self._pack(x), self._pack_cond(cond, x))

    def judge(self, x: Tensor, cond: Cond) -> Judgement:
        """The discriminator's judgement of the packs of `x`; None in place of the method if it gives only logits."""
        judge = read_extras(self.discriminator, DiscriminatorExtras).judge
        assert judge is not None, "a part whose discriminator gives only logits has no `judge`"
        return judge(self._pack(x), self._pack_cond(cond, x))

    def _join_types(self, cond: CondType, width: int) -> CondType:
        """The type of a pack's conditions."""
        if self.num == 1:
            return cond
        if cond.context is not None or (cond.concat is not None and cond.concat.classes is not None):
            raise ValueError(f"Packed expects cond without context and maps of codes, got {cond}")
        return CondType(
            vector=self.num * width if self.embedding.embeds else None,
            concat=None if cond.concat is None else _join_type(cond.concat, self.num),
        )

    def _pack_cond(self, cond: Cond, x: Tensor) -> Cond:
        if self.num == 1:
            return cond
        return Cond(
            vector=self._pack(self.embedding(cond, x)) if self.embedding.embeds else None,
            concat=None if cond.concat is None else self._pack(cond.concat),
        )

    def _pack(self, x: Tensor) -> Tensor:
        """Joins samples, `b c ...`, to packs, `n (m c) ...`."""
        packs = -(-len(x) // self.num)
        index = torch.arange(packs * self.num, device=x.device) % len(x)
        return x[index].reshape(packs, self.num * x.shape[1], *x.shape[2:])


def _join_type(x: TensorType, num: int) -> TensorType:
    return replace(x, shape=(num * x.shape[0], *x.shape[1:]))
