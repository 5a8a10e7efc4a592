import itertools
import math

import pytest
import torch

from modkit import Rng, StepContext, build, find, use
from modkit.engines import LocalEngine
from modkit.kinds import Round
from modkit.losses import PathLength
from modkit.nn.mlp import MLPGenerator
from modkit.nn.stylegan2 import StyleGAN2Generator
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import draw, normal
from tests.play import digits, spec, turn
from tests.refusals import refusals

X = TensorType((2, 3, 5), (-1.0, 1.0))
STYLED = use("stylegan2", channels=4, style=6, mixing=0.0)


def play(generator, z, seed=0):
    return Round(normal(len(z), *X.shape), Cond(), Rng(seed), z=z, generator=generator)


def measure(jacobian, z, seed=0):
    """|J^T y| of each sample by its whole Jacobian."""
    y = Rng(seed).normal("y", z.new_empty(len(z), *X.shape)).flatten(1) / math.sqrt(15)
    return torch.einsum("bxd,bx->bd", jacobian.flatten(1, -2), y).square().sum(1).sqrt()


def test_it_is_the_equation_by_the_jacobian_of_the_noise():
    generator, z = draw(MLPGenerator(TensorType((4,)), X, CondType(), width=6)), normal(3, 4)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda one: generator(one[None], Cond())[0], r) for r in z]
    )
    lengths = measure(jacobian, z)
    part = PathLength(gamma=3.0).double()
    assert part(play(generator, z)) == 0, "the first turn measures"
    part.update(StepContext(Rng(0)))
    torch.testing.assert_close(part.mean, lengths.mean())
    other = measure(jacobian, z, seed=1)
    torch.testing.assert_close(part(play(generator, z, seed=1)), 3 * (other - lengths.mean()).square().mean())


def synthesize(generator, z, cond=Cond()):
    """What the generator makes of each layer's styles, as in training, and these styles."""
    rng = Rng(0).at("noise")
    w = generator.map_layers(z, cond, rng).detach().clone()
    noise = rng.replay()
    return w, lambda w: generator.synthesis(w, noise.replay())


@pytest.mark.wide(1)
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, by its jvp
@pytest.mark.parametrize(("size", "mixing"), [(8, 0.0), (8, 0.7), (16, 0.7)])
def test_lengths_are_those_of_the_authors_formula_layer_by_layer(size, mixing):
    """sqrt(mean_l sum_d (J_l^T y)_d^2), by forward derivatives; the fault: 2 to 2.75 times as much, of one w.

    The formula is that of `training/loss.py` of stylegan2-ada-pytorch, `pl_grads.square().sum(2).mean(1).sqrt()`.
    """
    x = TensorType((1, size, size), (-1.0, 1.0))
    options = {"channels": 2, "style": 3, "mapping": 1, "mixing": mixing}
    generator = draw(StyleGAN2Generator(TensorType((4,)), x, CondType(), **options), scale=1.0).train()
    z = normal(2, 4)
    w, make = synthesize(generator, z)
    y, slopes = Rng(0).normal("y", make(w)) / size, torch.zeros_like(w)
    for layer, value in itertools.product(*map(range, w.shape[1:])):  # forwards, one value of one layer at a time
        step = torch.zeros_like(w)
        step[:, layer, value] = 1
        slopes[:, layer, value] = (torch.func.jvp(make, (w,), (step,))[1] * y).sum((1, 2, 3))
    assert w.shape[1] == {8: 4, 16: 6}[size]
    lengths = slopes.square().sum(2).mean(1).sqrt()
    part = PathLength(gamma=2.0).double()
    played = [Round(normal(2, *x.shape), Cond(), Rng(0), z=z, generator=generator) for _ in range(2)]
    part(played[0])
    torch.testing.assert_close(part.measured[0], lengths.sum(), rtol=1e-12, atol=0)
    part.turns.fill_(1)
    part.mean.fill_(0.7)
    penalty = part(played[1])
    torch.testing.assert_close(penalty, 2 * (lengths - 0.7).square().mean(), rtol=1e-12, atol=0)
    penalty.backward()
    silent = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in silent if "strength" not in name and "bias" not in name] == []


def test_without_layers_of_its_own_w_is_one_as_in_earlier_runs():
    generator = draw(StyleGAN2Generator(TensorType((4,)), X, CondType(), channels=3, style=4, mapping=1), scale=1.0)
    z, earlier = normal(3, 4), find("regularizer", "path-length").earlier

    def synthesize(w):  # all rows at once, for each has noise of its own
        return generator.synthesis(w, Rng(0).at("noise"))

    full = torch.autograd.functional.jacobian(synthesize, generator.styles(z, Cond()))
    lengths = measure(torch.stack([full[i, :, :, :, i] for i in range(3)]), z)
    part = PathLength(gamma=3.0, **earlier).double()
    part(play(generator, z))
    torch.testing.assert_close(part.measured[0], lengths.sum())


class Single:
    """A generator with styles of a single layer."""

    draws = False

    def styles(self, z, cond):
        return torch.tanh(z)

    def map_layers(self, z, cond, rng):
        return self.styles(z, cond)[:, None]

    def synthesis(self, w):
        return (w[:, 0] if w.ndim == 3 else w).pow(3)


