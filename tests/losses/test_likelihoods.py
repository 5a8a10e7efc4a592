import math

import pytest
import scipy.stats
import torch
from safetensors.torch import load, save
from torch import distributions

from modkit.losses.likelihoods import L1, MSE, Bernoulli, Gaussian
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import refusals

X = TensorType((3, 4, 5), range=(-1.0, 1.0))
SHAPES = [(7,), (3, 5), (3, 4, 5), (2, 2, 3, 4), ()]


def draws(shape, channels=1, num=6):
    torch.manual_seed(0)
    out = torch.randn(num, *((channels * shape[0], *shape[1:]) if shape else ()), dtype=torch.float64)
    return out, torch.rand(num, *shape, dtype=torch.float64) * 2 - 1


def total(log_prob):
    return -log_prob.reshape(len(log_prob), -1).sum(1)


@pytest.mark.smoke
@pytest.mark.parametrize("shape", SHAPES)
def test_mse_and_l1_are_unit_densities_without_their_constants(shape):
    out, x = draws(shape)
    part = TensorType(shape, range=(-1.0, 1.0))
    gaussian = total(distributions.Normal(out, 1.0).log_prob(x)) - part.numel * 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(MSE(part).nll(out, x), gaussian)
    laplace = total(distributions.Laplace(out, 1.0).log_prob(x)) - part.numel * math.log(2)
    torch.testing.assert_close(L1(part).nll(out, x), laplace)


@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_with_a_shared_variance(shape):
    out, x = draws(shape)
    part = Gaussian(TensorType(shape)).double()
    part.logvar.data.fill_(-1.3)
    want = -scipy.stats.norm(out.numpy(), math.exp(-0.65)).logpdf(x.numpy()).reshape(6, -1).sum(1)
    torch.testing.assert_close(part.nll(out, x).detach(), torch.from_numpy(want))
    assert torch.equal(part.mean(out), out)


@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_gaussian_with_a_variance_for_each_element(shape):
    out, x = draws(shape, channels=2)
    part = Gaussian(TensorType(shape), variance="element")
    mean, logvar = out[:, : shape[0]], out[:, shape[0] :]
    want = total(distributions.Normal(mean, (logvar / 2).exp()).log_prob(x))
    torch.testing.assert_close(part.nll(out, x), want)
    assert part.out(TensorType(shape, range=(0.0, 1.0))) == TensorType((2 * shape[0], *shape[1:]))
    assert torch.equal(part.mean(out), mean)
    assert list(part.parameters()) == []


def test_gaussian_clamps_log_variances():
    out = torch.tensor([[1.0, -1e3], [1.0, 1e3]], dtype=torch.float64)
    nll = Gaussian(TensorType((1,)), variance="element").nll(out, torch.tensor([[1.0], [1.0]]))
    want = 0.5 * (torch.tensor([-30.0, 20.0], dtype=torch.float64) + math.log(2 * math.pi))
    torch.testing.assert_close(nll, want)


def test_the_best_shared_variance_is_the_mean_squared_error():
    out, x = draws((3, 4, 5), num=50)
    part = Gaussian(X).double()
    error = (x - out).square().mean()
    part.logvar.data.copy_(error.log())
    (gradient,) = torch.autograd.grad(part.nll(out, x).sum(), part.logvar)
    assert abs(gradient) < 1e-9
    torch.testing.assert_close(part.nll(out, x).mean(), 30 * (error.log() + 1 + math.log(2 * math.pi)))


