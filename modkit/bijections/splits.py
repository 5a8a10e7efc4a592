"""Splits: which values a coupling keeps, and which it changes given those.

    halves          the first or the second half of the channels
    checkerboard    every second position, in all channels; every second value of a vector

A split by channels is exact for a network, which is given only the kept channels; the positions of a checkerboard stay
a map, in which the values to change are zero.

References:
    Density Estimation Using Real NVP (Dinh et al., 2017), section 3.4, https://arxiv.org/abs/1605.08803

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from modkit.types import TensorType

__all__ = ["Checkerboard", "Halves"]


class Halves(nn.Module):
    """Keeps one half of the channels.

    Args:
        x: Type of x, of two or more channels.
        first: Whether the first half is kept.

    Examples:
        >>> split = Halves(TensorType((3,)), first=True)
        >>> x = torch.arange(3.0)[None]
        >>> split.keep(x), split.merge(x, -split.select(x))
        (tensor([[0.]]), tensor([[ 0., -1., -2.]]))
    """

    def __init__(self, x: TensorType, *, first: bool) -> None:
        super().__init__()
        middle = x.shape[0] // 2
        self.head, self.tail, self.first = (0, middle), (middle, x.shape[0] - middle), first
        halves = [replace(x, shape=(size, *x.shape[1:]), range=None) for _, size in (self.head, self.tail)]
        self.kept, self.changed = halves if first else halves[::-1]

    def keep(self, x: Tensor) -> Tensor:
        """Returns what the network is given."""
        return x.narrow(1, *(self.head if self.first else self.tail))

    def select(self, x: Tensor) -> Tensor:
        """Returns the values that are changed, of type `changed`."""
        return x.narrow(1, *(self.tail if self.first else self.head))

    def merge(self, x: Tensor, changed: Tensor) -> Tensor:
        """Returns x with other values in the place of those that are changed."""
        kept = self.keep(x).to(changed.dtype)
        return torch.cat([kept, changed] if self.first else [changed, kept], dim=1)


class Checkerboard(nn.Module):
    """Keeps the positions whose indices have an even sum, or the others.

    Args:
        x: Type of x.
        even: Whether those of an even sum are kept.

    Examples:
        >>> split = Checkerboard(TensorType((1, 2, 2)), even=True)
        >>> split.keep(torch.ones(1, 1, 2, 2))[0, 0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    changes: Tensor

    def __init__(self, x: TensorType, *, even: bool) -> None:
        super().__init__()
        self.kept = self.changed = replace(x, range=None)
        size = x.shape[1:] or x.shape
        places = torch.meshgrid(*(torch.arange(one) for one in size), indexing="ij")
        odd = torch.stack(places).sum(0) % 2
        self.register_buffer("changes", odd.bool() if even else ~odd.bool(), persistent=False)

    def keep(self, x: Tensor) -> Tensor:
        """Returns what the network is given: x with zeros in the place of what is changed."""
        return x.masked_fill(self.changes, 0.0)

    def select(self, x: Tensor) -> Tensor:
        """Returns x, of which `merge` takes what is changed."""
        return x

    def merge(self, x: Tensor, changed: Tensor) -> Tensor:
        """Returns x with other values in the place of those that are changed."""
        return torch.where(self.changes, changed, x.to(changed.dtype))
