import pytest
import torch
from torch.autograd.functional import jacobian
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from modkit import load, train, use
from modkit.bottlenecks import Gaussian
from modkit.cases.subject import Subject
from modkit.parts.registry import find
from modkit.rng import Rng
from modkit.types import Cond, TensorType
from tests.bottlenecks.parts import SHAPES, project
from tests.play import MLP, digits, shake, spec, turn
from tests.refusals import refusals


@pytest.mark.smoke
@pytest.mark.parametrize("shape", SHAPES)
def test_kl_and_draw_are_those_of_torch_distributions(shape):
    part = Gaussian(TensorType(shape), channels=3).double()
    h = 2 * torch.randn(5, *shape, dtype=torch.float64)
    mean, logvar = project(part, h).chunk(2, 1)
    posterior = Independent(Normal(mean, (logvar / 2).exp()), len(shape))
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), len(shape))

    latents = part(h, turn())
    torch.testing.assert_close(latents.total_kl, kl_divergence(posterior, prior))
    by_channel = kl_divergence(posterior.base_dist, prior.base_dist)[..., None].flatten(2).sum(2)
    torch.testing.assert_close(latents.kl, by_channel)
    noise = turn().rng.normal("posterior", mean)
    torch.testing.assert_close(latents.values["continuous"], mean + (logvar / 2).exp() * noise)
    torch.testing.assert_close(part(h, None).values["continuous"], mean)
    assert latents.losses == {}
    assert part.latents == {"continuous": TensorType((3, *shape[1:]))}


@pytest.mark.parametrize("shape", SHAPES)
def test_entropy_is_that_of_torch_distributions_and_its_gradient_reaches_the_features(shape):
    part = Gaussian(TensorType(shape), channels=3).double()
    h = (2 * torch.randn(5, *shape, dtype=torch.float64)).requires_grad_()
    mean, logvar = project(part, h).chunk(2, 1)
    exact = Independent(Normal(mean, (logvar / 2).exp()), len(shape)).entropy()
    entropy = part.posterior_entropy("continuous", h)
    torch.testing.assert_close(entropy, exact)
    (want,) = torch.autograd.grad(exact.sum(), h, retain_graph=True)
    (got,) = torch.autograd.grad(entropy.sum(), h)
    torch.testing.assert_close(got, want)
    assert part.float().posterior_entropy("continuous", h.float()).dtype == torch.float32
    with pytest.raises(ValueError, match="one of the latents"):
        part.posterior_entropy("codes", h.float())


def test_entropy_less_the_mean_of_log_q_is_nothing():
    part, num = Gaussian(TensorType((6,)), channels=3).double(), 4000
    h = torch.randn(1, 6, dtype=torch.float64)
    _, log_q = part.posterior("continuous", h.expand(num, -1), Rng(0))
    assert abs(part.posterior_entropy("continuous", h) + log_q.mean()) < 4 * log_q.std() / num**0.5


def test_channels_of_none_are_those_of_the_features():
    assert Gaussian(TensorType((6, 3, 5)), channels=None).latents == {"continuous": TensorType((6, 3, 5))}


def test_kl_vanishes_at_the_prior_and_log_variances_are_clamped():
    part = Gaussian(TensorType((2,)), channels=2).double()
    torch.nn.init.zeros_(part.project.weight)
    torch.nn.init.zeros_(part.project.bias)
    h = torch.randn(3, 2, dtype=torch.float64)
    assert torch.equal(part(h, None).kl, torch.zeros(3, 2, dtype=torch.float64))
    part.project.bias.data[2:] = torch.tensor([-1e3, 1e3])
    logvar = torch.tensor([-30.0, 20.0]).double()
    torch.testing.assert_close(part(h, None).kl, (0.5 * (logvar.exp() - 1 - logvar)).expand(3, 2))


def test_small_kl_keeps_its_digits_in_float32():
    part = Gaussian(TensorType((1,)), channels=1)
    torch.nn.init.zeros_(part.project.weight)
    part.project.bias.data = torch.tensor([0.0, 1e-2])
    want = 0.5 * (torch.tensor(1e-2, dtype=torch.float64).expm1() - 1e-2)  # 2.5e-5; exp - 1 would lose 5 digits
    torch.testing.assert_close(part(torch.ones(1, 1), None).kl.double(), want.view(1, 1), rtol=1e-4, atol=0)


def test_gradients_reach_features():
    part = Gaussian(TensorType((3, 2)), channels=2).double()

    def both(h):
        latents = part(h, turn())
        return latents.values["continuous"], latents.kl

    assert torch.autograd.gradcheck(both, torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True))


def test_samples_are_standard_normal():
    part = Gaussian(TensorType((3, 4, 4)))
    z = part.sample(4000, Rng(0))
    assert z.shape == (4000, 4, 4, 4)
    assert abs(z.mean()) < 0.01 and abs(z.var() - 1) < 0.01  # 256,000 draws: sd .002 and .003
    assert torch.equal(part.sample(2, Rng(0)), z[:2])


def test_statistics_are_float32_under_bfloat16_and_exact_in_float64():
    part = Gaussian(TensorType((8, 2, 2)))
    h = torch.randn(4, 8, 2, 2)
    exact = Gaussian(TensorType((8, 2, 2))).double()
    exact.load_state_dict(part.state_dict())
    want = exact(h.double(), turn())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = part(h, turn())
    assert got.kl.dtype == got.values["continuous"].dtype == torch.float32
    torch.testing.assert_close(got.total_kl.double(), want.total_kl, rtol=3e-2, atol=0)  # the convolution's 8 bits


