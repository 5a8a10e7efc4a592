"""Any optimizer of torch's, by the name of its class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["write_class", "make_optimizer"]

_UNFIT = ("LBFGS", "SparseAdam")  # one evaluates the loss itself, the other takes sparse gradients only


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    *,
    name: str = "AdamW",
    lr: float | None = None,
    arguments: dict[str, bool | int | float | str | list[float] | None] = {},  # noqa: B006 (never changed)
) -> torch.optim.Optimizer:
    """An optimizer of torch's, with torch's defaults: https://docs.pytorch.org/docs/stable/optim.html

    `adam`, `adamw`, `sgd` and `rmsprop` are parts of their own.

    Args:
        name: Its class in `torch.optim`, such as `NAdam`.
        lr: Learning rate; by default torch's.
        arguments: Its other keywords; a list stands for a tuple.

    Raises:
        ValueError: If torch has no such optimizer for dense gradients, or it refuses its keywords.

    Examples:
        >>> made = make_optimizer(nn.Linear(2, 1).parameters(), name="NAdam", lr=1e-3, arguments={"betas": [0.5, 0.9]})
        >>> made.defaults["betas"]
        (0.5, 0.9)
    """
    found: dict[str, Any] = {
        one.__name__: one
        for one in vars(torch.optim).values()
        if isinstance(one, type) and issubclass(one, torch.optim.Optimizer) and one is not torch.optim.Optimizer
    }
    known = sorted(found.keys() - set(_UNFIT))
    if name not in known:
        raise ValueError(f"torch's optimizer expects a name of {', '.join(known)}, got {name!r}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    given |= {} if lr is None else {"lr": lr}
    try:
        made: torch.optim.Optimizer = found[name](list(parameters), **given)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{name} expects keywords of torch.optim.{name}, got {given}: {error}") from error
    return made


def write_class(target: Any, keywords: Mapping[str, Any]) -> dict[str, Any] | None:
    """Writes a class of `torch.optim`, with keywords, as the part `torch`; None for what is no such class.

    Examples:
        >>> write_class(torch.optim.NAdam, {"lr": 0.1, "betas": (0.5, 0.9)})
        {'use': 'torch', 'name': 'NAdam', 'lr': 0.1, 'arguments': {'betas': [0.5, 0.9]}}
    """
    name = getattr(target, "__name__", "")
    if not isinstance(target, type) or getattr(torch.optim, name, None) is not target:
        return None
    rest = {key: list(value) if isinstance(value, tuple) else value for key, value in keywords.items() if key != "lr"}
    return {"use": "torch", "name": name, "lr": keywords.get("lr"), "arguments": rest}
