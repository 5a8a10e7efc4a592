"""A package of a stranger, on public names only: a game of three players, of data of which few have labels."""

from pathlib import Path

import pytest
import torch
from torch import nn

import modkit
from modkit import Batch, Cond, CondType, Rng, StepContext, TensorType
from modkit.data import Digits
from tests.examples.packages import check_package, find_flaws, install_package

FOLDER = Path(__file__).parents[2] / "examples" / "triple_gan"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    with install_package(FOLDER, tmp_path_factory.mktemp("site")) as module:
        yield module


def test_it_is_short_and_imports_what_is_public():
    check_package(FOLDER)


@pytest.mark.wide(1)
@pytest.mark.parametrize("kind", ["model", "data"])
def test_a_part_passes_the_battery(parts, kind):
    assert not find_flaws("triple", kind)


class OneHot(nn.Module):
    """The class itself, as conditions."""

    reads, type = ("labels",), CondType(vector=2)

    def __init__(self, fields):
        super().__init__()

    def forward(self, fields, rng):
        return Cond(vector=nn.functional.one_hot(fields["labels"], 2).double())

    def null(self, num): ...

    def draw(self, num, rng): ...

    def prepare(self, batches): ...


class Table(nn.Module):
    """A discriminator with a logit for each pair of one of three points and one of two classes."""

    def __init__(self, x, cond):
        super().__init__()
        self.logits, self.judged = nn.Parameter(torch.zeros(3, 2, dtype=torch.float64)), []

    def forward(self, x, cond):
        pairs = x[:, :, None] * cond.vector[:, None]
        self.judged.append(pairs.detach().mean(0))
        return (pairs * self.logits).sum((1, 2))


class Points(nn.Module):
    """A generator of the points, each as often as the first value of the noise is in a third of its range."""

    def __init__(self, z, x, cond):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, z, cond):
        point = (z[:, 0] > -0.8).long() + (z[:, 0] + cond.vector[:, 0] > 0.5).long()
        return self.weight * nn.functional.one_hot(point, 3).double()


class Itself(nn.Module):
    """The features of a point are the point."""

    h = TensorType((3,))

    def __init__(self, x, cond):
        super().__init__()

    def forward(self, x):
        return x


def make_toy(parts, alpha):
    """The game on three points and two classes; those with labels have another distribution."""
    slots = {"generator": Points, "classifier": Itself, "discriminator": Table, "conditioner": OneHot}
    fields = {"labels": TensorType((), classes=2), "known": TensorType((3,))}
    torch.manual_seed(0)
    game = parts.TripleGAN(TensorType((3,)), CondType(), fields, labelled="known", alpha=alpha, **slots).double()
    points = torch.eye(3, dtype=torch.float64)
    x, known = points[torch.tensor([0, 1, 1, 2, 2] * 60)], points[torch.tensor([0, 0, 0, 1, 2, 0, 0, 1, 1, 2] * 30)]
    return game, Batch(x, {"known": known, "labels": torch.tensor([0, 1, 0, 0, 1, 1, 1, 1, 0, 0] * 30)})


def play(game, player, batch):
    return game.losses(player, batch, StepContext(Rng(0), training=True))


@pytest.mark.parametrize("alpha", [0.5, 0.2])
def test_the_best_discriminator_is_that_of_the_paper(parts, alpha):
    game, batch = make_toy(parts, alpha)
    table = game.discriminator
    optimizer = torch.optim.LBFGS([table.logits], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def evaluate():
        optimizer.zero_grad()
        loss = play(game, "discriminator", batch)["adversarial"]
        loss.backward()
        return loss

    optimizer.step(evaluate)
    real, classified, generated = table.judged[:3]
    assert min(one.min() for one in (real, classified, generated)) > 0
    assert min((one - other).abs().max() for one, other in [(real, classified), (real, generated)]) > 0.05
    expected = real / (real + (1 - alpha) * generated + alpha * classified)
    torch.testing.assert_close(table.logits.sigmoid(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(classified.sum(1), batch.tensor.mean(0))
    assert not torch.allclose(real.sum(1), batch.tensor.mean(0))


def test_the_losses_of_the_others_are_those_of_their_equations(parts):
    game, batch = make_toy(parts, alpha=0.3)
    table, x = game.discriminator, batch.tensor
    table.logits.data = Rng(0).normal("logits", table.logits)
    log_fake = torch.log1p(-table.logits.sigmoid())
    p = game.classify(torch.eye(3, dtype=torch.float64)).softmax(1)
    found = play(game, "classifier", batch)
    torch.testing.assert_close(found["adversarial"], 0.3 * (x.mean(0)[:, None] * p * log_fake).sum())
    known = (batch.fields["known"][:, :, None] * OneHot({})(batch.fields, None).vector[:, None]).mean(0)
    torch.testing.assert_close(found["class"], -(known * p.log()).sum())
    made = play(game, "generator", batch)["adversarial"]
    generated = table.judged[-1]
    torch.testing.assert_close(made, -0.7 * (generated * nn.functional.logsigmoid(table.logits)).sum())
    torch.testing.assert_close(found["pseudo"], -(generated * p.log()).sum())
    assert game.weights("classifier")["pseudo"](StepContext(Rng(0)), {}, None) == 0.1
    for player, owned in (("classifier", ["classifier"]), ("generator", ["generator", "discriminator"])):
        game.zero_grad()
        sum(play(game, player, batch).values()).backward()
        moved = {name.partition(".")[0] for name, one in game.named_parameters() if one.grad is not None}
        assert moved - {"discriminator"} == {*owned} - {"discriminator"}


@pytest.mark.wide
def test_it_trains_on_partly_labelled_data_and_is_loaded(parts, tmp_path):
    spec = modkit.load_spec(FOLDER / "triple-gan.yaml", ["train.batch_size=16", "train.samples.num=4"])
    assert not modkit.check(spec).unchecked
    before = modkit.build(spec).state_dict()
    run = modkit.train(spec, tmp_path / "run", steps=3)
    model = modkit.load(run)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert all(any(name.startswith(player.modules) for name in moved) for player in model.players())
    x = model.sample(2, seed=0, **{"class": [3, 5]})
    assert x.shape == (2, 1, 8, 8) and not torch.equal(x, model.sample(2, seed=0, **{"class": [5, 3]}))
    data = parts.FewLabels(data=lambda: Digits(size=8), num=7)
    batch = data.read("train", range(40), Rng(0))
    digits = data.data.read("train", range(7), Rng(0))
    rows = (batch.fields["labelled"][:, None] == digits.tensor).flatten(2).all(2)
    assert (rows.sum(1) == 1).all() and rows.any(0).all(), "each of the labelled samples, and no other"
    torch.testing.assert_close(digits.fields["labels"][rows.long().argmax(1)], batch.fields["class"])
