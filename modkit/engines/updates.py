"""The update of parameters, which every engine makes in the same way once their gradients are there."""

from __future__ import annotations

from torch import nn

from modkit.kinds import Optimizer

__all__ = ["list_parameters", "update_parameters"]


def list_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """Lists the parameters that an optimizer updates, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def update_parameters(optimizer: Optimizer, max_norm: float | None) -> None:
    """Clips the gradients to `max_norm`, takes a step of the optimizer and clears the gradients.

    Examples:
        >>> import torch
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> weight.grad = torch.tensor([3.0, 4.0])
        >>> update_parameters(torch.optim.SGD([weight], lr=1.0), max_norm=1.0)
        >>> weight.data, weight.grad
        (tensor([-0.6000, -0.8000]), None)
    """
    if max_norm is not None:
        nn.utils.clip_grad_norm_(list_parameters(optimizer), max_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
