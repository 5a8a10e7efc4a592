from functools import partial

import pytest
import torch
from torch.distributions import Categorical as Reference

from modkit import Spec, SpecError, build, use
from modkit.losses.levels import Categorical, DiscretizedLogistic
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.models.test_autoencoder import made
from tests.play import digits
from tests.refusals import refusals

X = TensorType((2, 3), range=(-1.0, 3.0))
PARTS = {
    "one": partial(DiscretizedLogistic, X),
    "mixture": partial(DiscretizedLogistic, X, mixtures=3),
    "categorical": partial(Categorical, X),
}


def evaluate(part, scale=2.0):
    """An output of a decoder, float64, log p of the lowest levels, and that of each level of each value, less it."""
    generator = torch.Generator().manual_seed(0)
    out = scale * torch.randn(1, *part.out(X).shape, dtype=torch.float64, generator=generator)
    x = torch.full((part.levels, 6, 6), X.range[0], dtype=torch.float64)  # in each row, one value leaves the lowest
    x += torch.eye(6) * torch.arange(part.levels, dtype=torch.float64).view(-1, 1, 1) * 4 / (part.levels - 1)
    log_p = -part.nll(out.expand(6 * part.levels, *out.shape[1:]), x.view(-1, *X.shape)).view(part.levels, *X.shape)
    return out, log_p[0, 0, 0], log_p - log_p[0, 0, 0]


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("name", PARTS)
def test_probabilities_sum_to_one(name, levels):
    part = PARTS[name](levels=levels)
    _, base, table = evaluate(part)
    torch.testing.assert_close(table.log_softmax(0)[0].sum(), base, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PARTS)
def test_mean_and_draws_are_those_of_the_probabilities(name):
    part, num = PARTS[name](levels=5), 4000
    out, _, table = evaluate(part, 1.0)
    table = table.softmax(0)
    values = torch.linspace(*X.range, 5, dtype=torch.float64)
    torch.testing.assert_close(part.mean(out), torch.einsum("lcn,l->cn", table, values)[None])
    x = part.sample(out.expand(num, *out.shape[1:]), Rng(0))
    assert set(x.unique().tolist()) <= set(values.tolist())
    shares = (x[None] == values.view(5, 1, 1, 1)).double().mean(1)
    error = (table * (1 - table) / num).sqrt()
    assert ((shares - table).abs() < 5 * error + 1e-9).all()


def test_a_bin_has_the_mass_of_the_logistics_between_its_edges():
    part = DiscretizedLogistic(TensorType((1,), range=(0.0, 1.0)), levels=5, mixtures=2)
    mean, log_scale, logits = torch.tensor([[-0.2, 0.5], [-1.0, 0.3], [0.4, -0.1]], dtype=torch.float64)
    out = torch.cat([mean, log_scale, logits])[None]
    edges = torch.tensor([-torch.inf, -0.75, -0.25, 0.25, 0.75, torch.inf], dtype=torch.float64)[:, None]
    mass = torch.sigmoid((edges - mean) / log_scale.exp()).diff(dim=0) @ logits.softmax(0)
    found = torch.cat([-part.nll(out, torch.tensor([[level / 4]])) for level in range(5)])
    torch.testing.assert_close(found, mass.log())


def test_categorical_is_that_of_torch():
    part, generator = Categorical(X, levels=4), torch.Generator().manual_seed(0)
    out = torch.randn(3, 8, 3, dtype=torch.float64, generator=generator)
    index = torch.randint(4, (3, 2, 3), generator=generator)
    expected = -Reference(logits=out.view(3, 4, 2, 3).movedim(1, -1)).log_prob(index).flatten(1).sum(1)
    torch.testing.assert_close(part.nll(out, -1 + index * 4 / 3), expected)


@pytest.mark.parametrize("name", PARTS)
def test_gradients(name):
    part, generator = PARTS[name](levels=4), torch.Generator().manual_seed(0)
    out = torch.randn(2, *part.out(X).shape, dtype=torch.float64, generator=generator).requires_grad_()
    x = -1 + torch.randint(4, (2, 2, 3), generator=generator) * 4 / 3
    assert torch.autograd.gradcheck(lambda out: part.nll(out, x), out)
    assert torch.autograd.gradcheck(part.mean, out)


@pytest.mark.parametrize("mean", [-40.0, 0.0, 40.0])
@pytest.mark.parametrize("log_scale", [-9.0, 0.0, 9.0])
def test_far_and_narrow_logistics_stay_finite_in_float32(mean, log_scale):
    part = DiscretizedLogistic(TensorType((1,), range=(-1.0, 1.0)), levels=256)
    out = torch.tensor([[mean, log_scale]], requires_grad=True)
    for x in (-1.0, 1 / 255, 1.0):
        nll = part.nll(out, torch.tensor([[x]]))
        exact = part.nll(out.detach().double(), torch.tensor([[x]], dtype=torch.float64))
        torch.testing.assert_close(nll.double(), exact, rtol=1e-4, atol=1e-6)
        (gradient,) = torch.autograd.grad(nll.sum(), out)
        assert gradient.isfinite().all()


def test_under_bfloat16_it_is_computed_in_float32():
    part = DiscretizedLogistic(X, levels=256)
    out, x = torch.randn(2, 4, 3).bfloat16(), torch.full((2, 2, 3), -1.0).bfloat16()
    assert part.nll(out, x).dtype == torch.float32
    torch.testing.assert_close(part.nll(out, x), part.nll(out.float(), x.float()))


@pytest.mark.parametrize("likelihood", ["discretized-logistic", "categorical"])
def test_the_bound_holds_for_data_of_these_levels_alone(likelihood):
    model, batch = made(likelihood=use(likelihood, levels=17)), digits(3, torch.float64)
    assert model.discrete and (model.bound(batch, 2, Rng(0)) < 0).all()
    with pytest.raises(ValueError, match="gives the probability of 17 values of x, evenly spaced"):
        model.bound(Batch(batch.tensor * 0.9, {}), 2, Rng(0))


@pytest.mark.parametrize("likelihood", ["discretized-logistic", "categorical"])
def test_levels_are_those_of_the_data_where_none_are_set(likelihood):
    digits = use("digits", size=8)
    for data, own, levels in (
        (digits, {}, 17),
        (use("binarized", data=digits), {}, 2),
        (use("corrupted", data=digits, corruption="noise"), {}, 17),
        (digits, {"levels": 5}, 5),
    ):
        read = "noisy" if data.params.get("corruption") else None
        model = use("autoencoder", encoder="mlp", decoder="mlp", likelihood=use(likelihood, **own), input=read)
        assert build(Spec(data=data, model=model)).likelihood.levels == levels
    with pytest.raises(
        SpecError, match=r"model\.likelihood: .*number of levels of x, got none, and x states none: set"
    ):
        build(Spec(data=use("digits", size=9), model=use("autoencoder", likelihood=likelihood)))


test_refuses = refusals(
    (lambda: DiscretizedLogistic(X, mixtures=0), "DiscretizedLogistic expects mixtures to be at least 1, got 0"),
    (lambda: Categorical(X, levels=1), "Categorical expects levels to be at least 2, got 1"),
    (
        lambda: Categorical(X),
        "Categorical expects the number of levels of x, got none, and x states none: set `levels`",
    ),
    (
        lambda: Categorical(TensorType((2,))),
        "Categorical expects continuous x with channels and a range, .*, got 2 unb",
    ),
    (lambda: DiscretizedLogistic(TensorType((), range=(0, 1))), "DiscretizedLogistic expects .*, got scalar"),
)
