"""Taps: the inner maps of a network, which are read and added to by name while it is evaluated.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping

from torch import Tensor, nn

from modkit.types import Cond, TensorType

__all__ = ["UNTAPPED", "Tapped", "Taps"]


class Taps:
    """What is read and added in one evaluation of a network.

    Args:
        owner: Name of the network, for error messages.
        names: The network's taps.
        read: Names of the maps to read, each with what is added to it.
        add: Maps to add, by name, `b c h w`.

    Raises:
        ValueError: If the network has no such tap.

    Examples:
        >>> import torch
        >>> taps = Taps("UNet", ["down.0", "down.1"], ["down.1"], {"down.0": torch.ones(1)})
        >>> taps("down.0", torch.zeros(1)), taps("down.1", torch.zeros(1)), taps.maps
        (tensor([1.]), tensor([0.]), {'down.1': tensor([0.])})
    """

    def __init__(self, owner: str, names: Iterable[str], read: Collection[str], add: Mapping[str, Tensor]) -> None:
        known = list(names)
        if unknown := [name for name in (*read, *add) if name not in known]:
            raise ValueError(f"{owner} expects taps among {', '.join(known)}, got {', '.join(unknown)}")
        self._read, self._add = read, add
        self.maps: dict[str, Tensor] = {}

    def __contains__(self, name: str) -> bool:
        """Whether something happens at a tap."""
        return name in self._read or name in self._add

    def __call__(self, name: str, h: Tensor) -> Tensor:
        """Returns the map with which the network goes on."""
        if name in self._add:
            h = h + self._add[name].to(h.dtype)
        if name in self._read:
            self.maps[name] = h
        return h


UNTAPPED = Taps("", (), (), {})
"""Nothing is read or added."""


class Tapped(nn.Module, ABC):
    """A network whose inner maps can be read and added to: a subclass names them, and passes them through `Taps`."""

    @property
    @abstractmethod
    def taps(self) -> Mapping[str, TensorType]:
        """Types of the inner maps, by name, in the order in which they are computed."""

    @abstractmethod
    def run(self, x: Tensor, cond: Cond, taps: Taps) -> Tensor:
        """Evaluates the network at `x`, `b c h w`, and passes its inner maps through `taps`."""

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size that its levels or patches allow.

        Raises:
            ValueError: If a condition of the type `cond` is missing, or the size does not fit.
        """
        return self.run(x, cond, UNTAPPED)

    def tap(
        self, x: Tensor, cond: Cond, read: Collection[str], add: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Evaluates the network, adding to inner maps; also returns those that are read.

        Args:
            x: The input, `b c h w`.
            cond: The conditions.
            read: Names of maps, among `taps`.
            add: What is added to maps, by name, `b c h w`.

        Raises:
            ValueError: If there is no such map, or a condition of the type `cond` is missing.
        """
        taps = Taps(type(self).__name__, self.taps, read, add)
        return self.run(x, cond, taps), taps.maps
