import copy
import math
import pickle

import pytest
import torch

from modkit.diffusion.schedules import EDM, VP, Cosine, Even, Flow, Linear, Table, find_noise_range, scale_levels
from modkit.types import TensorType
from tests.refusals import refusals

F64 = torch.float64
SCHEDULES = {
    "linear": Linear(),
    "cosine": Cosine(),
    "edm": EDM(),
    "vp": VP(),
    "flow": Flow(),
    "short": Linear(num=4, beta_start=0.1, beta_end=0.9),
    "even": Even(VP(beta_min=1.0, beta_max=1.0, t_min=0.0), 4),
}


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]


@pytest.mark.smoke
def test_linear_table_holds_the_published_values():
    linear = Linear()
    expected = [0.9999, 0.999780092072, 0.0785872428818, 4.11819363814e-5, 4.03582976538e-5]
    got = linear.alphas_cumprod[[0, 1, 499, 998, 999]].tolist()
    assert got == pytest.approx(expected, rel=1e-11)
    assert linear.alphas_cumprod.dtype == linear.betas.dtype == F64


def test_cosine_table_holds_the_published_values():
    cosine = Cosine()
    expected = [4.12842248e-5, 4.61417527e-5, 3.14588623e-3, 0.999]
    assert cosine.betas[[0, 1, 499, 999]].tolist() == pytest.approx(expected, rel=2e-9)
    assert float(cosine.alphas_cumprod[499]) == pytest.approx(0.49384359, rel=1e-8)


@pytest.mark.parametrize("num", [20, 50, 100, 400, 4000])
def test_linear_tables_of_any_length_end_where_no_signal_is_left(num):
    """The variances add up to 10.05, or more where the last is clipped, so that ac is at most e^-10.05."""
    betas = Linear(num=num).betas
    assert betas[0] == 0.1 / num and betas[-1] == min(20 / num, 0.999)
    assert betas.sum() == pytest.approx(10.05, rel=1e-3) and Linear(num=num).alphas_cumprod[-1] < 5e-5
    assert torch.equal(Linear().betas, torch.linspace(1e-4, 2e-2, 1000, dtype=F64))