test_refuses = refusals(
    ((TensorType((3, 2, 2)), TensorType((3, 4, 4))), 4, "Gaussian expects features of one level, got a hierarchy"),
    (TensorType((4, 4), classes=8), 4, "Gaussian expects continuous features.*codes of 8"),
    (TensorType((3,)), 0, "Gaussian expects channels to be at least 1, got 0"),
    of=lambda h, channels: Gaussian(h, channels=channels),
)


def test_refuses_other_latents():
    with pytest.raises(ValueError, match="Gaussian expects one of the latents .*, got 'codes'"):
        Gaussian(TensorType((3,))).to_z("codes", torch.zeros(1, 4))


IAF = use("autoregressive", width=16)
AFFINE = use("chain", layers=["actnorm", "linear"])


def with_flow(flow, shape=(6,), channels=3):
    types = {"h": TensorType(shape)}
    part = Subject(find("bottleneck", "gaussian"), {"channels": channels, "flow": flow}).build(types).double()
    return shake(part, 0.3)


@pytest.mark.parametrize("shape", [(6,), (4, 2, 2)], ids=["vector", "map"])
@pytest.mark.parametrize("flow", [IAF, use("coupling", network=use("mlp", width=8, depth=1))], ids=["iaf", "coupling"])
def test_with_a_flow_the_log_density_is_that_of_the_changed_variable(flow, shape):
    part, h = with_flow(flow, shape), torch.randn(4, *shape, dtype=torch.float64)
    mean, logvar = part.condense("continuous", h)[0].chunk(2, 1)
    base = mean + (logvar / 2).exp() * Rng(0).normal("posterior", mean)
    z, log_q = part.posterior("continuous", h, Rng(0))
    for row in range(4):
        cond = Cond(vector=h[row : row + 1]) if len(shape) == 1 else Cond(concat=h[row : row + 1])
        matrix = jacobian(lambda v, cond=cond: part.flow(v[None], cond)[0][0], base[row]).reshape(z[0].numel(), -1)
        before = Normal(mean[row], (logvar[row] / 2).exp()).log_prob(base[row]).sum()
        torch.testing.assert_close(log_q[row], before - torch.linalg.slogdet(matrix).logabsdet)
    torch.testing.assert_close(part.flow.inverse(z, Cond(vector=h, concat=h)), base, rtol=0, atol=1e-8)


def test_with_a_flow_the_kl_is_that_of_its_draw_and_on_average_the_exact_one():
    part, num = with_flow(AFFINE), 4000
    h = torch.randn(1, 6, dtype=torch.float64).expand(num, -1)
    latents = part(h, turn())
    z, log_q = part.posterior("continuous", h, turn().rng)
    assert torch.equal(latents.values["continuous"], z)
    torch.testing.assert_close(latents.kl, log_q - part.log_prior("continuous", z))
    mean, logvar = part.condense("continuous", h[:1])[0].chunk(2, 1)
    zero = torch.zeros(3, dtype=torch.float64)
    matrix = jacobian(lambda v: part.flow(v[None])[0][0], zero)
    moved = MultivariateNormal(part.flow(mean)[0][0], matrix @ logvar[0].exp().diag() @ matrix.T)
    exact = kl_divergence(moved, MultivariateNormal(zero, torch.eye(3, dtype=torch.float64)))
    assert abs(latents.kl.mean() - exact) < 4 * latents.kl.std() / num**0.5
    torch.testing.assert_close(part(h, None).values["continuous"], part.flow(mean)[0].expand(num, -1))


def test_what_a_flow_is_condensed_to_gives_the_same_draw_and_the_features_have_their_say():
    part, h = with_flow(IAF), torch.randn(4, 6, dtype=torch.float64)
    statistics, features = part.condense("continuous", h)
    assert torch.equal(
        part.expand("continuous", (statistics, features), turn().rng), part(h, turn()).values["continuous"]
    )
    other = part.expand("continuous", (statistics, features + 1), turn().rng)
    assert not torch.isclose(other, part(h, turn()).values["continuous"]).any()


def test_a_flow_is_prepared_with_draws_of_the_gaussian():
    part, h = with_flow(AFFINE), torch.randn(300, 6, dtype=torch.float64)
    part.prepare([h[:150], h[150:]], Rng(0))
    mean, logvar = part.condense("continuous", h)[0].chunk(2, 1)
    y = next(part.flow.list_layers())(mean + (logvar / 2).exp() * torch.randn_like(mean))[0]
    torch.testing.assert_close(y.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=0.25)
    torch.testing.assert_close(y.std(0), torch.ones(3, dtype=torch.float64), rtol=0, atol=0.2)
    with_flow(IAF).prepare([h], Rng(0))


def test_a_vae_with_a_flow_trains_and_has_bounds(tmp_path):
    bottleneck = use("gaussian", channels=3, flow=use("chain", layers=["actnorm", IAF]))
    vae = use("autoencoder", **{**MLP, "bottleneck": bottleneck, "likelihood": "gaussian"})
    model = load(train(spec(vae, steps=2), tmp_path))
    batch = digits(4)
    one, many = (model.bound(batch, num, Rng(0)) for num in (1, 2))
    assert one.isfinite().all() and many.isfinite().all()
