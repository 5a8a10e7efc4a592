"""Skeletons: networks without values, whose modules say which keys a checkpoint of the same configuration has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from modkit.building.limit import limit_modules

__all__ = ["build_skeleton"]

M = TypeVar("M", bound=nn.Module)


def build_skeleton(make: Callable[[], M]) -> M:
    """Builds a network on the meta device, of a configuration that may be anyone's: whatever its sizes, it stays small.

    Args:
        make: Builds it.

    Raises:
        ValueError: If it is refused, has too many modules, or has tensors that torch cannot have.

    Examples:
        >>> build_skeleton(lambda: nn.Linear(10**6, 10**6)).weight.is_meta
        True
    """
    with torch.device("meta"), limit_modules():
        try:
            return make()
        except (OverflowError, RuntimeError, TypeError) as error:  # of sizes that exceed torch's or Python's numbers
            raise ValueError(f"the network cannot be built: {error}") from error
