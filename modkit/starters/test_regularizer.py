"""Values of the penalty."""

import torch
from torch import Tensor

from modkit import Cond
from modkit.starters.regularizer import Lipschitz


def test_a_linear_critic_pays_by_its_slope() -> None:
    """A slope of norm 5 pays weight (5 - 1)^2; one of 1/2 pays nothing."""
    slope = torch.tensor([3.0, 4.0])

    def critic(scale: float) -> object:
        def logits(x: Tensor, cond: Cond) -> Tensor:
            return scale * (x @ slope)

        return logits

    x = torch.ones(3, 2)
    torch.testing.assert_close(Lipschitz(weight=2.0)(critic(1.0), x, Cond()), torch.tensor(32.0))  # type: ignore[arg-type]
    torch.testing.assert_close(Lipschitz(weight=2.0)(critic(0.1), x, Cond()), torch.tensor(0.0))  # type: ignore[arg-type]
