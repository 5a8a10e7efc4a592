"""Values of the likelihood."""

import torch
from torch.distributions import Normal

from modkit import Rng, TensorType
from modkit.starters.likelihood import FixedGaussian


def test_its_nll_is_the_gaussian_s() -> None:
    """As torch.distributions has it, summed over a sample."""
    x, out = torch.randn(2, 3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = -Normal(out, 0.2).log_prob(x).flatten(1).sum(1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(FixedGaussian(TensorType((1, 4, 4)), std=0.2).nll(out, x), expected)


def test_its_draws_are_as_wide_as_it_says() -> None:
    """To four standard errors, of 10,000."""
    sample = FixedGaussian(TensorType((100,)), std=0.2).sample(torch.zeros(100, 100), Rng(0))
    assert abs(float(sample.std()) - 0.2) < 4 * 0.2 / (2 * 10_000) ** 0.5
