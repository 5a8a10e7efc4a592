import pytest
import torch

from modkit.diffusion.loss_weights import MinSNR, Simple
from modkit.diffusion.parametrizations import EDM, X0, Eps, V
from modkit.diffusion.schedules import EDM as EDMSchedule
from modkit.diffusion.schedules import Cosine, Flow, Linear

T = torch.linspace(0.001, 1, 200, dtype=torch.float64)


@pytest.mark.parametrize(
    "schedule", [Linear(), Cosine(), EDMSchedule(), Flow()], ids=["linear", "cosine", "edm", "flow"]
)
def test_min_snr_takes_the_published_form_for_each_target(schedule):
    alpha, sigma = schedule.scales(T)
    snr = (alpha / sigma) ** 2
    capped = torch.minimum(snr, torch.tensor(5.0))
    for parametrization, expected in ((X0, capped), (Eps, capped / snr), (V, capped / (snr + 1))):
        part = parametrization(schedule)
        weight = MinSNR()(snr, part.error_scale(part.coefficients(T, (alpha, sigma))))
        assert weight.dtype == torch.float64
        torch.testing.assert_close(weight, expected, rtol=1e-11, atol=0)


def test_min_snr_against_edms_target_is_on_x_0_as_well():
    schedule, gamma, d = EDMSchedule(), 3.0, 0.5
    sigma = 80 * T
    expected = torch.minimum(sigma**-2, torch.tensor(gamma)) * (sigma * d) ** 2 / (sigma**2 + d**2)
    part = EDM(schedule, sigma_data=d)
    weight = MinSNR(gamma=gamma)(sigma**-2, part.error_scale(part.coefficients(T, schedule.scales(T))))
    torch.testing.assert_close(weight, expected, rtol=1e-12, atol=0)


def test_simple_is_one_in_float64():
    assert torch.equal(Simple()(T, T), torch.ones_like(T))


def test_gamma_must_be_positive():
    with pytest.raises(ValueError, match="MinSNR expects gamma to be above 0, got 0"):
        MinSNR(gamma=0)
