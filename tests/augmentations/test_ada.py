import copy
import math
from functools import partial

import pytest
import torch

from modkit import Rng, SpecError, StepContext, TensorType, build, load, train, use
from modkit.augmentations import ADA
from modkit.building.plan import plan
from modkit.building.session import load_run
from modkit.kinds import AugmentationExtras, Round, read_extras
from modkit.losses import R1, GradientPenalty
from modkit.losses.augmented import AugmentedCritic
from modkit.losses.coefficients import Constant, Warmup
from modkit.types import Cond
from tests.play import spec
from tests.refusals import list_problems

X = TensorType((3, 8, 6), range=(-1.0, 1.0))


def pictures(num, shape=(3, 8, 6)):
    return torch.rand(num, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.wide
def test_idle_it_changes_nothing_to_the_bit():
    assert torch.equal(ADA(X)(pictures(4), Rng(0)), pictures(4))


@pytest.mark.wide(1)
@pytest.mark.parametrize("group", ["blit", "geometry", "color"])
def test_the_share_of_changed_images_is_that_of_its_gates(group):
    """An image stays if no gate is open, or what passes draws nothing: half a flip, a quarter of turns, no shift."""
    p = 0.3
    x = pictures(20_000)
    same = (ADA(X, groups=[group], p=p)(x, Rng(0)) == x).flatten(1).all(1).double().mean()
    stays = {
        # by rows, of 8: 2/8 of U(-1, 1) rounds to 0 with probability 1/2; by columns, of 6: 2/3
        "blit": (1 - p / 2) * (1 - 3 * p / 4) * (1 - p + p * (1 / 2) * (2 / 3)),
        "geometry": (1 - p) ** 4,
        "color": (1 - p) ** 4 * (1 - p / 2),
    }[group]
    assert abs(same - stays) < 4 * (stays * (1 - stays) / 20_000) ** 0.5


def test_whole_moves_keep_values_and_are_those_of_the_square():
    """A square that is mirrored, turned and moved is made of its own values."""
    x = pictures(64, (1, 5, 5))
    made = ADA(TensorType((1, 5, 5)), groups=["blit"], p=1.0)(x, Rng(0))
    for one, own in zip(made, x, strict=True):
        assert torch.isclose(one.flatten()[:, None], own.flatten(), atol=1e-5).any(1).all()


def test_colours_are_those_of_the_paper_s_matrices():
    """By the product of its homogeneous matrices, built anew of the same draws."""
    x, n, rng = pictures(6).double(), 6, Rng(0).at("color")
    like = torch.empty(n, dtype=torch.float64)
    b, c, s = (rng.normal(name, like) for name in ("brightness", "contrast", "saturation"))
    luma, angle = rng.integers("luma", like, 0, 2), math.pi * (2 * rng.uniform("hue", like) - 1)
    made = ADA(X, groups=["color"], p=1.0)(x, Rng(0))
    eye, v = torch.eye(4, dtype=torch.float64), torch.tensor([1, 1, 1, 0], dtype=torch.float64) / math.sqrt(3)
    grey = torch.outer(v, v)
    cross = torch.tensor([[0, -1, 1, 0], [1, 0, -1, 0], [-1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    for i in range(n):
        matrix = eye.clone()
        matrix[:3, 3] = 0.2 * b[i]
        matrix = torch.diag(torch.tensor([2 ** (0.5 * c[i])] * 3 + [1], dtype=torch.float64)) @ matrix
        matrix = (eye - 2 * grey * luma[i]) @ matrix
        matrix = torch.linalg.matrix_exp(angle[i] * cross / math.sqrt(3)) @ matrix
        matrix = (grey + (eye - grey) * 2 ** s[i]) @ matrix
        matrix[3] = eye[3]
        want = (matrix @ torch.cat([x[i].flatten(1), torch.ones(1, 48).double()]))[:3].reshape(3, 8, 6)
        torch.testing.assert_close(made[i], want)


def test_under_autocast_it_computes_in_float32():
    ramp = torch.linspace(-1, 1, 64).expand(4, 1, 64, 64)
    augment = ADA(TensorType((1, 64, 64), range=(-1.0, 1.0)), groups=["geometry", "color"], p=1.0)
    want = augment(ramp, Rng(0))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(augment(ramp, Rng(0)), want, rtol=0, atol=0)


def test_p_moves_by_the_signs_every_four_turns():
    part = ADA(X, target=0.5, images=80, p=0.1)
    step, seen = StepContext(Rng(0), training=True), []
    for turn in range(12):
        real = torch.ones(10) if turn < 8 else -torch.ones(10)
        part.observe(real[:4])
        part.observe(real[4:].reshape(6, 1, 1, 1).expand(6, 1, 2, 2))
        part.update(step)
        seen.append(round(float(part.p), 6))
    assert seen == [0.1] * 3 + [0.6] * 4 + [1.0] * 4 + [0.5]  # 40 images move p by a half; it stays in [0, 1]


def take_turns(part, num):
    """p at each of some turns, in all of which the critic takes samples for real."""
    seen = []
    for index in range(num):
        seen.append(float(part.p))
        if part.observe:
            part.observe(torch.ones(10))
        part.update(StepContext(Rng(0), index, training=True))
    return seen


def test_a_held_p_never_moves():
    part = ADA(X, held=0.3)
    assert (
        take_turns(part, 12) == [float(torch.tensor(0.3))] * 12
        and read_extras(part, AugmentationExtras).observe is None
    )
    assert take_turns(ADA(X, images=80), 9)[-1] == 1, "one that follows the critic does"
    assert torch.equal(part(pictures(4), Rng(0)), ADA(X, p=0.3)(pictures(4), Rng(0)))
    assert part.state_dict().keys() == ADA(X).state_dict().keys()


def test_a_held_p_follows_a_schedule_which_a_copy_goes_on_with():
    rule = partial(Warmup, value=0.4, steps=8, initial=0.1, start=2)
    part = ADA(X, held=lambda term: rule())
    expected = [rule()(StepContext(Rng(0), index), {}, None) for index in range(12)]
    assert take_turns(part, 12) == pytest.approx(expected) and expected[0] == 0.1 and expected[-1] == 0.4
    fresh = ADA(X, held=lambda term: rule())
    fresh.load_state_dict(copy.deepcopy(part).state_dict())
    assert fresh.p == part.p
    assert take_turns(ADA(X, held=lambda term: Constant(value=7.0)), 2) == [1.0, 1.0], "it is clamped"


@pytest.mark.wide(1)
@pytest.mark.parametrize("held", [0.3, {"use": "warmup", "value": 0.3, "steps": 4}], ids=["number", "schedule"])
@pytest.mark.parametrize("losses", ["relativistic", "wasserstein"])
def test_a_held_p_goes_with_any_losses_in_a_run_that_loads(held, losses, tmp_path):
    """R3GAN's recipe was refused."""
    net = use("mlp", width=8, depth=1)
    gan = use("gan", generator=net, discriminator=net, adversarial=losses, augment=use("ada", held=held))
    run = train(spec(gan, steps=5), tmp_path / "run")
    model = load(run)
    assert model.augment.p == pytest.approx(0.3)
    assert load_run(run).model.composition.plan.resolved.model["augment"].keys() == {"use", "groups", "held"}


def test_p_that_follows_the_critic_beside_such_losses_is_refused_with_what_to_do():
    net = use("mlp", width=8, depth=1)
    gan = use("gan", generator=net, discriminator=net, adversarial="relativistic", augment="ada")
    with pytest.raises(SpecError, match=r"leaves a constant of logits open; hold the strength \(`ada: {held: 0.3}`"):
        build(spec(gan))
    (problem,) = list_problems(plan, spec({**gan, "augment": use("ada", held=0.3, target=0.5)}))
    assert "model.augment.target: got 'target' beside 'held', which replaces it" in problem
    (problem,) = list_problems(build, spec({**gan, "augment": use("ada", held={"use": "adaptive"})}))
    assert "ada cannot be built from x 1×8×8 in [-1, 1]: Adaptive weight of 'p' expects a decoder" in problem


def test_its_state_goes_on():
    """Between two moves as well."""
    step = StepContext(Rng(0), training=True)
    one, other = ADA(X, images=100), ADA(X, images=100)
    for turn in range(9):
        for part in (one, other):
            part.observe(torch.tensor([1.0, 1.0, -0.5 + 0.2 * turn]))
            part.update(step)
        if turn in (1, 5):
            fresh = ADA(X, images=100)
            fresh.load_state_dict(other.state_dict())
            other = fresh
    assert 0 < one.p < 1 and torch.equal(one.p, other.p) and torch.equal(one.seen, other.seen)


class Other:
    """The exchange of two processes of which the other saw logits of its own."""

    rank, world = 0, 2

    def __init__(self, *others):
        self.others = list(others)

    def total(self, value):
        return value + self.others.pop(0)


def test_two_processes_move_it_as_one():
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0)) + 1.5
    one, shared = ADA(X, images=100), ADA(X, images=100)
    for row in logits:
        one.observe(row)
        one.update(StepContext(Rng(0), training=True))
        theirs = torch.tensor([row[5:].sign().sum(), 5.0])
        shared.observe(row[:5])
        shared.update(StepContext(Rng(0), training=True, exchange=Other(theirs)))
    assert one.p > 0 and torch.equal(one.p, shared.p) and torch.equal(one.seen, shared.seen)


@pytest.mark.wide(1)
@pytest.mark.parametrize("penalty", [R1(), GradientPenalty()])
def test_penalties_through_it_have_second_gradients(penalty):
    part = ADA(TensorType((1, 4, 3)), p=0.9)
    real, fake = torch.randn(2, 2, 1, 4, 3, dtype=torch.float64)

    def compute(first, second):
        def critic(x, cond):
            return (torch.tanh(x.flatten(1) @ first) @ second).squeeze(1)

        view = AugmentedCritic(critic, part, Rng(1))
        return penalty(Round(real, Cond(), Rng(0), fake=fake, critic=view))

    weights = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((12, 3), (3, 1))]
    assert torch.autograd.gradcheck(compute, weights) and torch.autograd.gradgradcheck(compute, weights)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"x": TensorType((2,))}, r"ADA expects continuous images \(c, h, w\), got 2 unbounded"),
        ({"groups": ["noise"]}, r"ADA expects groups of \['blit', 'geometry', 'color'\], got \['noise'\]"),
        ({"held": 1.5}, r"ADA expects held in \[0, 1\], got 1.5"),
        ({"p": 1.5}, r"ADA expects p to be in \[0, 1\], got 1\.5"),
    ],
)
def test_refuses(params, message):
    with pytest.raises(ValueError, match=message):
        ADA(**{"x": X, **params})
