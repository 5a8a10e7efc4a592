"""The update of parameters, which every engine makes in the same way once their gradients are there."""

from __future__ import annotations

from torch import nn

from modkit.kinds import Optimizer

__all__ = ["list_parameters", "update_parameters"]


def list_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """Lists the parameters that an optimizer updates, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def update_parameters(optimizer: Optimizer) -> None:
    """Takes a step of the optimizer and clears the gradients.

    Examples:
        >>> import torch
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> update_parameters(torch.optim.SGD([weight], lr=1.0))
        >>> weight.data, weight.grad
        (tensor([-3., -4.]), None)
    """
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
