r"""Conditioners of the authors' networks: a class as one token or as an id, and tokens read from the data.

    class-token    context = E[label]           one token, and perhaps a row of E for no class
    class-id       labels = label               K for no class
    given-tokens   context = the field          from an encoder outside the model; zeros for no tokens

Shape letters: b batch, k classes, n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modkit.conditioners.drawing import Drawing, Examples, Frequencies
from modkit.conditioners.fields import find_field
from modkit.conditioners.label import Classes
from modkit.rng import Rng
from modkit.types import Cond, CondType, NonNegativeInt, PositiveInt, Share, TensorType, checked

__all__ = ["ClassId", "ClassToken", "GivenTokens"]


@checked
class ClassToken(Classes):
    """A learned token for each class to attend to (latent diffusion's class embedder).

    Args:
        field: Name of the field of labels.
        width: Width of the token.
        none: Whether there is a token for no class, the last; if not, no class is zeros.
        drop: Probability with which a label is replaced by none in training, in [0, 1].

    Raises:
        ValueError: If the field is missing or is not a label, `width` is below 1, or `drop` is not a probability.

    Examples:
        >>> token = ClassToken({"labels": TensorType((), classes=10)}, width=4)
        >>> token({"labels": torch.tensor([3, 7])}, None).context.shape
        torch.Size([2, 1, 4])
    """

    def __init__(
        self,
        fields: dict[str, TensorType],
        *,
        field: str = "labels",
        width: PositiveInt = 128,
        none: bool = True,
        drop: Share = 0.1,
    ) -> None:
        super().__init__(fields, field, drop)
        self.type = CondType(context=(1, width))  # type: ignore[assignment, method-assign]  # the contract's name
        self.embedding = nn.Embedding(self.classes + none, width)
        self.counted = Frequencies(self.field)

    def embed(self, labels: Tensor) -> Cond:
        """Embeds labels `b` as tokens `b 1 d`."""
        num = self.embedding.num_embeddings
        tokens: Tensor = self.embedding(labels.clamp_max(num - 1))
        return Cond(context=torch.where((labels < num)[:, None], tokens, 0)[:, None])


@checked
class ClassId(Classes):
    """A label as it is, for networks that embed it themselves (ADM).

    Args:
        field: Name of the field of labels.
        drop: Probability with which a label is replaced by none in training, in [0, 1].

    Raises:
        ValueError: If the field is missing or is not a label, or `drop` is not a probability.

    Examples:
        >>> ClassId({"labels": TensorType((), classes=10)}).null(2).labels
        tensor([10, 10])
    """

    def __init__(self, fields: dict[str, TensorType], *, field: str = "labels", drop: Share = 0.1) -> None:
        super().__init__(fields, field, drop)
        self.type = CondType(labels=self.classes)  # type: ignore[assignment, method-assign]  # the contract's name
        self.counted = Frequencies(self.field)

    def embed(self, labels: Tensor) -> Cond:
        """Returns labels `b` as they are."""
        return Cond(labels=labels)


@checked
class GivenTokens(Drawing):
    """Tokens to attend to that are part of the data, such as a caption's from a text encoder outside the model.

    Args:
        field: Name of the field: tokens `n d`.
        drop: Probability with which a sample's tokens become zeros in training, in [0, 1].
        keep: Number of training samples whose tokens are kept, to be drawn if none are given; with 0 none are drawn.

    Raises:
        ValueError: If the field is missing or holds no tokens, `drop` is not a probability, or `keep` is negative.

    Examples:
        >>> tokens = GivenTokens({"tokens": TensorType((5, 8))})
        >>> tokens({"tokens": torch.zeros(2, 5, 8)}, None).context.shape
        torch.Size([2, 5, 8])
    """

    def __init__(
        self, fields: dict[str, TensorType], *, field: str = "tokens", drop: Share = 0.1, keep: NonNegativeInt = 16
    ) -> None:
        super().__init__()
        self.field = find_field(self, fields, field)
        type = self.field.type
        if type.classes is not None or len(type.shape) != 2:
            raise ValueError(f"GivenTokens expects field {field!r} to hold continuous tokens (n, d), got {type}")
        self.drop = drop
        self.reads: tuple[str, ...] = (field,)
        self.type = CondType(context=(type.shape[0], type.shape[1]))  # type: ignore[assignment, method-assign]
        self.examples = Examples([self.field], keep)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Reads the tokens `b n d`; given an rng, a sample's become zeros with probability `drop`.

        Raises:
            ValueError: If the field is missing or has another type.
        """
        tokens = self.field.read(fields)
        if rng is not None and self.drop > 0:
            uniform = rng.uniform("drop", torch.empty(len(tokens), device=tokens.device))
            tokens = torch.where(uniform[:, None, None] < self.drop, 0, tokens)
        return Cond(context=tokens)

    def null(self, num: int) -> Cond:
        """Returns zeros, `num n d`."""
        return Cond(context=torch.zeros((num, *self.field.type.shape), device=self.examples.num.device))
