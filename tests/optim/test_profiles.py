import math

import numpy as np
import pytest
import torch
from torch import nn

from modkit.optim.averages import Averages
from modkit.optim.ema import Average
from modkit.optim.profiles import Exponential, Power, Trace, compute_product, fit_profile
from modkit.specs.settings import PowerAverage
from tests.refusals import check_refusal

STD = (0.01, 0.05, 0.1, 0.2, 0.28)


def integrate(values: np.ndarray, t: np.ndarray) -> float:
    """The integral over times, by trapezoids."""
    return float(((values[1:] + values[:-1]) / 2 * np.diff(t)).sum())


def evaluate(trace: Trace, t: np.ndarray) -> np.ndarray:
    """The density of a power function at times t."""
    gamma, n = trace.profile.gamma, trace.updates
    return np.where(t <= n, (gamma + 1) * (t / n) ** gamma / n, 0.0)


def count(trace: Trace, num: int) -> np.ndarray:
    """How much the weights after each of `num` steps count for, by the recursion of averages."""
    shares = np.zeros(num)
    for n in range(1, trace.updates + 1):
        beta = trace.profile(n)
        shares *= beta
        shares[n - 1] += 1 - beta
    return shares


@pytest.mark.parametrize("std", STD)
def test_width_and_exponent_by_brute_force(std):
    """The deviation of t / n under the density, integrated; and of all exponents, none other has it."""
    profile = Power(std)
    t = np.linspace(0, 1, 200_001)
    density = evaluate(Trace(profile, 1), t)
    mean = integrate(density * t, t)
    assert integrate(density, t) == pytest.approx(1, rel=1e-5)
    assert math.sqrt(integrate(density * (t - mean) ** 2, t)) == pytest.approx(std, rel=1e-4)
    gammas = np.linspace(0, 150, 1_500_001)
    widths = np.sqrt((gammas + 1) / ((gammas + 2) ** 2 * (gammas + 3)))
    assert gammas[np.abs(widths - std).argmin()] == pytest.approx(profile.gamma, abs=1e-4)
    assert (np.diff(widths) < 0).all()


def test_exponents_of_the_paper():
    """EDM2's table of widths: .05 and .10 are gamma 16.97 and 6.94."""
    assert [round(Power(std).gamma, 2) for std in (0.05, 0.1)] == [16.97, 6.94]
    for std in (0, 0.2887, -1):
        check_refusal(r"Power expects std to be in \(0, 0.2887\), got", Power, std)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_no_share_is_refused(decay):
    check_refusal(rf"Exponential expects decay to be (finite and )?in \[0, 1\), got {decay}", Exponential, decay)


def test_inner_products_equal_numerical_integration():
    traces = [Trace(Power(std), n) for std in (0.03, 0.25) for n in (40, 100)]
    t = np.linspace(0, 100, 200_001)
    for a in traces:
        for b in traces:
            least = t <= min(a.updates, b.updates)
            product = integrate((evaluate(a, t) * evaluate(b, t))[least], t[least])
            assert compute_product(a, b) == pytest.approx(product, rel=1e-4)


@pytest.mark.parametrize("profile", [Power(0.05), Power(0.2), Exponential(0.95)])
def test_an_average_counts_weights_by_its_profile(profile):
    model = nn.ModuleDict({"a": nn.Linear(3, 2, bias=False)}).double()
    average, made = Average(model, ["a"], profile), []
    start = model["a"].weight.detach().clone()
    for _ in range(60):
        with torch.no_grad():
            made.append(model["a"].weight.normal_().clone())
        average.update()
    shares = count(Trace(profile, 60), 60)
    expected = sum(share * value for share, value in zip(shares, made)) + (1 - shares.sum()) * start
    torch.testing.assert_close(average.state_dict()["a.weight"], expected, rtol=1e-12, atol=1e-12)
    if isinstance(profile, Power):  # the integrals of the density over steps; nothing is left of the start
        bounds = (np.arange(61) / 60) ** (profile.gamma + 1)
        np.testing.assert_allclose(shares, np.diff(bounds), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("std", [0.06, 0.08, 0.12])
def test_a_profile_is_fitted_by_kept_ones_as_well_as_it_says(std):
    kept = [Trace(Power(width), n) for n in range(20, 1001, 20) for width in (0.05, 0.1)]
    wanted = Trace(Power(std), 1000)
    fit = fit_profile(kept, wanted)
    expected = count(wanted, 1000)
    made = sum(share * count(one, 1000) for share, one in zip(fit.coefficients, kept))
    assert sum(fit.coefficients) == pytest.approx(1, abs=1e-12) and np.abs(fit.coefficients).sum() < 2
    assert fit.error < 5e-4
    assert np.linalg.norm(made - expected) / np.linalg.norm(expected) == pytest.approx(fit.error, rel=0.05)


def test_no_other_coefficients_that_sum_to_one_fit_better():
    kept = [Trace(Power(width), n) for n in (50, 80, 100) for width in (0.05, 0.1)]
    wanted, t = Trace(Power(0.15), 100), np.linspace(0, 100, 20_001)
    found = np.array(fit_profile(kept, wanted).coefficients)
    densities = np.stack([evaluate(one, t) for one in kept])
    errors = []
    for scale in (0.0, *[1e-2] * 50):
        move = np.random.default_rng(len(errors)).normal(size=6) * scale
        lacks = evaluate(wanted, t) - (found + move - move.mean()) @ densities
        errors.append(integrate(lacks**2, t))
    assert errors[0] == min(errors)


def test_averages_are_what_a_stage_keeps():
    model = nn.ModuleDict({"net": nn.Linear(2, 1)})
    assert not Averages(model, ["net"], 0.0).state_dict()
    assert not Averages(model, ["net"], 0.9).kept and not Averages(model, ["net"], PowerAverage()).kept
    averages = Averages(model, ["net"], PowerAverage(std=0.2, every=3))
    assert list(averages.state_dict()) == ["ema", "ema-0.05", "ema-0.1"] and averages.every == 3
    for _ in range(5):
        with torch.no_grad():
            model["net"].weight.add_(1)
        averages.update()
    assert averages.updates == 5 and averages.widths == {"ema-0.05": 0.05, "ema-0.1": 0.1}
    for name, kept in averages.kept.items():
        assert all(torch.equal(kept[key], value) for key, value in averages.state_dict()[name].items())
    live, used = model["net"].weight.clone(), averages.state_dict()["ema"]["net.weight"].clone()
    with averages.apply():
        assert torch.equal(model["net"].weight, used)
        assert not torch.equal(model["net"].weight, live)
    assert torch.equal(model["net"].weight, live)
