"""The engine under the training loop: where it runs, and on how many processes.

The loop talks to the `Engine` protocol alone, so that adding processes changes nothing above it. Here is the engine
of one process and one device.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from modkit.kinds import Optimizer

__all__ = ["LocalEngine"]


class LocalEngine:
    """One process on one device.

    Args:
        device: Name of the device; `auto` takes CUDA where there is one.

    Raises:
        ValueError: If the device is unknown or not there.
    """

    def __init__(self, device: str) -> None:
        self.rank = 0
        self.world = 1
        self.device = _device(device)

    def wrap(self, player: str, module: nn.Module) -> nn.Module:
        """The module itself."""
        return module

    def backward(self, loss: Tensor) -> None:
        """Accumulates gradients."""
        torch.autograd.backward(loss)

    def step(self, optimizer: Optimizer, max_norm: float | None) -> None:
        """Clips the gradient to `max_norm`, steps, and clears the gradients."""
        if max_norm is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def accumulate(self, module: nn.Module) -> AbstractContextManager[None]:
        """Nothing to hold back."""
        return nullcontext()

    def reduce(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def gather(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def barrier(self) -> None:
        """Nobody to wait for."""

    def close(self, error: BaseException | None) -> None:
        """Nothing to end."""


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"train.device expects a device that is there, got {name!r}: {error}") from error
    return device
