r"""Lion: steps of equal size for all parameters, along the sign of an average of gradients.

    p -= lr (sign(b1 m + (1 - b1) g) + weight_decay p),    then  m = b2 m + (1 - b2) g

An optimizer takes the parameters and behaves like torch's optimizers: `step`, `zero_grad`, and a state that can be
saved (`modkit.kinds.Optimizer`). torch's base class provides everything but the step.
"""

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import nn

from modkit.types import NonNegativeFloat, Range, checked

__all__ = ["Lion"]


@checked
class Lion(torch.optim.Optimizer):
    """Lion, with the defaults of its authors except for the learning rate.

    References:
        Symbolic Discovery of Optimization Algorithms (Chen et al., 2023), algorithm 2, https://arxiv.org/abs/2302.06675

    Args:
        parameters: The parameters to optimize.
        lr: Learning rate, a third to a tenth of a rate for AdamW.
        betas: Weights of the average in the step and in its own update, each in [0, 1).
        weight_decay: Each step shrinks the parameters by the factor `1 - lr * weight_decay`.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: NonNegativeFloat = 3e-4,
        betas: list[Annotated[float, Range(0, below=1)]] = [0.9, 0.99],  # noqa: B006 - plain data, never modified
        weight_decay: NonNegativeFloat = 0.0,
    ) -> None:
        if len(betas) != 2:
            raise ValueError(f"Lion expects two betas, got {betas}")
        super().__init__(parameters, {"lr": lr, "betas": list(betas), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates the parameters that have a gradient."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["average"] = torch.zeros_like(parameter)
                average = state["average"]
                direction = average.lerp(parameter.grad, 1 - first).sign()
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])
                average.lerp_(parameter.grad, 1 - second)
