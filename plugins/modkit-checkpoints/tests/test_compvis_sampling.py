import math

import pytest
import torch
from modkit_checkpoints.compvis_sampling import AuthorsDDIM, ScaledLinear

from modkit import Denoised, Rng, TensorType
from modkit.diffusion.schedules import EDM

X = TensorType((1, 2))


def test_the_roots_of_the_variances_rise_linearly():
    schedule = ScaledLinear(num=5, beta_start=0.01, beta_end=0.25)
    torch.testing.assert_close(schedule.betas, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64) ** 2)
    kept = math.prod(1 - (i / 10) ** 2 for i in range(1, 4))
    alpha, sigma = schedule.scales(torch.tensor([3 / 5], dtype=torch.float64))
    torch.testing.assert_close(torch.cat([alpha**2, sigma**2]), torch.tensor([kept, 1 - kept], dtype=torch.float64))
    torch.testing.assert_close(schedule.time(sigma / alpha), torch.tensor([0.6], dtype=torch.float64))


def test_the_table_of_the_published_models():
    betas = [(0.0015**0.5 + i / 999 * (0.0195**0.5 - 0.0015**0.5)) ** 2 for i in range(1000)]
    log_kept = math.fsum(math.log1p(-beta) for beta in betas)
    assert float(ScaledLinear().alphas_cumprod[-1]) == pytest.approx(math.exp(log_kept), rel=1e-12)


@pytest.mark.parametrize("options", [{"num": 0}, {"beta_start": 0.0}, {"beta_end": 1.0}])
def test_a_table_that_is_none_is_refused(options):
    with pytest.raises(
        ValueError, match=r"ScaledLinear expects (num to be in \[1, 100000\]|beta_\w+ to be in \(0, 1\))"
    ):
        ScaledLinear(**options)


def test_the_grid_is_theirs():
    times = AuthorsDDIM(ScaledLinear(), X, steps=50).times()
    torch.testing.assert_close(times[:-1] * 1000 - 1, torch.arange(981, 0, -20, dtype=torch.float64))
    assert times[-1] == 0
    assert len(AuthorsDDIM(ScaledLinear(num=10), X, steps=4).times()) == 6  # strides of 2: 1, 3, 5, 7, 9


@pytest.mark.parametrize(
    ("steps", "eta", "message"),
    [
        (0, 0.0, r"steps in \[1, n\] on a table of n, got 0 on 1000"),
        (1001, 0.0, r"steps in \[1, n\] on a table of n, got 1001 on 1000"),
        (1000, 0.0, "steps whose indices end before 1000, got 1000"),
        (333, 0.0, "steps whose indices end before 1000, got 333"),
        (50, 1.5, r"eta to be in \[0, 1\], got 1.5"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(steps, eta, message):
    with pytest.raises(ValueError, match=f"AuthorsDDIM expects {message}"):
        AuthorsDDIM(ScaledLinear(), X, steps=steps, eta=eta)
    with pytest.raises(ValueError, match="on a table of n, got 50 on None"):
        AuthorsDDIM(EDM(), X)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_step_is_their_formula_and_the_last_one_ends_at_the_first_index(eta):
    schedule = ScaledLinear(num=100)
    sampler = AuthorsDDIM(schedule, X, steps=10, eta=eta)
    ac = schedule.alphas_cumprod
    x, e = torch.randn(3, 1, 2, dtype=torch.float64), torch.randn(3, 1, 2, dtype=torch.float64)
    times = sampler.times()
    assert torch.equal(sampler.start(x, times[0]), x)
    for index, at in ((4, 41), (9, 91), (0, 1)):  # step of their ascending list, and its index in the table
        now, then = ac[at], ac[max(at - 10, 0)]
        sigma = eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
        x_0 = (x - (1 - now).sqrt() * e) / now.sqrt()
        noise = Rng(0).normal("eps", x)
        expected = then.sqrt() * x_0 + (1 - then - sigma**2).sqrt() * e + sigma * noise
        place = 9 - index
        stepped, _ = sampler.step(lambda *_, x_0=x_0: Denoised(x_0), x, times[place], times[place + 1], None, Rng(0))
        torch.testing.assert_close(stepped, expected)
