"""Values of the model."""

import torch
from torch.distributions import Normal

from modkit import Batch, CondType, Rng, TensorType
from modkit.starters.model import Gaussian


def test_its_bound_is_its_log_density() -> None:
    """As torch.distributions has it."""
    model = Gaussian(TensorType((2, 3)), CondType(), std=0.5)
    x = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = Normal(0.0, 0.5).log_prob(x).flatten(1).sum(1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(model.bound(Batch(x, {}), 1, Rng(0)), expected)


def test_its_samples_have_its_moments() -> None:
    """To four standard errors, of 10,000."""
    model = Gaussian(TensorType((100,)), CondType(), std=0.5)
    with torch.no_grad():
        model.density.mean.fill_(2.0)
    x = model.sample(100, seed=0)
    assert isinstance(x, torch.Tensor)
    assert abs(float(x.mean()) - 2.0) < 4 * 0.5 / 100
    assert abs(float(x.std()) - 0.5) < 4 * 0.5 / (2 * 10_000) ** 0.5