def test_of_one_layer_both_lengths_are_equal():
    z, parts = normal(3, 4), (PathLength().double(), PathLength(by_layer=False).double())
    for part in parts:
        part(Round(z, Cond(), Rng(0), z=z, generator=Single()))
    assert torch.equal(parts[0].measured, parts[1].measured) and parts[0].measured.all()


def test_the_first_rows_of_a_batch_stand_for_it():
    z, part, half = normal(5, 4), PathLength(shrink=2).double(), PathLength().double()
    generator = lambda z, cond: z**3 * cond.vector  # noqa: E731
    part(Round(z, Cond(vector=normal(5, 4)), Rng(0), z=z, generator=generator))
    half(Round(z[:2], Cond(vector=normal(5, 4)[:2]), Rng(0), z=z[:2], generator=generator))
    assert torch.equal(part.measured, half.measured) and part.measured[1] == 2
    part(Round(z[:1], Cond(vector=normal(1, 4)), Rng(0), z=z[:1], generator=generator))
    assert part.measured[1] == 3, "at least one row"


@pytest.mark.wide
def test_second_gradients_by_the_generator_s_weights():
    z = normal(2, 3)
    part = PathLength().double()
    part.turns.fill_(1)  # a is a constant of the turn

    def penalize(first, second):
        return part(play(lambda z, cond: torch.tanh(torch.tanh(z @ first) @ second).reshape(-1, *X.shape), z))

    weights = [normal(3, 2).requires_grad_(), normal(2, 30, seed=3).requires_grad_()]
    assert torch.autograd.gradcheck(penalize, weights) and torch.autograd.gradgradcheck(penalize, weights)


def test_the_mean_is_over_microbatches_and_turns_and_then_a_moving_average():
    part, seen = PathLength(decay=0.4), []
    for turn_ in range(5):
        for row in range(2):
            z = torch.full((1, 4), 1.0 + turn_ + row)
            part(Round(z, Cond(), Rng(turn_, row), z=z, generator=lambda z, cond: z**2))
            seen.append(float((2 * z * Rng(turn_, row).normal("y", z)).norm()))
        part.update(StepContext(Rng(0)))
    means = torch.tensor(seen).view(5, 2).mean(1)
    expected = means[:2].mean()  # 1/1, 1/2, then .4
    for mean in means[2:]:
        expected = expected + 0.4 * (mean - expected)
    torch.testing.assert_close(part.mean, expected)
    part.eval()
    part(Round(z, Cond(), Rng(0), z=z, generator=lambda z, cond: z))
    assert not part.measured.any()


class Pair(LocalEngine):
    """Adds what the other of two processes has measured."""

    rank, world = 0, 2

    def __init__(self, other):
        self.other = other

    def total(self, value):
        return value + self.other


def test_processes_have_the_mean_of_all_rows():
    parts, rows = [PathLength().double(), PathLength().double()], normal(4, 4)
    generator = lambda z, cond: z**3  # noqa: E731
    for part, first in zip(parts, (0, 2)):
        z = rows[first : first + 2]
        part(Round(z, Cond(), Rng(0).rows(first), z=z, generator=generator))
    measured = [part.measured.clone() for part in parts]
    for part, other in zip(parts, reversed(measured)):
        part.update(StepContext(Rng(0), exchange=Pair(other)))
    whole = PathLength().double()
    whole(Round(rows, Cond(), Rng(0), z=rows, generator=generator))
    whole.update(StepContext(Rng(0)))
    assert torch.equal(parts[0].mean, parts[1].mean)
    torch.testing.assert_close(parts[0].mean, whole.mean)


@pytest.mark.parametrize("family", ["gan", "denoising-gan"])
def test_a_model_s_generator_owns_its_state_and_a_checkpoint_has_it(family):
    mlp = use("mlp", width=8, depth=1)
    parts = {"gan": {"generator": STYLED}, "denoising-gan": {"network": mlp}}[family]
    model = build(spec(use(family, **parts, discriminator=mlp, z_dim=4, regularizers={"length": use("path-length")})))
    batch = digits(4)
    losses = model.losses("generator", batch, turn())
    losses["length"].backward()
    part = model.get_submodule("penalties.length")
    assert part.measured[1] == 4 and set(losses) == {"adversarial", "length"}
    model.update("discriminator", turn())
    assert part.turns == 0
    part.measured[0] = 6.0
    model.update("generator", turn())
    assert part.turns == 1 and part.mean == 1.5
    assert {"penalties.length.mean", "penalties.length.turns"} <= set(model.state_dict())
    owner = next(player for player in model.players() if player.name == "generator")
    assert "penalties.length" in owner.modules


def test_lengths_do_not_depend_on_the_resolution():
    """Each channel repeated over more positions: each of n values moves alike, and y has the variance 1/n."""
    z, lengths = torch.randn(4000, 3), []
    for n in (2, 8):
        part = PathLength()
        part(Round(z, Cond(), Rng(n), z=z, generator=lambda z, cond, n=n: z[:, :, None, None].expand(-1, -1, n, n)))
        lengths.append(part.measured[0].item() / 4000)
    assert lengths[0] == pytest.approx(lengths[1], rel=0.03)  # the standard error of each is 1 %


test_mistakes_are_refused = refusals(
    (lambda: PathLength(gamma=-1), "PathLength expects gamma to be at least 0, got -1"),
    (lambda: PathLength(shrink=0), "PathLength expects shrink to be at least 1, got 0"),
    (lambda: PathLength(decay=0.0), r"PathLength expects decay to be in \(0, 1\], got 0"),
)
