"""Values of the guidance."""

import pytest
import torch
from torch import Tensor

from modkit import Denoised
from modkit.starters.guidance import Interval


@pytest.mark.parametrize(("t", "expected"), [(0.1, 1.0), (0.5, 3.0 * 1.0 - 2.0 * 0.5), (0.9, 1.0)])
def test_it_guides_within_the_interval_alone(t: float, expected: float) -> None:
    """Of predictions 1 and 1/2 at scale 3."""

    def predicting(value: float) -> object:
        return lambda x_t, t: Denoised(torch.full_like(x_t, value))

    guided = Interval(scale=3.0)(predicting(1.0), predicting(0.5))  # type: ignore[arg-type]
    x_0: Tensor = guided(torch.zeros(2, 3), torch.tensor(t, dtype=torch.float64)).x_0
    torch.testing.assert_close(x_0, torch.full((2, 3), expected))
