import math

import pytest
import torch

from modkit.diffusion import schedules
from modkit.diffusion.gaussian import add_noise, broadcast, posterior
from modkit.diffusion.parametrizations import EDM, X0, Eps, EpsLearned, Flow, V
from modkit.rng import Rng
from modkit.samplers import ddim_step
from modkit.types import TensorType

F64 = torch.float64
SCHEDULES = {
    "linear": schedules.Linear(),
    "cosine": schedules.Cosine(),
    "edm": schedules.EDM(),
    "flow": schedules.Flow(),
}
CLASSES = {"eps": Eps, "x0": X0, "v": V, "edm": EDM, "flow": Flow}
T = torch.tensor([0.001, 0.05, 0.3, 0.7, 0.95, 1.0], dtype=F64)


@pytest.fixture(params=[f"{p} {s}" for p in CLASSES for s in SCHEDULES])
def pair(request):
    name, schedule = request.param.split()
    return CLASSES[name](SCHEDULES[schedule]), SCHEDULES[schedule]


def noised(schedule, t=T, dtype=F64):
    x_0 = Rng(0).normal("x_0", torch.empty(len(t), 2, 3, 3, dtype=dtype))
    eps = Rng(0).normal("eps", x_0)
    return x_0, eps, add_noise(x_0, eps, schedule.scales(t))


def at(parametrization, t=T):
    """The coefficients at some times."""
    return parametrization.coefficients(t, parametrization.schedule.scales(t))


def true_output(parametrization, x_0, eps, t=T):
    scales = at(parametrization, t)
    return broadcast(scales["to_x_0"], x_0) * x_0 + broadcast(scales["to_eps"], x_0) * eps


@pytest.mark.smoke
def test_the_true_output_gives_x_0_back_at_no_loss(pair):
    parametrization, schedule = pair
    given = at(parametrization)
    x_0, eps, x_t = noised(schedule)
    out = true_output(parametrization, x_0, eps)
    tolerance = 1e-12 * float((1 + schedule.scales(T)[1] / schedule.scales(T)[0]).max())
    torch.testing.assert_close(parametrization.denoised(out, x_t, given).x_0, x_0, rtol=0, atol=tolerance)
    assert parametrization.losses(out, x_0, eps, x_t, given)["denoising"].max() < 1e-30  # rounding, squared


def test_error_scale_is_the_squared_derivative_of_x_0(pair):
    parametrization, schedule = pair
    given = at(parametrization)
    x_0, eps, x_t = noised(schedule)
    out = torch.zeros_like(x_0, requires_grad=True)
    (gradient,) = torch.autograd.grad(parametrization.denoised(out, x_t, given).x_0.sum(), out)
    assert parametrization.error_scale(given).dtype == F64
    torch.testing.assert_close(gradient[:, 0, 0, 0] ** 2, parametrization.error_scale(given), rtol=1e-12, atol=0)