@pytest.mark.parametrize("limits", [(0.0, 1.0), (-1.0, 1.0), (-3.0, 5.0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_bernoulli(shape, limits):
    low, high = limits
    part = Bernoulli(TensorType(shape, range=limits))
    logits, _ = draws(shape)
    ones = torch.rand(6, *shape, dtype=torch.float64).round()
    want = total(distributions.Bernoulli(logits=logits).log_prob(ones))
    torch.testing.assert_close(part.nll(logits, low + (high - low) * ones), want)
    torch.testing.assert_close(part.mean(logits), low + (high - low) / (1 + (-logits).exp()))
    assert set(part.sample(logits, Rng(0)).unique().tolist()) <= {low, high}


def test_bernoulli_counts_greys_as_shares_and_survives_sure_logits():
    part = Bernoulli(TensorType((1,), range=(0.0, 1.0)))
    nll = part.nll(torch.tensor([[200.0], [0.0]]), torch.tensor([[0.25], [0.25]]))
    torch.testing.assert_close(nll, torch.tensor([150.0, math.log(2)]))


@pytest.mark.parametrize("part", [MSE(X), L1(X), Gaussian(X), Bernoulli(X)])
def test_the_decoder_is_asked_for_an_unbounded_output(part):
    assert part.out(X) == TensorType(X.shape)


@pytest.mark.parametrize("kind", [MSE, L1, Gaussian])
def test_means_are_clamped_to_the_range_where_there_is_one(kind):
    out = torch.tensor([[-3.0, 0.5, 2.0]])
    assert kind(TensorType((3,), range=(-1.0, 1.0))).mean(out).tolist() == [[-1.0, 0.5, 1.0]]
    assert torch.equal(kind(TensorType((3,))).mean(out), out)


SAMPLED = [
    (MSE(TensorType((2,))), scipy.stats.norm(0.3, 1.0), [0.3, 0.3]),
    (L1(TensorType((2,))), scipy.stats.laplace(0.3, 1.0), [0.3, 0.3]),
    (Gaussian(TensorType((1,)), variance="element"), scipy.stats.norm(0.3, 2.0), [0.3, math.log(4.0)]),
]


@pytest.mark.parametrize(("part", "law", "out"), SAMPLED)
def test_draws_follow_their_law(part, law, out):
    sample = part.sample(torch.tensor(out, dtype=torch.float64).expand(20_000, 2), Rng(0))
    assert sample.dtype == torch.float64
    assert scipy.stats.kstest(sample[:, 0].numpy(), law.cdf).pvalue > 0.01


def test_draws_of_the_other_two():
    part = Gaussian(TensorType((1,))).double()
    part.logvar.data.fill_(math.log(0.25))
    sample = part.sample(torch.zeros(20_000, 1, dtype=torch.float64), Rng(0)).detach()
    assert scipy.stats.kstest(sample[:, 0].numpy(), scipy.stats.norm(0, 0.5).cdf).pvalue > 0.01
    share = (Bernoulli(X).sample(torch.full((2000, 3, 4, 5), math.log(3.0)), Rng(0)) == 1).float().mean()
    assert abs(share - 0.75) < 5e-3  # sd 1.3e-3


def test_laplace_draws_stay_finite_at_the_ends_of_the_uniform():
    class Ends:
        def uniform(self, name, like):
            return torch.tensor([[0.0, 1 - 2**-24, 0.5]], dtype=like.dtype)

    sample = L1(TensorType((3,))).sample(torch.zeros(1, 3), Ends())
    torch.testing.assert_close(sample, torch.tensor([[-24.0, 23.0, 0.0]]) * math.log(2))


@pytest.mark.parametrize("kind", [MSE, L1, Gaussian, Bernoulli])
def test_gradients(kind):
    part = kind(TensorType((2, 3), range=(-1.0, 1.0)))
    part = part.double() if isinstance(part, torch.nn.Module) else part
    out, x = draws((2, 3), num=2)
    assert torch.autograd.gradcheck(lambda out, x: part.nll(out, x), (out.requires_grad_(), x.requires_grad_()))
    if kind is Gaussian:
        part.nll(out, x).sum().backward()
        torch.testing.assert_close(part.logvar.grad, (6 - (x - out).square().sum() / 2).detach())


@pytest.mark.parametrize("part", [MSE(X), L1(X), Gaussian(X), Bernoulli(X)])
def test_bfloat16_outputs_are_summed_in_float32(part):
    out, x = draws(X.shape)
    out = out.bfloat16()
    nll = part.nll(out, x.float())
    assert nll.dtype == torch.float32
    exact = part.double() if isinstance(part, Gaussian) else part
    torch.testing.assert_close(nll.double(), exact.nll(out.double(), x.float().double()), rtol=1e-5, atol=0)
    assert part.sample(out, Rng(0)).dtype in (torch.float32, torch.float64)


def test_safetensors_round_trip():
    part, other = Gaussian(X), Gaussian(X)
    part.logvar.data.fill_(0.7)
    other.load_state_dict(load(save(part.state_dict())))
    assert other.logvar.item() == part.logvar.item()


@pytest.mark.parametrize("kind", [MSE, L1, Gaussian])
def test_refuses_codes(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__} expects continuous x, got 4×4 codes of 8 classes"):
        kind(TensorType((4, 4), classes=8))


test_refuses = refusals(
    (lambda: Bernoulli(TensorType((3,))), "Bernoulli expects x with a range.*, got 3 unbounded"),
    (lambda: Gaussian(X, variance="pixel"), "Gaussian expects variance to be 'shared' or 'element', got 'pixel'"),
    (lambda: Gaussian(TensorType(()), variance="element"), "Gaussian with a variance for each element .*, got scalar"),
)
