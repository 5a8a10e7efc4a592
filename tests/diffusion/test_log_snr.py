import math

import pytest
import torch
from torch import nn

from modkit import build, load, train, use
from modkit.diffusion.gaussian import find_slope
from modkit.diffusion.log_snr import Learned, LogLinear
from modkit.diffusion.loss_weights import Likelihood, Simple, check_likelihood
from modkit.diffusion.low_discrepancy import LowDiscrepancy
from modkit.diffusion.schedules import EDM, VP, Cosine, Flow, Linear
from modkit.diffusion.time_sampling import LogNormal, Uniform
from modkit.kinds import Finding
from modkit.models import DenoisingGAN, Diffusion
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.play import shake, spec, state, turn
from tests.refusals import refusals

F64 = torch.float64
T = torch.linspace(0, 1, 2**14 + 1, dtype=F64)[1:]
X = TensorType((2,), std=1.0)


def learned(**options):
    """A schedule that has learned something, in float64."""
    return shake(Learned(X, **{"sigma_min": 0.4, "sigma_max": 2.0, "bins": 5, **options}).double(), 0.4)


@pytest.mark.parametrize("schedule", [LogLinear(sigma_min=0.01, sigma_max=30.0), learned()], ids=["linear", "learned"])
def test_variance_is_preserved_and_a_level_s_time_is_found(schedule):
    alpha, sigma = schedule.scales(T)
    assert alpha.dtype == sigma.dtype == F64
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(T), rtol=1e-14, atol=0)
    level = sigma / alpha
    assert (level.diff() > 0).all() and float(level[-1]) == pytest.approx(schedule.sigma_max, rel=1e-12)
    torch.testing.assert_close(schedule.time(level), T, rtol=1e-10, atol=0)
    ends = torch.tensor([schedule.sigma_min, schedule.sigma_max], dtype=F64)
    alpha, sigma = schedule.scales(schedule.time(ends))
    torch.testing.assert_close(sigma / alpha, ends, rtol=1e-12, atol=0)
    alpha, sigma = schedule.scales(torch.zeros(1, dtype=F64))
    assert (float(alpha), float(sigma)) == (1.0, 0.0)
    below = schedule.time(ends[:1] / 7)
    torch.testing.assert_close(below, schedule.time(ends[:1]) / 7, rtol=1e-12, atol=0)


def test_a_schedule_starts_even_in_log_snr():
    schedule = Learned(X, sigma_min=0.02, sigma_max=50.0)
    for got, want in zip(schedule.scales(T), LogLinear(sigma_min=0.02, sigma_max=50.0).scales(T)):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=0)  # parameters are float32


def test_what_trains_equals_what_samples_and_is_as_steep_as_its_shares_say():
    schedule = learned()
    shares = torch.softmax(schedule.shares, 0) * 0.9 + 0.1 / 5
    for got, want in zip(schedule.learn(T), schedule.scales(T)):
        assert got.requires_grad and not want.requires_grad and torch.equal(got, want)
    middles = shares.cumsum(0) - shares / 2
    ends = math.log(schedule.sigma_max / schedule.sigma_min)
    torch.testing.assert_close(
        find_slope(schedule.learn, middles, learns=True), 2 * ends / (5 * shares), rtol=1e-8, atol=0
    )


def test_what_samples_has_gradients_to_times_and_levels_alone():
    """The fault: it had none at all, so that a denoiser's to its times was missing."""
    schedule, t = learned(), torch.tensor([0.1, 0.35, 0.9], dtype=F64, requires_grad=True)
    for function in (schedule.scales, schedule.time):
        assert torch.autograd.gradcheck(function, t)
        out = function(t)
        total = out.sum() if isinstance(out, torch.Tensor) else sum(out).sum()
        assert torch.autograd.grad(total, list(schedule.parameters()), allow_unused=True) == (None, None)


