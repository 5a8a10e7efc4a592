import math

import pytest
import torch

from modkit import Rng, StepContext, build, use
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


def test_it_is_the_equation_by_the_jacobian_of_the_styles():
    generator = draw(StyleGAN2Generator(TensorType((4,)), X, CondType(), channels=3, style=4, mapping=1), scale=1.0)
    z = normal(3, 4)

    def synthesize(w):  # all rows at once, for each has noise of its own
        return generator.synthesis(w, Rng(0).at("noise"))

    full = torch.autograd.functional.jacobian(synthesize, generator.styles(z, Cond()))
    lengths = measure(torch.stack([full[i, :, :, :, i] for i in range(3)]), z)
    part = PathLength(gamma=3.0).double()
    part.turns.fill_(1)
    part.mean.fill_(0.7)
    found = part(play(generator, z))
    torch.testing.assert_close(found, 3 * (lengths - 0.7).square().mean())
    found.backward()
    silent = [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in silent if "strength" not in name and "bias" not in name] == []


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
    (lambda: PathLength(gamma=-1), "PathLength expects gamma of at least 0, got -1"),
    (lambda: PathLength(decay=0.0), r"PathLength expects decay in \(0, 1\], got 0"),
)