def test_loss_times_error_scale_is_the_error_of_x_0(pair):
    parametrization, schedule = pair
    given = at(parametrization)
    x_0, eps, x_t = noised(schedule)
    out = true_output(parametrization, x_0, eps) + 0.1 * Rng(0).normal("error", x_0)
    loss = parametrization.losses(out, x_0, eps, x_t, given)["denoising"]
    error = ((parametrization.denoised(out, x_t, given).x_0 - x_0) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(loss * parametrization.error_scale(given), error, rtol=1e-6, atol=0)
    assert loss.shape == (len(T),)


def test_targets_are_the_published_ones():
    schedule = SCHEDULES["cosine"]
    x_0, eps, x_t = noised(schedule)
    alpha, sigma = (broadcast(v, x_0) for v in schedule.scales(T))
    assert torch.equal(true_output(Eps(schedule), x_0, eps), eps)
    assert torch.equal(true_output(X0(schedule), x_0, eps), x_0)
    torch.testing.assert_close(true_output(V(schedule), x_0, eps), alpha * eps - sigma * x_0, rtol=1e-14, atol=1e-14)


def test_edm_is_equation_7_with_table_1_and_its_weight_is_equation_8():
    schedule, d = SCHEDULES["edm"], 0.7
    parametrization = EDM(schedule, sigma_data=d)
    given = at(parametrization)
    x_0, eps, x = noised(schedule)
    sigma = 80 * T
    c_skip, c_out = d**2 / (sigma**2 + d**2), sigma * d / torch.sqrt(sigma**2 + d**2)
    c_in, c_noise = 1 / torch.sqrt(sigma**2 + d**2), torch.log(sigma) / 4
    x_in, time = parametrization.inputs(x, given)
    torch.testing.assert_close(x_in, broadcast(c_in, x) * x, rtol=1e-13, atol=0)
    torch.testing.assert_close(time, c_noise, rtol=1e-13, atol=0)
    out = Rng(0).normal("out", x)
    denoised = broadcast(c_skip, x) * x + broadcast(c_out, x) * out
    torch.testing.assert_close(parametrization.denoised(out, x, given).x_0, denoised, rtol=1e-12, atol=1e-12)
    weight = (sigma**2 + d**2) / (sigma * d) ** 2
    expected = weight * ((denoised - x_0) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(
        parametrization.losses(out, x_0, eps, x, given)["denoising"], expected, rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_edm_has_unit_variance_in_and_out_on_every_schedule(name):
    schedule = SCHEDULES[name]
    parametrization = EDM(schedule, sigma_data=0.5)
    alpha, sigma = schedule.scales(T)
    to_x_0, to_eps = parametrization.compute_target_scales(alpha, sigma)
    torch.testing.assert_close((0.5 * to_x_0) ** 2 + to_eps**2, torch.ones_like(T), rtol=1e-12, atol=0)
    x_in, _ = parametrization.inputs(torch.ones(len(T), 1, dtype=F64), at(parametrization))
    variance = x_in[:, 0] ** 2 * ((0.5 * alpha) ** 2 + sigma**2)
    torch.testing.assert_close(variance, torch.ones_like(T), rtol=1e-12, atol=0)


def test_flow_is_fed_x_t_and_a_thousand_t_on_its_schedule_and_predicts_the_velocity():
    schedule = SCHEDULES["flow"]
    x_0, eps, x_t = noised(schedule)
    part = Flow(schedule)
    x_in, time = part.inputs(x_t, at(part))
    torch.testing.assert_close(x_in, x_t, rtol=1e-7, atol=0)  # at t = 1 the signal that is kept, 2^-24
    torch.testing.assert_close(time, 1000 * T, rtol=1e-7, atol=0)
    assert torch.equal(true_output(part, x_0, eps), eps - x_0)
    h = 1e-6
    ahead, behind = (noised(schedule, T[1:-1] + d)[2] for d in (h, -h))
    velocity = true_output(part, *noised(schedule, T[1:-1])[:2], T[1:-1])
    torch.testing.assert_close((ahead - behind) / (2 * h), velocity, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_flow_is_a_rectified_flow_on_every_schedule(name):
    schedule, line = SCHEDULES[name], SCHEDULES["flow"]
    alpha, sigma = schedule.scales(T)
    u = sigma / (alpha + sigma)
    _, _, x_t = noised(schedule)
    _, _, z_u = noised(line, u)
    part, other = Flow(schedule), Flow(line)
    mine, theirs = at(part), at(other, u)
    for got, expected in zip(part.inputs(x_t, mine), other.inputs(z_u, theirs), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)
    out = Rng(0).normal("out", x_t)
    x_0, expected = part.denoised(out, x_t, mine).x_0, other.denoised(out, z_u, theirs).x_0
    torch.testing.assert_close(x_0, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(part.error_scale(mine), u**2, rtol=1e-12, atol=0)


def test_a_step_of_ddim_along_a_flow_is_eulers():
    schedule = SCHEDULES["flow"]
    t, s = torch.tensor(1.0, dtype=F64), torch.tensor(0.8, dtype=F64)
    for _ in range(2):
        x_t = Rng(1).normal("x_t", torch.empty(2, 2, 3, 3, dtype=F64))
        velocity = torch.tanh(x_t)
        x_0 = Flow(schedule).denoised(velocity, x_t, at(Flow(schedule), t.expand(2))).x_0
        scales = [tuple(map(float, schedule.scales(time))) for time in (t, s)]
        torch.testing.assert_close(ddim_step(x_t, x_0, *scales), x_t + (s - t) * velocity, rtol=0, atol=1e-6)
        t, s = s, s / 2


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
def test_inputs_are_x_t_and_the_index_on_a_table_and_scaled_without_one(name):
    table = SCHEDULES["linear"]
    _, _, x_t = noised(table)
    part, bare = CLASSES[name](table), CLASSES[name](SCHEDULES["edm"])
    x_in, time = part.inputs(x_t, at(part))
    torch.testing.assert_close(x_in, x_t, rtol=1e-14, atol=0)
    assert time.tolist() == pytest.approx([0, 49, 299, 699, 949, 999], abs=1e-9)
    x_in, time = bare.inputs(x_t, at(bare))
    sigma = 80 * T
    torch.testing.assert_close(x_in, x_t / broadcast(torch.sqrt(1 + sigma**2), x_t), rtol=1e-14, atol=0)
    torch.testing.assert_close(time, sigma.log() / 4, rtol=1e-14, atol=0)


def test_dtypes_follow_x_and_the_index_survives_bfloat16(pair):
    parametrization, schedule = pair
    given = at(parametrization)
    for dtype, time_dtype in ((torch.float32, torch.float32), (torch.bfloat16, torch.float32), (F64, F64)):
        x_0, eps, x_t = noised(schedule, dtype=dtype)
        x_in, time = parametrization.inputs(x_t, given)
        assert x_in.dtype == dtype and time.dtype == time_dtype
        assert parametrization.denoised(x_t, x_t, given).x_0.dtype == dtype
        assert parametrization.losses(x_t, x_0, eps, x_t, given)["denoising"].dtype == dtype
    eps = Eps(SCHEDULES["linear"])
    assert eps.inputs(noised(eps.schedule, dtype=torch.bfloat16)[2], at(eps))[1][-1] == 999


def test_out_is_unbounded():
    x = TensorType((3, 8, 8), range=(-1, 1))
    assert Eps(SCHEDULES["linear"]).out(x) == TensorType((3, 8, 8))
    assert EpsLearned(SCHEDULES["linear"]).out(x) == TensorType((6, 8, 8))


class TestEpsLearned:
    table = schedules.Linear()
    t = torch.tensor([1, 2, 3, 500, 1000], dtype=F64) / 1000

    def inputs(self):
        x_0, eps, x_t = noised(self.table, self.t)
        return Rng(0).normal("out", torch.cat([x_0, x_0], dim=1)), x_0, eps, x_t

    def compute_losses(self, *values):
        learned = EpsLearned(self.table)
        return learned.losses(*values, at(learned, self.t))

    def test_halves(self):
        out, x_0, eps, x_t = self.inputs()
        learned, plain = EpsLearned(self.table), Eps(self.table)
        denoised = learned.denoised(out, x_t, at(learned, self.t))
        assert torch.equal(denoised.x_0, plain.denoised(out[:, :2], x_t, at(plain, self.t)).x_0)
        assert denoised.v is not None and torch.equal(denoised.v, (out[:, 2:] + 1) / 2)
        losses = learned.losses(out, x_0, eps, x_t, at(learned, self.t))
        assert torch.equal(losses["denoising"], plain.losses(out[:, :2], x_0, eps, x_t, at(plain, self.t))["denoising"])

    def test_bound_is_the_divergence_of_the_tables_posteriors(self):
        out, x_0, eps, x_t = self.inputs()
        got = self.compute_losses(out, x_0, eps, x_t)["bound"]
        betas = self.table.betas
        ac = torch.cumprod(1 - betas, 0)
        before = torch.cat([torch.ones(1, dtype=F64), ac[:-1]])
        beta_tilde = betas * (1 - before) / (1 - ac)
        for row, i in enumerate((self.t * 1000).round().long().tolist()):
            i -= 1
            x_0_hat = (x_t[row] - (1 - ac[i]).sqrt() * out[row, :2]) / ac[i].sqrt()
            c_0, c_t = betas[i] * before[i].sqrt() / (1 - ac[i]), (1 - before[i]) * (1 - betas[i]).sqrt() / (1 - ac[i])
            v = (out[row, 2:] + 1) / 2
            low = beta_tilde[max(i, 1)]
            p = torch.distributions.Normal(
                c_0 * x_0_hat + c_t * x_t[row], torch.exp((v * betas[i].log() + (1 - v) * low.log()) / 2)
            )
            if i == 0:
                expected = -p.log_prob(x_0[row])
            else:
                q = torch.distributions.Normal((c_0 * x_0[row] + c_t * x_t[row]), beta_tilde[i].sqrt().expand_as(v))
                expected = torch.distributions.kl_divergence(q, p)
            assert float(got[row]) == pytest.approx(float(expected.mean()), rel=1e-7)

    def test_the_bounds_gradient_reaches_the_variance_only(self):
        out, x_0, eps, x_t = self.inputs()
        out.requires_grad_()
        (gradient,) = torch.autograd.grad(self.compute_losses(out, x_0, eps, x_t)["bound"].sum(), out)
        assert gradient[:, :2].abs().max() == 0
        assert (gradient[:, 2:].abs().amax((1, 2, 3)) > 0).all()

    def test_the_true_mean_and_variance_have_no_divergence(self):
        out, x_0, eps, x_t = self.inputs()
        out = torch.cat([eps, -torch.ones_like(eps)], dim=1)
        bound = self.compute_losses(out, x_0, eps, x_t)["bound"]
        assert bound[1:].abs().max() < 1e-8

    @pytest.mark.parametrize("num", [20, 1000, 4000])
    def test_the_bounds_default_weight_is_that_of_the_hybrid_loss(self, num):
        """Nichol and Dhariwal's eq. 16: 0.001 times the sum over the table, whose mean over times is `bound`."""
        assert EpsLearned(schedules.Linear(num=num)).weights == {"bound": pytest.approx(0.001 * num)}
        assert Eps(self.table).weights == {}

    def test_a_schedule_without_a_table_is_refused(self):
        with pytest.raises(ValueError, match="EpsLearned expects a schedule with a table of 2 or more, got num None"):
            EpsLearned(SCHEDULES["edm"])


def test_learned_variance_is_nats_a_dimension():
    table = schedules.Linear()
    t = torch.tensor([0.5], dtype=F64)
    x_0 = torch.zeros(1, 2, 4, 4, dtype=F64)
    x_t = torch.ones_like(x_0)
    out = torch.cat([torch.zeros_like(x_0), torch.ones_like(x_0)], dim=1)
    scales = (table.scales(t), table.scales(t - 0.001))
    bound = EpsLearned(table).losses(out, x_0, x_t / scales[0][1], x_t, at(EpsLearned(table), t))["bound"]
    q = posterior(x_t, x_0, *scales)
    p = posterior(x_t, x_t / table.scales(t)[0], *scales)
    ratio = float(q.small / q.large)
    error = float((q.mean - p.mean)[0, 0, 0, 0] ** 2 / q.large)
    assert float(bound) == pytest.approx((ratio - 1 - math.log(ratio) + error) / 2, rel=1e-9)


def test_sigma_data_must_be_positive():
    with pytest.raises(ValueError, match="EDM expects sigma_data to be above 0, got 0"):
        EDM(SCHEDULES["edm"], sigma_data=0)


def test_sigma_data_is_the_data_s_deviation_unless_it_is_given():
    known, unknown = TensorType((2,), std=0.3), TensorType((2,))
    assert (
        EDM(SCHEDULES["edm"], known).sigma_data == 0.3 and EDM(SCHEDULES["edm"], known, sigma_data=1.0).sigma_data == 1
    )
    assert EDM(SCHEDULES["edm"]).sigma_data == EDM(SCHEDULES["edm"], unknown).sigma_data == 0.5


def test_for_unit_deviation_edm_s_target_is_minus_v_where_variance_is_preserved():
    schedule, t = SCHEDULES["cosine"], torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    edm, v = EDM(schedule, TensorType((2,), std=1.0)), V(schedule)
    scales = schedule.scales(t)
    for mine, theirs in zip(edm.compute_target_scales(*scales), v.compute_target_scales(*scales)):
        torch.testing.assert_close(mine, -theirs, rtol=1e-12, atol=1e-14)


def test_a_scale_of_one_leaves_the_input_alone():
    """Within rounding, as `1 / sqrt(alpha^2 + sigma^2)` is where a schedule preserves variance; tensors scale it."""
    part, x = Eps(schedules.Linear()), torch.randn(2, 3)
    assert part.inputs(x, {"to_input": 1 - 2**-53, "time": 5.0})[0] is x
    for scale in (0.5, torch.ones(2, dtype=torch.float64)):
        x_in, _ = part.inputs(x, {"to_input": scale, "time": 5.0})
        assert x_in is not x and torch.equal(x_in, x * float(torch.as_tensor(scale).flatten()[0]))