def test_the_loss_variance_has_the_gradient_of_the_mean_of_the_squared_loss():
    schedule = learned()

    def measure(u):
        return 1 + torch.sin(7 * u) ** 2  # the loss at an even pace

    shares = torch.softmax(schedule.shares, 0) * 0.9 + 0.1 / 5
    with torch.no_grad():
        alpha, sigma = schedule.scales(T)
        u = (sigma / alpha / schedule.sigma_min).log() / math.log(schedule.sigma_max / schedule.sigma_min)
    index = (u * 5).long().clamp(max=4)
    loss = measure(u) / (5 * shares.detach()[index])
    variance = schedule.losses(torch.zeros(len(T), 2, dtype=F64), T, loss)["variance"]
    torch.testing.assert_close(variance.detach(), loss**2, rtol=1e-12, atol=0)
    got = torch.autograd.grad(variance.mean(), schedule.shares)[0]
    even = (torch.arange(5 * 4000, dtype=F64) + 0.5) / (5 * 4000)
    squares = measure(even).square().view(5, -1).mean(1)
    want = torch.autograd.grad((squares / (25 * shares)).sum(), schedule.shares)[0]
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)  # both are sums over a grid


def test_shares_become_proportional_to_the_root_of_the_mean_squared_loss():
    schedule = Learned(X, sigma_min=0.1, sigma_max=10.0, bins=3).double()
    roots, t = torch.tensor([1.0, 3.0, 2.0], dtype=F64), T[::32].contiguous()
    optimizer = torch.optim.Adam([schedule.shares], lr=0.05)
    for _ in range(300):
        shares = (torch.softmax(schedule.shares, 0) * 0.9 + 0.1 / 3).detach()
        index = torch.searchsorted(shares.cumsum(0)[:-1], t, right=True)
        loss = roots[index] / (3 * shares[index])
        optimizer.zero_grad()
        schedule.losses(torch.zeros(len(t), 2, dtype=F64), t, loss)["variance"].mean().backward()
        optimizer.step()
    torch.testing.assert_close(shares, roots / 6, rtol=0, atol=0.01)


class Normal(nn.Module):
    """The exact denoiser of N(0, I), as a network that predicts x_0 of a process that preserves variance."""

    def __init__(self, x, out, cond):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, cond):
        return self.weight * torch.sigmoid(-8 * cond.time).sqrt()[:, None] * x


def bound_per_value(low, high):
    """The mean bound on -log p(x), with x ~ N(0, 1), for these ends of the logarithm of the noise level."""
    diffusion = (high - low) - 0.5 * torch.log((1 + torch.exp(2 * high)) / (1 + torch.exp(2 * low)))
    return low + (1 + math.log(2 * math.pi)) / 2 + diffusion + torch.exp(-2 * high) / 2


@pytest.mark.wide
def test_the_losses_are_the_bound_and_move_its_ends_by_its_gradient():
    model = Diffusion(X, network=Normal, schedule=learned(), parametrization="x0").double()
    x = Rng(0).normal("x", torch.empty(2**17, 2, dtype=F64))
    losses = model.losses("denoiser", Batch(x, {}), turn("a"))
    assert list(losses) == ["denoising", "nll", "kl", "variance"]
    total = losses["denoising"] + losses["nll"] + losses["kl"]
    ends = torch.tensor([model.schedule.sigma_min, model.schedule.sigma_max], dtype=F64).log().requires_grad_()
    want = bound_per_value(*ends)
    assert total.item() == pytest.approx(want.item(), abs=0.01)  # noise of the mean: .004
    got = torch.autograd.grad(total, model.schedule.ends)[0] / torch.sigmoid(model.schedule.ends)
    gradient = torch.autograd.grad(want, ends)[0] * torch.tensor([-1.0, 1.0])
    assert gradient.abs().min() > 0.03
    torch.testing.assert_close(got, gradient, rtol=0, atol=0.01)
    assert total.item() > 0.5 * (1 + math.log(2 * math.pi))  # the entropy


