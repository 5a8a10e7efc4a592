"""Networks made of functions and modules of tensors.

    network(x, cond) = function(x)    or    function(x, cond.time)

Shape letters: b batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from modkit.types import Cond

__all__ = ["from_callable"]


def from_callable(function: Callable[..., Tensor], takes: Sequence[str] | None = None) -> nn.Module:
    """Makes a network, generator or critic of a function or module that takes tensors.

    Args:
        function: The function or module: an `nn.Sequential`, a lambda of x and t.
        takes: The conditions that it is given after x, in this order, by their names in `modkit.Cond`: `("time",
            "labels")`. By default, the time if it takes a second argument. The time is the schedule's, `b`.

    Returns:
        The network, with the parameters of the module.

    Raises:
        ValueError: If it is called without one of the conditions.

    Examples:
        >>> import torch
        >>> network = from_callable(lambda x, t: x * t[:, None])
        >>> network(torch.ones(2, 1), Cond(time=torch.tensor([1.0, 2.0]))).flatten()
        tensor([1., 2.])
        >>> from_callable(nn.Sequential(nn.Linear(3, 2)))(torch.zeros(5, 3), Cond()).shape
        torch.Size([5, 2])
    """
    if takes is None:
        takes = ("time",) if _count_arguments(function) > 1 else ()
    return _Called(function, tuple(takes))


class _Called(nn.Module):
    def __init__(self, function: Callable[..., Tensor], takes: tuple[str, ...]) -> None:
        super().__init__()
        self.function, self.takes = function, takes

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        given = cond.list_entries()
        if missing := [name for name in self.takes if name not in given]:
            received = ", ".join(given) or "none"
            raise ValueError(f"the function expects {missing[0]} among its conditions, got {received}")
        return self.function(x, *(given[name] for name in self.takes))


def _count_arguments(function: Callable[..., Tensor]) -> int:
    """Counts the arguments that must be given by position."""
    called = function.forward if isinstance(function, nn.Module) else function
    found = inspect.signature(called).parameters.values()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in by_position and one.default is one.empty for one in found)
