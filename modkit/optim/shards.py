"""Tensors that are divided among processes: the part here, and the whole.

A shard is one of torch's DTensors. The modules that it is not imported for see it by its method `to_local`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["gather_whole", "get_local", "is_shard"]


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is divided among processes.

    Examples:
        >>> is_shard(torch.zeros(2))
        False
    """
    return hasattr(tensor, "to_local")


@torch.no_grad()
def get_local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Returns the parts of tensors that this process holds, as views; a whole tensor is returned as it is."""
    return [tensor.to_local() if is_shard(tensor) else tensor for tensor in tensors]  # type: ignore[attr-defined]


@torch.no_grad()
def gather_whole(tensor: Tensor) -> Tensor:
    """Returns the whole of a tensor that may be divided; every process must call it."""
    return tensor.detach().full_tensor() if is_shard(tensor) else tensor  # type: ignore[attr-defined]
