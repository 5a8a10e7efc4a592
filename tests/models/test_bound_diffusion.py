import math

import pytest
import torch
from torch import nn

from modkit import build, use
from modkit.diffusion.schedules import Linear
from modkit.diffusion.variational import variational_bound
from modkit.rng import Rng
from modkit.types import Batch, Cond, Denoised
from tests.mixture import ring
from tests.models.test_diffusion import made
from tests.play import digits, spec

MIXTURE = ring()


class Exact(nn.Module):
    """The best denoiser of a mixture, as a network that predicts x_0 from what a parametrization feeds it."""

    def __init__(self, x, out, cond):
        super().__init__()

    def scales(self, time):
        raise NotImplementedError

    def forward(self, x, cond):
        alpha, sigma = self.scales(cond.time.double())
        x_t = x.double() * (alpha**2 + sigma**2).sqrt()[:, None]
        return torch.vmap(lambda x, a, s: MIXTURE.denoised(x[None], a, s)[0])(x_t, alpha, sigma).to(x)


class OnTable(Exact):
    def scales(self, time):
        return Linear().scales((time + 1) / 1000)


class OnNoise(Exact):
    def scales(self, time):
        return torch.ones_like(time), torch.exp(4 * time)


@pytest.mark.parametrize(
    "process, network, loose",
    [({"schedule": "linear"}, OnTable, 1.0), ({"schedule": "edm", "times": "log-normal"}, OnNoise, 0.1)],
    ids=["linear", "edm"],
)
def test_with_the_exact_denoiser_it_is_near_the_likelihood(process, network, loose):
    model = build(spec(use("diffusion", network=use(network), parametrization="x0", **process), use("ring", num=8)))
    x = MIXTURE.sample(1000, Rng(3))
    gap = MIXTURE.log_prob(x) - model.bound(Batch(x.float(), {}), 16, Rng(0))
    error = float(gap.std()) / math.sqrt(1000)
    assert error < 0.15
    assert -3 * error < gap.mean() < loose + 3 * error


def steep(**slots):
    """A model whose predictions leave the data's range."""
    model = made(**slots)
    model.network.weight.data[0] = 3.0
    return model


@pytest.mark.parametrize("parametrization", ["x0", "eps", "eps-learned"])
def test_predictions_are_the_conditional_model_s_clipped_to_the_range(parametrization):
    model = steep(
        parametrization=parametrization, conditioner=use("label", width=5, drop=0.5), guidance=use("cfg", scale=3.0)
    )
    batch = digits(6, torch.float64)
    clipped = []

    def denoise(x_t, t):
        coefficients = model.parametrization.coefficients(t, model.schedule.scales(t))
        x_in, time = model.parametrization.inputs(x_t, coefficients)
        vector = model.conditioner.embedding(batch.fields["labels"])
        out = model.network(x_in, Cond(vector=vector, time=time))
        x_0, v = model.parametrization.denoised(out, x_t, coefficients)
        clipped.append(bool((x_0.abs() > 1).any()))
        return Denoised(x_0.clamp(-1, 1), v)

    for grain in (0.0, 0.5):
        want = variational_bound(model.schedule, denoise, batch.tensor, 3, Rng(0), grain=grain)
        torch.testing.assert_close(model.bound(batch, 3, Rng(0), grain=grain), want, rtol=1e-12, atol=0)
    assert any(clipped)


@pytest.mark.parametrize(
    "process",
    [{"schedule": use("linear", num=20)}, {"schedule": "edm", "times": "log-normal"}],
    ids=["linear", "edm"],
)
def test_a_bound_is_the_same_in_any_batches(process):
    model, x = steep(**process), digits(9, torch.float64).tensor
    whole = model.bound(Batch(x, {}), 2, Rng(0))
    parts = [model.bound(Batch(x[a:b], {}), 2, Rng(0).rows(a)) for a, b in ((0, 4), (4, 9))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=0)
    whole.sum().backward()
    assert model.network.weight.grad.isfinite().all() and (model.network.weight.grad != 0).all()


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="Diffusion.bound expects num of at least 1, got 0"):
        made().bound(digits(2, torch.float64), 0, Rng(0))
