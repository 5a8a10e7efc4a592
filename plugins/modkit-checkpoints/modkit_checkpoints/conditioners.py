r"""Conditions of the authors' networks: a class as one token, as an id, and tokens that come as they are.

    class-token    context = E[label]           one token, and perhaps a row of E for no class
    class-id       labels = label               K for no class
    given-tokens   context = the field          of an encoder that is not part of the model; zeros for none

Shape letters: b batch, k classes, n tokens, d width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from modkit.conditioners.drawing import Examples, Frequencies
from modkit.conditioners.fields import Field, check_drop, find_field
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["ClassId", "ClassToken", "GivenTokens"]


class ClassToken(nn.Module):
    """A learned token for each class to attend to (latent diffusion's class embedder).

    Args:
        field: Name of the field of labels.
        width: Width of the token.
        none: Whether there is a token for no class, the last; if not, no class is zeros.
        drop: Probability with which a label is replaced by none in training, in [0, 1].

    Raises:
        ValueError: If the field is missing or is no label, `width` is below 1, or `drop` is no probability.
    """

    def __init__(
        self,
        fields: dict[str, TensorType],
        *,
        field: str = "labels",
        width: int = 128,
        none: bool = True,
        drop: float = 0.1,
    ) -> None:
        super().__init__()
        self.field = find_field(self, fields, field)
        self.classes = _classes(self.field)
        check_drop(self, drop)
        if width < 1:
            raise ValueError(f"ClassToken expects width >= 1, got {width}")
        self.drop = drop
        self.reads: tuple[str, ...] = (field,)
        self.type = CondType(context=(1, width))  # type: ignore[assignment, method-assign]  # the contract's name
        self.embedding = nn.Embedding(self.classes + none, width)
        self.counted = Frequencies(self.field)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Tokens `b 1 d` of labels `b` in [0, k); with an rng, each becomes none with probability `drop`.

        Raises:
            ValueError: If the field is missing or is not int64 `b`; outside training, on the CPU, if a label is out of
                range.
        """
        labels = self.field.read_checked(fields, self.training)
        return Cond(context=self._tokens(_dropped(labels, self.classes, self.drop, rng)))

    def null(self, num: int) -> Cond:
        """The token of no class, `num 1 d`."""
        none = torch.full((num,), self.classes, device=self.embedding.weight.device)
        return Cond(context=self._tokens(none))

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Labels drawn from the frequencies: uniform before `prepare`, then the data's."""
        return self.counted.draw(num, rng)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the labels of `batches`."""
        self.counted.prepare(batches)

    def _tokens(self, labels: Tensor) -> Tensor:
        num = self.embedding.num_embeddings
        tokens: Tensor = self.embedding(labels.clamp_max(num - 1))
        return torch.where((labels < num)[:, None], tokens, 0)[:, None]


class ClassId(nn.Module):
    """A label as it is, for networks that embed it themselves (ADM).

    Args:
        field: Name of the field of labels.
        drop: Probability with which a label is replaced by none in training, in [0, 1].

    Raises:
        ValueError: If the field is missing or is no label, or `drop` is no probability.
    """

    def __init__(self, fields: dict[str, TensorType], *, field: str = "labels", drop: float = 0.1) -> None:
        super().__init__()
        self.field = find_field(self, fields, field)
        self.classes = _classes(self.field)
        check_drop(self, drop)
        self.drop = drop
        self.reads: tuple[str, ...] = (field,)
        self.type = CondType(labels=self.classes)  # type: ignore[assignment, method-assign]  # the contract's name
        self.counted = Frequencies(self.field)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """Labels `b` in [0, k); with an rng, each becomes none, k, with probability `drop`.

        Raises:
            ValueError: If the field is missing or is not int64 `b`; outside training, on the CPU, if a label is out of
                range.
        """
        labels = self.field.read_checked(fields, self.training)
        return Cond(labels=_dropped(labels, self.classes, self.drop, rng))

    def null(self, num: int) -> Cond:
        """No class, `num`."""
        return Cond(labels=torch.full((num,), self.classes, device=self.counted.frequencies.device))

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """Labels drawn from the frequencies: uniform before `prepare`, then the data's."""
        return self.counted.draw(num, rng)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the labels of `batches`."""
        self.counted.prepare(batches)


class GivenTokens(nn.Module):
    """Tokens to attend to that the data bring: what a text encoder outside the model made of a caption.

    Args:
        field: Name of the field: tokens `n d`.
        drop: Probability with which a sample's tokens become zeros in training, in [0, 1].
        keep: Number of training samples whose tokens are kept, to be drawn where none are given; 0 draws none.

    Raises:
        ValueError: If the field is missing or holds no tokens, `drop` is no probability, or `keep` is negative.
    """

    def __init__(
        self, fields: dict[str, TensorType], *, field: str = "tokens", drop: float = 0.1, keep: int = 16
    ) -> None:
        super().__init__()
        self.field = find_field(self, fields, field)
        type = self.field.type
        if type.classes is not None or len(type.shape) != 2:
            raise ValueError(f"GivenTokens expects field {field!r} to hold continuous tokens (n, d), got {type}")
        check_drop(self, drop)
        self.drop = drop
        self.reads: tuple[str, ...] = (field,)
        self.type = CondType(context=(type.shape[0], type.shape[1]))  # type: ignore[assignment, method-assign]
        self.examples = Examples([self.field], keep)

    def forward(self, fields: Mapping[str, Tensor], rng: Rng | None) -> Cond:
        """The tokens `b n d`; with an rng, a row's become zeros with probability `drop`.

        Raises:
            ValueError: If the field is missing or has another type.
        """
        tokens = self.field.read(fields)
        if rng is not None and self.drop > 0:
            uniform = rng.uniform("drop", torch.empty(len(tokens), device=tokens.device))
            tokens = torch.where(uniform[:, None, None] < self.drop, 0, tokens)
        return Cond(context=tokens)

    def null(self, num: int) -> Cond:
        """Zeros, `num n d`."""
        return Cond(context=torch.zeros((num, *self.field.type.shape), device=self.examples.num.device))

    def draw(self, num: int, rng: Rng) -> dict[str, Tensor]:
        """The tokens of examples of the training data.

        Raises:
            ValueError: If none were kept: it names the field to give.
        """
        return self.examples.draw(num, rng)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Keeps the tokens of the first samples of `batches`."""
        self.examples.prepare(batches)


def _classes(field: Field) -> int:
    if field.type.classes is None or field.type.shape:
        raise ValueError(f"{field.owner} expects field {field.name!r} to be one class a sample, got {field.type}")
    return field.type.classes


def _dropped(labels: Tensor, none: int, drop: float, rng: Rng | None) -> Tensor:
    if rng is None or drop == 0:
        return labels
    uniform = rng.uniform("drop", torch.empty(labels.shape, device=labels.device))
    return torch.where(uniform < drop, none, labels)
