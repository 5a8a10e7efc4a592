"""A package of a stranger, on public names only: MeanFlow, whose network is given two times."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import modkit
from modkit import Batch, Cond, CondType, Rng, StepContext, TensorType, use
from modkit.precision import use_precision
from tests.diffusion.test_straightness import NUM, RING, measure
from tests.examples.packages import check_package, find_flaws, install_package

FOLDER = Path(__file__).parents[2] / "examples" / "mean_flow"
X, M, S = TensorType((2, 3)), 1.5, 0.3  # the data of the closed form are N(m, s^2 I)

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, by its jvp


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    with install_package(FOLDER, tmp_path_factory.mktemp("site")) as module:
        yield module


def test_it_is_short_and_imports_what_is_public():
    check_package(FOLDER)


@pytest.mark.wide
def test_it_passes_the_battery(parts):
    assert not find_flaws("mean", "model")


def deviate(t):
    """S_t, the deviation of z_t, whose mean is (1 - t) m."""
    return ((1 - t) ** 2 * S**2 + t**2).sqrt()


class Exact(nn.Module):
    """The average velocity of the flow from N(0, I) to N(m, s^2 I).

    The flow keeps (z_t - (1 - t) m) / S_t, so that with w = z_t - (1 - t) m

        z_t - z_r = w (1 - S_r / S_t) - (t - r) m
        S_t^2 - S_r^2 = (t - r) (t + r - s^2 (2 - t - r))
        u = -m + w (t + r - s^2 (2 - t - r)) / (S_t (S_t + S_r))                 which has a value at r = t: v(z_t, t)
    """

    def __init__(self, x, out, cond):
        super().__init__()
        assert (out, cond) == (x, CondType(time=2))
        self.mean = nn.Parameter(torch.tensor(M, dtype=torch.float64))

    def forward(self, z, cond):
        t, span = (time.view(-1, 1, 1) for time in cond.time.unbind(1))
        r = t - span
        slope = (t + r - S**2 * (2 - t - r)) / (deviate(t) * (deviate(t) + deviate(r)))
        return slope * (z - (1 - t) * self.mean) - self.mean


def make_exact(parts, **options):
    return parts.MeanFlow(X, network=Exact, **options)


def draw(num=6):
    """Samples and noise."""
    x = M + S * Rng("x").normal("x", torch.empty(num, *X.shape, dtype=torch.float64))
    return x, Rng(0).normal("eps", x)


def test_the_closed_form_is_the_integral_of_the_velocity(parts):
    model, (_, z) = make_exact(parts), draw()
    r, t = (
        torch.tensor(times, dtype=torch.float64) for times in ([0, 0.1, 0.3, 0.5, 0.9, 0], [1, 0.2, 0.9, 0.6, 1, 0.7])
    )
    nodes, weights = np.polynomial.legendre.leggauss(40)
    average, kept = 0, (z - (1 - t.view(-1, 1, 1)) * M) / deviate(t).view(-1, 1, 1)
    for node, weight in zip(nodes, weights):
        s = (r + t) / 2 + (t - r) / 2 * node
        variance, flowing = deviate(s) ** 2, kept * deviate(s).view(-1, 1, 1)
        # v = E[eps - x | z_s], by the covariances of x and eps with z_s
        average = average + weight / 2 * (((s - (1 - s) * S**2) / variance).view(-1, 1, 1) * flowing - M)
    torch.testing.assert_close(model.predict(z, r, t, Cond()), average, rtol=1e-10, atol=1e-10)


def expect_error(model, x, eps, r, t):
    """Its error is that of v alone: u - sg(...) = (v(z_t, t) - (eps - x)) dz_r/dz_t, and dz_r/dz_t = S_r / S_t."""
    z = (1 - t.view(-1, 1, 1)) * x + t.view(-1, 1, 1) * eps
    return (model.predict(z, t, t, Cond()) - (eps - x)) * (deviate(r) / deviate(t)).view(-1, 1, 1)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_average_velocity_satisfies_the_identity_and_the_loss_is_its_equation(parts, power):
    model, (x, eps) = make_exact(parts, same=0.4, power=power), draw(50)
    r, t = model.draw_times(x, Rng(0))
    assert 0 < (r == t).sum() < 50
    error = expect_error(model, x, eps, r, t)
    torch.testing.assert_close(model.compute_error(x, eps, r, t, Cond()), error, rtol=1e-10, atol=1e-12)
    squares = error.square().mean((1, 2))
    loss = model.losses("flow", Batch(x, {}), StepContext(Rng(0), training=True))["velocity"]
    torch.testing.assert_close(loss, (squares * (squares + 1e-3) ** -power).mean(), rtol=1e-10, atol=0)


def test_gradients_flow_through_the_prediction_alone(parts):
    model, (x, eps) = parts.MeanFlow(X, network=use("mlp", width=8, depth=1)).double(), draw(8)
    for index, parameter in enumerate(model.parameters()):
        parameter.data = 0.3 * Rng("weights", index).normal("w", parameter.data)
    r, t = model.draw_times(x, Rng(0))
    model.losses("flow", Batch(x, {}), StepContext(Rng(0), training=True))["velocity"].backward()
    found = [parameter.grad for parameter in model.parameters()]
    error = model.compute_error(x, eps, r, t, Cond()).detach()
    squares = error.square().mean((1, 2), keepdim=True)
    u = model.predict((1 - t.view(-1, 1, 1)) * x + t.view(-1, 1, 1) * eps, r, t, Cond())
    expected = torch.autograd.grad((2 * error / (squares + 1e-3) * u).mean(), list(model.parameters()))
    torch.testing.assert_close(found, list(expected))


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    "network",
    [
        use("unet", channels=[8, 16], blocks=1),
        use("ncsnpp", channels=[8, 8], blocks=1, style=8),
        use("dit", width=16, depth=1, heads=2),
    ],
    ids=lambda node: node.use,
)
def test_its_loss_under_autocast_is_that_of_float32(parts, network):
    """The fault: the tangents of float32 met weights that autocast had narrowed, and training failed."""
    fields = {"labels": TensorType((), classes=3)}
    model = parts.MeanFlow(TensorType((1, 8, 8), std=0.5), fields=fields, network=network, conditioner="label")
    batch = Batch(Rng("x").normal("x", torch.empty(4, 1, 8, 8)), {"labels": torch.arange(4) % 3})
    found = []
    for precision in ("float32", "bf16"):
        with use_precision(torch.device("cpu"), precision):
            found.append(model.losses("flow", batch, StepContext(Rng(0), training=True))["velocity"])
    assert torch.equal(*found)
    found[1].backward()


def test_a_latent_that_autocast_has_narrowed_is_widened(parts):
    model, found = parts.MeanFlow(TensorType((3,)), network=use("mlp", width=8, depth=1)), []
    x = Rng("x").normal("x", torch.empty(4, 3)).bfloat16()
    for one in (x.float(), x):
        with use_precision(torch.device("cpu"), "bf16"):
            found.append(model.losses("flow", Batch(one, {}), StepContext(Rng(0), training=True))["velocity"])
    assert found[0] == found[1] and found[1].dtype == torch.float32


def test_times_are_sigmoids_of_normal_draws_and_equal_in_a_share(parts):
    x = torch.empty(20_000, *X.shape, dtype=torch.float64)
    r, t = make_exact(parts).draw_times(x, Rng(1))
    assert (r <= t).all() and abs((r == t).double().mean() - 0.75) < 0.012  # 4 standard errors
    logits = torch.stack(make_exact(parts, same=0.0, mean=0.5, std=2.0).draw_times(x, Rng(1))).logit()
    assert abs(logits.mean() - 0.5) < 0.04 and abs(logits.std() - 2) < 0.03  # 4 standard errors


@pytest.mark.parametrize("steps", [1, 3])
def test_samples_of_the_closed_form_are_exact(parts, steps):
    model, calls = make_exact(parts, steps=steps), []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    eps = Rng("start").normal("eps", torch.empty(5, *X.shape, dtype=torch.float64))
    torch.testing.assert_close(model.sample(5, seed=0, start_noise=eps), M + S * eps, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.decode_source(eps, "noise"), M + S * eps, rtol=1e-12, atol=1e-12)
    assert len(calls) == 2 * steps


def measure_once(parts, *, steps, size):
    """W2 of samples by one evaluation after training on 8 Gaussians, and what flow matching would have there.

    At t = 1 its exact velocity is eps - E[x], so that one evaluation makes of any noise the mean of the data.
    """
    with modkit.seeded(0):
        model = parts.MeanFlow(RING.x, network=use("mlp", width=128, depth=3), same=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    data, rng = RING.read("train", range(NUM), Rng(0)).tensor, Rng("train", 0)
    for index in range(steps):
        rows = rng.at("rows", index).integers("row", torch.empty(size), 0, NUM)
        optimizer.zero_grad()
        step = StepContext(rng.at("step", index), training=True)
        model.losses("flow", Batch(data[rows], {}), step)["velocity"].backward()
        optimizer.step()
        schedule.step()
    real = RING.read("test", range(2048), Rng(0)).tensor
    from_mean = (real.double() - data.double().mean(0)).square().sum(1).mean().sqrt()  # W2 from a single point
    return measure(model.sample(2048, seed=0), real), float(from_mean)


@pytest.mark.wide
def test_one_evaluation_does(parts):
    found, flow_matching = measure_once(parts, steps=300, size=64)
    assert found < 1.1 < 1.9 < flow_matching


@pytest.mark.full  # a training of 20 seconds, which reaches .41
def test_one_evaluation_does_well(parts):
    assert measure_once(parts, steps=1000, size=256)[0] < 0.55


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"same": 1.5}, r"MeanFlow expects same in \[0, 1\], .* got 1.5, 1.0, 1.0 and 1"),
        ({"std": 0.0}, "std above 0"),
        ({"power": -1.0}, "power of at least 0"),
        ({"steps": 0}, "steps of at least 1, got .* and 0"),
    ],
)
def test_what_does_not_fit_is_refused(parts, options, message):
    with pytest.raises(ValueError, match=message):
        make_exact(parts, **options)


@pytest.mark.wide
def test_it_trains_from_a_spec_and_is_loaded(parts, tmp_path):
    spec = modkit.load_spec(FOLDER / "mean-flow.yaml", ["train.batch_size=16", "train.samples.num=4"])
    assert not modkit.check(spec).unchecked
    before = modkit.build(spec).state_dict()
    run = modkit.train(spec, tmp_path / "run", steps=3)
    model = modkit.load(run)
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.sample(4, seed=0), modkit.load(run).sample(4, seed=0))
