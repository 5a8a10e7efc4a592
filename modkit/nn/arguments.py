"""The tensors among what a network is called with or returns: in lists, tuples, mappings and conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from modkit.types import Cond

__all__ = ["find_tensors", "map_tensors"]


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Returns a value with each of its tensors changed, and lists made tuples.

    Examples:
        >>> import torch
        >>> map_tensors([torch.zeros(2, 3), "nearest"], lambda tensor: tensor.shape)
        (torch.Size([2, 3]), 'nearest')
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return tuple(map_tensors(one, change) for one in value)
    if isinstance(value, Mapping):
        return {key: map_tensors(one, change) for key, one in value.items()}
    return value.map(change) if isinstance(value, Cond) else value


def find_tensors(value: Any) -> list[Tensor]:
    """Lists the tensors of a value, in order.

    Examples:
        >>> import torch
        >>> len(find_tensors((torch.zeros(2), Cond(time=torch.ones(2)), {"map": torch.ones(2)}, 3)))
        3
    """
    found: list[Tensor] = []
    map_tensors(value, found.append)
    return found
