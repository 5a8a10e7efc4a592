"""Penalties on the judge of pairs, against differences of its logits, row by row in float64."""

import pytest
import torch
from torch.nn import functional as F

from modkit import Rng, StepContext, use
from modkit.losses import R1, R2, Consistency, FeatureMatching, GradientPenalty
from modkit.models import Bidirectional
from modkit.types import Batch, Cond, TensorType
from tests.play import turn

SHAPES = {"vector": (3,), "image": (1, 2, 2)}
GAMES = {"ali": {"game": "ali"}, "veegan": {"game": "veegan"}, "infogan": {"game": "infogan", "categories": 2}}
SMALL = 1e-6


def make(shape, game, **regularizers):
    torch.manual_seed(0)
    networks = {"encoder": "mlp", "discriminator": use("mlp", width=8, depth=1), "noise": 1}
    bottleneck = use("gaussian", channels=3)
    slots = {**networks, "bottleneck": bottleneck, **GAMES[game], "regularizers": regularizers}
    return Bidirectional(TensorType(SHAPES[shape]), **slots).double()


def draw(shape):
    return Batch(Rng("x").uniform("x", torch.empty(5, *SHAPES[shape], dtype=torch.float64)) * 2 - 1, {})


def lay(x, code):
    return Cond(concat=code.view(*code.shape, *[1] * (x.ndim - 2)).expand(*code.shape, *x.shape[2:]))


@torch.no_grad()
def play(model, batch, game):
    """What the judge is given of real and of generated samples, by the equations of the games."""
    z = model.draw_source(5, "z", turn("a").rng)
    x, fake = batch.tensor, model.generator(z, Cond())
    if game == "infogan":
        return (x, Cond()), (fake, Cond())
    step = StepContext(turn("a").rng.at("encoder").at("bottleneck")) if game == "ali" else None
    code = model.bottleneck(model.encoder(x), step).values["continuous"]
    return (x, lay(x, code)), (fake, lay(x, z[:, :3]))


@torch.no_grad()
def differentiate(model, x, cond):
    """The gradient of each row's logit with respect to x, by central differences."""
    slopes = torch.empty_like(x).flatten(1)
    for i in range(slopes.shape[1]):
        shift = SMALL * F.one_hot(torch.tensor(i), slopes.shape[1]).view(x.shape[1:])
        up, down = (model.discriminator(x + sign * shift, cond) for sign in (1, -1))
        slopes[:, i] = (up - down) / (2 * SMALL)
    return slopes


def measure(model, name, real, fake):
    """The penalty, from the definition."""
    if name == "gp":
        (x, cond), (made, beside) = real, fake
        share = turn("a").rng.at("gp").uniform("eps", x.new_empty(5, *[1] * (x.ndim - 1)))
        between = share * x + (1 - share) * made
        given = cond if cond.concat is None else Cond(concat=share * cond.concat + (1 - share) * beside.concat)
        return 10 * (differentiate(model, between, given).norm(dim=1) - 1).square().mean()
    if name == "consistency":
        gaps = [model.discriminator(x, cond) - model.discriminator(2 * x, cond) for x, cond in (real, fake)]
        return 10 * sum(gap.square().mean() for gap in gaps)
    slopes = differentiate(model, *{"r1": real, "r2": fake}[name])
    return slopes.square().sum(1).mean() / 2


class Doubling:
    """T(x) = 2 x."""

    def __init__(self, x):
        pass

    def __call__(self, x, rng):
        return 2 * x


PARTS = {
    "r1": R1,
    "r2": R2,
    "gp": GradientPenalty,
    "consistency": lambda x: Consistency(x, augment=Doubling),
}


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PARTS)
def test_a_penalty_is_on_the_pairs_that_the_judge_is_given(name, shape, game):
    model, batch = make(shape, game, **{name: PARTS[name]}), draw(shape)
    penalty = model.losses("discriminator", batch, turn("a"))[name]
    torch.testing.assert_close(penalty, measure(model, name, *play(model, batch, game)), rtol=1e-6, atol=1e-9)

    weight = next(one for one in model.discriminator.parameters() if one.ndim > 1)
    (gradient,) = torch.autograd.grad(penalty, weight)
    place, changed = divmod(int(gradient.abs().argmax()), weight.shape[1]), []
    for sign in (1, -1):
        with torch.no_grad():
            weight[place] += sign * SMALL
            changed.append(model.losses("discriminator", batch, turn("a"))[name].detach())
            weight[place] -= sign * SMALL
    torch.testing.assert_close(gradient[place], (changed[0] - changed[1]) / (2 * SMALL), rtol=1e-5, atol=1e-8)
    assert gradient[place] != 0
    own = [*model.generator.parameters(), *model.encoder.parameters()]
    assert all(one is None for one in torch.autograd.grad(penalty, own, allow_unused=True))


@pytest.mark.parametrize("game", GAMES)
def test_features_of_pairs_are_matched_by_what_made_the_fake_ones(game):
    model, batch = make("vector", game, matching=FeatureMatching), draw("vector")
    loss = model.losses("generator", batch, turn("a"))["matching"]
    means = [model.discriminator.judge(*pair).maps[-1].mean(0) for pair in play(model, batch, game)]
    torch.testing.assert_close(loss, (means[0] - means[1]).square().sum())
    made = torch.autograd.grad(loss, [*model.generator.parameters()], retain_graph=True)
    assert all(one.abs().max() > 0 for one in made)
    assert torch.autograd.grad(loss, [*model.encoder.parameters()], allow_unused=True)[0] is None