@pytest.mark.parametrize("name", ["linear", "cosine", "short"])
def test_scales_are_the_tables_at_its_indices(name):
    table = SCHEDULES[name]
    num = len(table.betas)
    alpha, sigma = table.scales((torch.arange(num, dtype=F64) + 1) / num)
    ac = torch.cumprod(1 - table.betas, 0)
    torch.testing.assert_close(alpha, ac.sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(sigma, (1 - ac).sqrt(), rtol=1e-11, atol=0)
    torch.testing.assert_close(table.alphas_cumprod, ac, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_between_indices_log_alphas_cumprod_is_linear(name):
    table = SCHEDULES[name]
    log_ac = table.alphas_cumprod.log()
    alpha, sigma = table.scales(torch.tensor([0.25, 10.25, 999.75], dtype=F64) / 1000)
    expected = [0.25 * log_ac[0], 0.75 * log_ac[9] + 0.25 * log_ac[10], 0.25 * log_ac[998] + 0.75 * log_ac[999]]
    assert (2 * alpha.log()).tolist() == pytest.approx([float(e) for e in expected], rel=1e-10)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(3, dtype=F64), rtol=1e-14, atol=0)


def test_time_zero_is_clean(schedule):
    alpha, sigma = schedule.scales(torch.zeros((), dtype=F64))
    assert (float(alpha), float(sigma)) == (1.0, 0.0)


def test_edm_scales():
    alpha, sigma = EDM(sigma_max=50.0).scales(torch.tensor([0.5, 1.0, 1.5]))
    assert alpha.tolist() == [1, 1, 1] and sigma.tolist() == [25, 50, 75] and sigma.dtype == F64


def test_flow_is_a_line_whose_level_is_the_odds_of_its_time():
    t = torch.tensor([0.25, 0.5, 0.9], dtype=F64)
    alpha, sigma = Flow().scales(t)
    assert alpha.tolist() == pytest.approx([0.75, 0.5, 0.1], rel=1e-15) and torch.equal(sigma, t)
    assert Flow().time(torch.tensor([1 / 3, 1.0, 9.0], dtype=F64)).tolist() == pytest.approx(t.tolist(), rel=1e-15)
    levels = torch.exp(-1 + 0.5 * torch.linspace(-3, 3, 7, dtype=F64))
    assert torch.allclose(torch.logit(Flow().time(levels)), levels.log(), rtol=1e-12)


def test_flow_keeps_a_signal_below_what_float32_holds():
    alpha, sigma = Flow().scales(torch.tensor([1.0, 1 - 1e-9, 0.999], dtype=F64))
    assert alpha.tolist() == [2.0**-24, 2.0**-24, pytest.approx(1e-3, rel=1e-12)]
    assert float((alpha[0] * 1.0 + sigma[0]).float()) == 1.0
    assert (sigma / alpha).log().isfinite().all()
    assert Flow().time(torch.tensor([2.0**24, 1e12, math.inf], dtype=F64)).tolist() == [1, 1, 1]


def test_vp_is_the_integral_of_its_rate_divided_by_the_value_at_its_start():
    t = torch.linspace(0, 1.2, 7, dtype=F64)
    u = 0.01 + 0.99 * t
    ac = torch.exp(-0.5 * u**2 * (12 - 0.5) - 0.5 * u) / math.exp(-0.5 * 0.01**2 * (12 - 0.5) - 0.5 * 0.01)
    alpha, sigma = VP(beta_min=0.5, beta_max=12.0, t_min=0.01).scales(t)
    torch.testing.assert_close(alpha, ac.sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(sigma[1:], (1 - ac[1:]).sqrt(), rtol=1e-12, atol=0)


def test_even_times_of_a_schedule_are_a_table_of_its_own_scales():
    even, t = Even(EDM(), 3), torch.arange(4, dtype=F64) / 3
    assert even.num == 3 and even.scales(t)[1].tolist() == EDM().scales(t)[1].tolist()
    assert even.time(torch.tensor(40.0)).item() == 0.5
    assert find_noise_range(even) == pytest.approx((80 / 3, 80.0), rel=1e-14)


def test_time_inverts_scales(schedule):
    t = torch.cat([torch.tensor([1e-7, 1e-5, 3e-4], dtype=F64), torch.linspace(0.001, 1, 997, dtype=F64)])
    alpha, sigma = schedule.scales(t)
    torch.testing.assert_close(schedule.time(sigma / alpha), t, rtol=1e-9, atol=1e-14)
    assert (sigma / alpha).diff().min() > 0


def test_time_is_clamped_to_a_table_and_may_exceed_1_without_one():
    assert SCHEDULES["linear"].time(torch.tensor([0.0, 1e6, math.inf], dtype=F64)).tolist() == [0, 1, 1]
    assert EDM().time(torch.tensor(160.0)).item() == 2


def test_scales_keep_shape_and_device_and_accept_float32(schedule):
    t = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    alpha, sigma = schedule.scales(t)
    assert alpha.shape == sigma.shape == t.shape and alpha.dtype == sigma.dtype == F64
    torch.testing.assert_close(schedule.scales(t.double())[1], sigma, rtol=0, atol=0)
    meta = torch.empty(3, device="meta")
    assert schedule.scales(meta)[0].device == schedule.time(meta).device == meta.device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scales_on_cuda_equal_those_on_the_cpu(schedule):
    t = torch.linspace(0, 1, 101, dtype=F64)
    for got, expected in zip(schedule.scales(t.cuda()), schedule.scales(t), strict=True):
        assert got.is_cuda
        torch.testing.assert_close(got.cpu(), expected, rtol=1e-12, atol=1e-14)
    alpha, sigma = schedule.scales(t[1:].cuda())
    torch.testing.assert_close(schedule.time(sigma / alpha).cpu(), t[1:], rtol=1e-9, atol=1e-12)


def test_the_table_is_copied_to_a_device_once():
    table = Linear()
    table.scales(torch.empty((), device="meta"))
    first = table._knots[torch.device("meta")]
    table.scales(torch.empty((), device="meta"))
    assert table._knots[torch.device("meta")] is first


def test_copies_and_pickles_agree(schedule):
    t = torch.linspace(0, 1, 7, dtype=F64)
    for other in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert torch.equal(other.scales(t)[1], schedule.scales(t)[1])


def test_find_noise_range():
    low, high = find_noise_range(Linear())
    ac = Linear().alphas_cumprod
    assert low == pytest.approx(math.sqrt(1e-4 / 0.9999)) and high == pytest.approx(float((1 / ac[-1] - 1).sqrt()))
    assert find_noise_range(EDM(sigma_min=0.01, sigma_max=10.0)) == (0.01, 10.0)
    assert find_noise_range(Flow(sigma_min=0.01, sigma_max=10.0)) == (0.01, 10.0)
    alpha, sigma = VP().scales(torch.ones((), dtype=F64))
    assert find_noise_range(VP()) == (0.002, float(sigma / alpha))


def test_find_noise_range_of_a_schedule_that_states_no_levels():
    class Bare:
        num = None

        def scales(self, t):
            return torch.cos(1.5 * t), torch.sin(1.5 * t)

        def time(self, sigma):
            return torch.atan(sigma) / 1.5

    low, high = find_noise_range(Bare())
    assert low == 0.002 and high == pytest.approx(math.tan(1.5))


test_errors_name_what_was_expected_and_received = refusals(
    (lambda: Linear(num=0), "Linear expects num to be in \\[1, 100000\\], got 0"),
    (lambda: Cosine(num=-1), "Cosine expects num to be in \\[1, 100000\\], got -1"),
    (lambda: Linear(beta_end=1.0, num=2), r"Linear expects a list of betas in \(0, 1\), got 2 from 0.05 to 1$"),
    (lambda: Table(torch.zeros(0)), r"Table expects a list of betas in \(0, 1\), got \[\]"),
    (lambda: EDM(sigma_min=2.0, sigma_max=1.0), "EDM expects 0 < sigma_min < sigma_max, got 2.0 and 1.0"),
    (lambda: Flow(sigma_min=0.0), "Flow expects 0 < sigma_min < sigma_max < 2\\^24, got 0.0 and 80.0"),
    (lambda: Flow(sigma_max=2.0**24), "Flow expects 0 < sigma_min < sigma_max < 2\\^24, got 0.002 and 16777216.0"),
    (lambda: VP(beta_min=2.0, beta_max=1.0), "VP expects 0 < beta_min <= beta_max, got 2.0 and 1.0"),
    (lambda: VP(t_min=1.0), r"VP expects t_min to be in \[0, 1\), got 1.0"),
    (lambda: Even(VP(), 0), r"Even expects num to be in \[1, 100000\], got 0"),
)


def test_vp_at_four_even_times_is_the_denoising_gans_chain():
    alpha, _ = VP().scales(torch.arange(5, dtype=F64) / 4)
    betas = 1 - (alpha[1:] / alpha[:-1]) ** 2
    assert betas.tolist() == pytest.approx([0.478255303, 0.849206004, 0.956417709, 0.987403901], abs=5e-10)


UNIT, UNKNOWN = TensorType((4, 2, 2), std=1.0), TensorType((4, 2, 2))


@pytest.mark.parametrize("make", [EDM, Flow])
def test_levels_are_in_units_of_the_data_s_deviation_where_none_are_given(make):
    assert find_noise_range(make(UNIT)) == scale_levels(UNIT) == (0.004, 160.0)
    assert find_noise_range(make()) == find_noise_range(make(UNKNOWN)) == (0.002, 80.0)  # to the bit
    assert find_noise_range(make(TensorType((2,), std=0.5))) == (0.002, 80.0)
    assert find_noise_range(make(UNIT, sigma_min=0.01, sigma_max=50.0)) == (0.01, 50.0)
    assert find_noise_range(make(UNIT, sigma_min=0.01)) == (0.01, 160.0)
