"""What the engine lets through."""

import pytest
import torch
from torch import nn

from modkit.starters.engine import Careful


def test_a_gradient_that_is_not_finite_moves_nothing_and_not_for_ever() -> None:
    """A finite one moves; the second NaN in a row is one too many; one between them would do."""
    p = nn.Parameter(torch.tensor([1.0]))
    optimizer, engine = torch.optim.SGD([p], lr=1.0), Careful("cpu", most=1)
    for gradient, place in ((1.0, 0.0), (torch.nan, 0.0), (1.0, -1.0), (torch.inf, -1.0)):
        p.grad = torch.tensor([gradient])
        engine.step(optimizer, None)
        assert p.item() == place
        assert p.grad is None
    p.grad = torch.tensor([torch.nan])
    with pytest.raises(ValueError, match="in one of 2 steps, got none"):
        engine.step(optimizer, None)
