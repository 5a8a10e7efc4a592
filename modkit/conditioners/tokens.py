r"""Tokens to attend to: a small transformer over token ids, trained with the network that attends to them.

    h_0 = E[ids] + P                               all ids of a row become "none" (k) with probability `drop`
    h_i = h + MLP(LN(h)),  h = h_{i-1} + MHA(LN(h_{i-1}))
    tau(y) = LN(h_depth)

Shape letters: b batch, n tokens, k classes, d width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modkit.conditioners.drawing import Drawing, Examples, Frequencies
from modkit.conditioners.fields import find_field
from modkit.rng import Rng
from modkit.types import Cond, CondType, NonNegativeInt, PositiveInt, Share, TensorType, checked

__all__ = ["Tokens"]


@checked
class Tokens(Drawing):
    """A transformer encoder for a field of token ids, latent diffusion's tau for text; a label is one token.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3.3 and appendix
        E.2.1, https://arxiv.org/abs/2112.10752
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), algorithm 1, https://arxiv.org/abs/2207.12598

    Args:
        field: Name of the field: ids `n`, or one class per sample.
        width: Width of the emitted tokens.
        depth: Number of layers; with 0 the tokens are normalised embeddings.
        heads: Number of attention heads, a divisor of `width`.
        drop: Probability in [0, 1] with which all ids of a sample are replaced by "none" in training.
        keep: Number of training samples whose ids are stored, to be drawn when none are given; a label is drawn by its
            frequency.

    Raises:
        ValueError: If the field is missing or is not a sequence of ids, `heads` does not divide `width`, or a number is
            out of range.

    Examples:
        >>> tokens = Tokens({"caption": TensorType((5,), classes=100)}, field="caption", width=8, depth=1)
        >>> tokens({"caption": torch.zeros(2, 5, dtype=torch.int64)}, None).context.shape
        torch.Size([2, 5, 8])
    """

    source_name = "source"

    def __init__(
        self,
        fields: dict[str, TensorType],
        *,
        field: str = "labels",
        width: PositiveInt = 128,
        depth: NonNegativeInt = 2,
        heads: PositiveInt = 4,
        drop: Share = 0.1,
        keep: NonNegativeInt = 64,
    ) -> None:
        super().__init__()
        self.field = find_field(self, fields, field)
        shape, classes = self.field.type.shape, self.field.type.classes
        if classes is None or len(shape) > 1:
            raise ValueError(f"Tokens expects field {field!r} to be a sequence of token ids, got {fields[field]}")
        if width % heads:
            raise ValueError(f"Tokens expects width to be a multiple of heads, got width {width} and heads {heads}")
        self.classes, self.drop, self.num = classes, drop, shape[0] if shape else 1
        self.reads: tuple[str, ...] = (field,)
        self.type = CondType(context=(self.num, width))  # type: ignore[assignment, method-assign]  # the contract's name
        self.embedding = nn.Embedding(classes + 1, width)
        self.positions = nn.Parameter(0.02 * torch.randn(self.num, width))
        self.layers = nn.Sequential(*(_make_layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.source = Examples([self.field], keep) if shape else Frequencies(self.field)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Encodes ids in [0, k) as tokens `b n d`; given an rng, all ids of a row are dropped with probability `drop`.

        Raises:
            ValueError: If the field is missing or has another type, or, outside training on the CPU, if an id is out of
                range.
        """
        ids = self.field.read_checked(fields, self.training).reshape(-1, self.num)
        if rng is not None and self.drop > 0:
            uniform = rng.uniform("drop", torch.empty(len(ids), device=ids.device))
            ids = torch.where(uniform[:, None] < self.drop, self.classes, ids)
        return Cond(context=self._encode(ids))

    def null(self, num: int) -> Cond:
        """Encodes `num` rows of "none", `num n d`."""
        none = torch.full((1, self.num), self.classes, device=self.positions.device)
        return Cond(context=self._encode(none).expand(num, -1, -1))

    def _encode(self, ids: Tensor) -> Tensor:
        return self.norm(self.layers(self.embedding(ids) + self.positions))


def _make_layer(width: int, heads: int) -> nn.Module:
    """Creates a layer of a pre-norm transformer."""
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