@pytest.mark.parametrize(
    "schedule",
    [Linear(), Cosine(), EDM(), VP(), Flow(), LogLinear(), Learned()],
    ids=lambda schedule: type(schedule).__name__.lower(),
)
def test_under_the_likelihood_a_range_of_levels_weighs_the_same_on_any_schedule(schedule):
    low, high = (float(schedule.time(torch.tensor(level, dtype=F64))) for level in (0.25, 3.0))
    t = low + (high - low) * (torch.arange(20000, dtype=F64) + 0.5) / 20000
    alpha, sigma = schedule.scales(t)
    learn = getattr(schedule, "learn", schedule.scales)
    weight = Likelihood()((alpha / sigma) ** 2, torch.ones_like(t)) * find_slope(learn, t)
    assert float(weight.mean() * (high - low)) == pytest.approx((0.25**-2 - 3.0**-2) / 2, rel=1e-4)


@pytest.mark.wide
def test_a_trained_schedule_is_sampled_and_loaded_as_trained(tmp_path):
    model = use("diffusion", network=use("mlp", width=8, depth=1), schedule="learned", sampler=use("euler", steps=3))
    playing = spec(model, optimizer=use("adam", lr=0.1), ema=0.5)
    before = build(playing)
    run = train(playing, tmp_path / "run")
    after = load(run)
    moved = [name for name, value in state(before).items() if not torch.equal(value, state(after)[name])]
    assert {"schedule.ends", "schedule.shares"} <= set(moved)
    assert after.schedule.sigma_min != before.schedule.sigma_min
    level = after.schedule.scales(after.sampler.times())
    assert float((level[1] / level[0])[0]) == pytest.approx(after.schedule.sigma_max, rel=1e-9)
    assert torch.equal(after.sample(2, seed=0), load(run).sample(2, seed=0))
    assert {note.path for note in after.review()} == {""}  # no parts that do not suit each other


@pytest.mark.parametrize(
    ("schedule", "coupling"), [("learned", "optimal"), ("learned", "pairs"), ("vp", "optimal"), ("vp", "independent")]
)
def test_the_likelihood_of_noise_that_is_paired_with_the_data_is_refused_and_runs_of_it_load(schedule, coupling):
    """The fault: a learned schedule without independent noise lowered its losses without limit, which bound nothing."""
    parts = {"loss_weight": "likelihood", "schedule": schedule, "coupling": coupling}
    model = Diffusion(X, fields={"noise": X}, network="mlp", **parts)
    found = [note for note in model.review() if isinstance(note, Finding) and note.path == "coupling"]
    assert [note.refused for note in found] == ([] if coupling == "independent" else [True])
    assert all("expected noise independent of the data with the loss weight Likelihood" in str(one) for one in found)


test_what_does_not_fit_is_refused = refusals(
    (lambda: LogLinear(sigma_min=2.0, sigma_max=1.0), "LogLinear expects 0 < sigma_min < sigma_max, got 2 and 1"),
    (lambda: Learned(sigma_min=0.6), "Learned expects 0 < sigma_min < 0.5, the data's deviation, .*, got 0.6 and 80"),
    (lambda: Learned(bins=1), "Learned expects bins to be at least 2, got 1"),
    (
        lambda: check_likelihood(Learned(), Uniform(Learned()), Simple()),
        "expected `likelihood` with the schedule Learned, got Simple: any other loss is least at the noise levels that",
    ),
    (
        lambda: check_likelihood(EDM(), LowDiscrepancy(EDM(), times=LogNormal), Likelihood()),
        "expected even times with the loss weight Likelihood, .* got LowDiscrepancy",
    ),
    (
        lambda: DenoisingGAN(X, network="mlp", discriminator="mlp", schedule="learned"),
        "expected one that is not trained, since no loss here could, got Learned",
    ),
)
