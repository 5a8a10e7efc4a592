"""The engine of one process and one device.

An engine runs the training loop on devices and processes. The loop depends on the `Engine` Protocol only, so it does
not change with the number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from modkit.engines.device import find_device
from modkit.engines.updates import update_parameters
from modkit.kinds import Optimizer

__all__ = ["LocalEngine"]


class LocalEngine:
    """An engine of one process on one device.

    Args:
        device: Name of the device; `auto` is CUDA if available, otherwise the CPU.

    Raises:
        ValueError: If the device is unknown or not available.

    Examples:
        >>> LocalEngine("cpu").device
        device(type='cpu')
    """

    def __init__(self, device: str) -> None:
        self.rank = 0
        self.world = 1
        self.device = find_device(device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # whose generator dropout draws from

    def wrap(self, player: str, losses: nn.Module, own: Sequence[nn.Parameter]) -> nn.Module:
        """Returns the module itself."""
        return losses

    def release(self, player: str, losses: nn.Module) -> None:
        """Does nothing."""

    def backward(self, loss: Tensor) -> None:
        """Accumulates the gradients of a loss."""
        torch.autograd.backward(loss)

    def step(self, optimizer: Optimizer) -> None:
        """Takes a step of the optimizer and clears the gradients."""
        update_parameters(optimizer)

    def accumulate(self, module: nn.Module) -> AbstractContextManager[None]:
        """Returns a context that does nothing: there is no other process."""
        return nullcontext()

    def join_weights(self) -> AbstractContextManager[None]:
        """Returns a context that does nothing: there is no other process."""
        return nullcontext()

    def reduce(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the values themselves."""
        return dict(values)

    def total(self, value: Tensor) -> Tensor:
        """Returns the value itself."""
        return value

    def gather(self, value: Tensor) -> Tensor:
        """Returns the value itself."""
        return value

    def agree(self, flag: bool) -> bool:
        """Returns the flag itself."""
        return flag

    def poll(self, flag: bool) -> bool:
        """Returns the flag itself."""
        return flag

    def barrier(self) -> None:
        """Does nothing: there is no other process."""

    def announce(self, place: str) -> None:
        """Does nothing: there is no other process."""

    def explain(self, error: BaseException) -> str | None:
        """Returns None: there is no other process."""
        return None

    def close(self, error: BaseException | None) -> None:
        """Does nothing."""
