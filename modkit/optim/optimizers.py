"""Optimizers: torch's, with plain keywords, in the fastest implementation that the parameters allow.

    Adam:   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g²;  p -= lr m_hat / (sqrt(v_hat) + eps)

The fused kernels also run on the CPU. Adam's takes about 0.3 times as long there as the other implementations, and the
results are bit-identical for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

import torch
from torch import nn

from modkit.kinds import Own
from modkit.optim.shards import is_shard
from modkit.types import Range, checked

__all__ = ["adam", "adamw", "rmsprop", "sgd"]

Parameters: TypeAlias = Iterable[nn.Parameter]
Rate: TypeAlias = Annotated[float, "Learning rate."]
OwnRate: TypeAlias = Annotated[float, "Learning rate, on a scale of its own: one that suits Adam rarely fits.", Own]
Betas: TypeAlias = Annotated[list[float], "Decays of the averages of gradients and of their squares, each in [0, 1)."]
Floor: TypeAlias = Annotated[float, "Floor of the denominator."]
Penalty: TypeAlias = Annotated[float, "L2 penalty, added to the gradient."]

# torch does not check that averages and updates do not grow without end
Decay: TypeAlias = Annotated[float, Range(0, below=1)]

_BETAS = [0.9, 0.999]  # never changed


def adam(
    parameters: Parameters, *, lr: Rate = 1e-3, betas: Betas = _BETAS, eps: Floor = 1e-8, weight_decay: Penalty = 0.0
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba, 2015, https://arxiv.org/abs/1412.6980), with torch's defaults.

    GANs are mostly trained with lr 2e-4 and betas [0.5, 0.999] (DCGAN).

    Raises:
        ValueError: If there are not two `betas`, or a number is out of range.

    Examples:
        >>> adam(nn.Linear(2, 1).parameters(), lr=2e-4, betas=[0.5, 0.999]).param_groups[0]["betas"]
        (0.5, 0.999)
    """
    moved, pair = list(parameters), _read_betas("adam", betas)
    return torch.optim.Adam(moved, lr, pair, eps=eps, weight_decay=weight_decay, fused=_can_fuse(moved) or None)


def adamw(
    parameters: Parameters, *, lr: Rate = 1e-3, betas: Betas = _BETAS, eps: Floor = 1e-8, weight_decay: float = 0.01
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101), with torch's defaults.

    Args:
        weight_decay: Parameters are scaled by `1 - lr * weight_decay` at each step, separately from the averages.

    Raises:
        ValueError: If there are not two `betas`, or a number is out of range.
    """
    moved, pair = list(parameters), _read_betas("adamw", betas)
    return torch.optim.AdamW(moved, lr, pair, eps=eps, weight_decay=weight_decay, fused=_can_fuse(moved) or None)


@checked
def sgd(
    parameters: Parameters,
    *,
    lr: OwnRate = 1e-2,
    momentum: Decay = 0.9,
    nesterov: bool = False,
    weight_decay: Penalty = 0.0,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum (Polyak, 1964): v = momentum v + g;  p -= lr v.

    Args:
        momentum: Share of the previous update that is kept, in [0, 1).
        nesterov: Whether to use Nesterov momentum; requires `momentum` above 0.

    Raises:
        ValueError: If a number is out of range.
    """
    moved = list(parameters)
    fused = _can_fuse(moved) and not any(map(is_shard, moved)) or None
    return torch.optim.SGD(moved, lr, momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)


@checked
def rmsprop(
    parameters: Parameters,
    *,
    lr: OwnRate = 3e-4,
    alpha: Decay = 0.99,
    eps: Floor = 1e-8,
    momentum: Decay = 0.0,
    weight_decay: Penalty = 0.0,
) -> torch.optim.Optimizer:
    """RMSprop (Hinton's lecture 6e): Adam without its averages of gradients and without correction of the first steps.

    The Wasserstein GAN was trained with lr 5e-5.

    Args:
        alpha: Decay of the average of squared gradients, in [0, 1).
        momentum: Share of the previous update that is kept, in [0, 1).

    Raises:
        ValueError: If a number is out of range.
    """
    return torch.optim.RMSprop(list(parameters), lr, alpha, eps, weight_decay, momentum, foreach=True)


def _read_betas(name: str, betas: list[float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise ValueError(f"{name} expects two betas, got {betas}")
    return betas[0], betas[1]


def _can_fuse(parameters: list[nn.Parameter]) -> bool:
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
