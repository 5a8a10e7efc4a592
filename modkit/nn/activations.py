"""The activations of a stack of layers: what it computes on its way, for those that compare features.

Shape letters: b batch, c channels.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

__all__ = ["collect_activations"]


def collect_activations(layers: Iterable[nn.Module], h: Tensor) -> tuple[Tensor, ...]:
    """Computes layers one by one, and returns the values after each activation, `b c ...`.

    An activation is a layer without parameters. The stack ends with one, so the last value is that of a call.

    Examples:
        >>> import torch
        >>> layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.ReLU())
        >>> [tuple(one.shape) for one in collect_activations(layers, torch.zeros(5, 3))]
        [(5, 4), (5, 2)]
    """
    found = []
    for layer in layers:
        h = layer(h)
        if next(layer.parameters(), None) is None:
            found.append(h)
    return tuple(found)
