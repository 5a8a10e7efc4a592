import copy

import pytest
import torch

from modkit.bottlenecks import ResidualQuantizer, VectorQuantizer
from modkit.rng import Rng
from modkit.types import TensorType
from tests.bottlenecks.parts import SHAPES, passing, project
from tests.play import turn
from tests.refusals import refusals


def make(**keywords):
    """A quantizer whose projection is the identity, on vectors."""
    return passing(ResidualQuantizer(TensorType((2,)), channels=2, tokens=1, **keywords))


def books(part):
    return [part.codebooks[i % len(part.codebooks)].codes.detach() for i in range(part.depth)]


def descended(rows, books):
    """Codes and partial sums of vectors, one by one."""
    codes, sums = [], []
    for row in rows:
        left, mine, partial = row, [], []
        for book in books:
            code = min(range(len(book)), key=lambda k: float(((left - book[k]) ** 2).sum()))
            left = left - book[code]
            mine.append(code)
            partial.append(row - left)
        codes.append(mine)
        sums.append(torch.stack(partial))
    return torch.tensor(codes), torch.stack(sums)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_brute_force(shape, shared, codebook):
    options = {"depth": 3, "shared": shared, "num_codes": 7, "channels": 2, "codebook": codebook, "commitment": 0.5}
    part = ResidualQuantizer(TensorType(shape), tokens=1, **options).double()
    h = torch.randn(2, *shape, dtype=torch.float64)
    values, kl, losses = part(h, None)
    z = project(part, h)
    torch.testing.assert_close(values["continuous"], z)
    rows = z.detach().movedim(1, -1).reshape(-1, 2)
    codes, sums = descended(rows, books(part))

    assert len(part.codebooks) == (1 if shared else 3)
    assert list(values) == list(part.latents) == ["codes", "continuous", "quantized"]
    assert part.latents["codes"] == TensorType((3, *(shape[1:] or (1,))), classes=7)
    assert torch.equal(values["codes"].movedim(1, -1).reshape(-1, 3), codes)
    torch.testing.assert_close(values["quantized"].movedim(1, -1).reshape(-1, 2), sums[:, -1])
    assert kl is None
    commitment = sum((rows - sums[:, d]).square().mean() for d in range(3))
    torch.testing.assert_close(losses["commitment"], 0.5 * commitment)
    if codebook == "gradient":  # |sg r_{d-1} - e_d|^2 is the same number where codes are at hand
        torch.testing.assert_close(losses["codebook"], commitment)
    for name, value in values.items():
        assert torch.equal(part.to_z(name, value), values["quantized"])


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize("shape", [(6,), (6, 3, 5)])
def test_depth_one_is_vq(shape, codebook):
    options = {"num_codes": 9, "channels": 3, "codebook": codebook, "decay": 0.8, "revive": 0.0}
    one = ResidualQuantizer(TensorType(shape), depth=1, **options)
    vq = VectorQuantizer(TensorType(shape), **options)
    vq.load_state_dict({name.replace("codebooks.0", "codebook"): value for name, value in one.state_dict().items()})
    for index in range(3):
        h = torch.randn(4, *shape)
        got, want = one(h, turn(index)), vq(h, turn(index))
        assert torch.equal(got.values["codes"].flatten(), want.values["codes"].flatten())
        assert torch.equal(got.values["quantized"], want.values["quantized"])
        assert got.losses == want.losses
        for latents, part in ((got, one), (want, vq)):
            part.zero_grad()
            (latents.values["quantized"].square().sum() + sum(latents.losses.values())).backward()
            part.update(turn(index))
        for a, b in zip(one.parameters(), vq.parameters()):
            torch.testing.assert_close(a.grad, b.grad)  # summed in another order
    assert torch.equal(one.codebooks[0].codes, vq.codebook.codes)
    assert torch.equal(one.codebooks[0].usage, vq.codebook.usage)


def test_each_loss_pulls_on_its_own_side():
    part = make(depth=2, num_codes=3, codebook="gradient", commitment=0.25)
    z = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    values, _, losses = part(z, None)
    codes, sums = descended(z.detach(), books(part))
    first, second = part.codebooks[0].codes, part.codebooks[1].codes

    (of_z,) = torch.autograd.grad(losses["commitment"], z, retain_graph=True)
    torch.testing.assert_close(of_z, 0.25 * sum(2 * (z.detach() - sums[:, d]) / 10 for d in range(2)))
    assert torch.autograd.grad(losses["commitment"], first, allow_unused=True, retain_graph=True) == (None,)
    of_z, *of_books = torch.autograd.grad(losses["codebook"], (z, first, second), allow_unused=True, retain_graph=True)
    assert of_z is None
    for depth, got in enumerate(of_books):
        pull = -2 * (z.detach() - sums[:, depth]) / 10
        torch.testing.assert_close(got, torch.zeros(3, 2).double().index_add_(0, codes[:, depth], pull))
    weight = torch.randn(5, 2, dtype=torch.float64)
    through = torch.autograd.grad((weight * values["quantized"]).sum(), (z, first), allow_unused=True)
    assert torch.equal(through[0], weight) and through[1] is None


@pytest.mark.parametrize("shared", [False, True])
def test_codebooks_see_what_is_left_for_them(shared):
    part = make(depth=3, num_codes=4, shared=shared, revive=0.0, decay=0.5)
    z = torch.randn(20, 2, dtype=torch.float64)
    codes, sums = descended(z, books(part))
    left = [z, z - sums[:, 0], z - sums[:, 1]]
    part(z, turn(1))
    for index, book in enumerate(part.codebooks):
        seen = range(3) if shared else [index]
        counts = sum(codes[:, d].bincount(minlength=4) for d in seen)
        moments = sum(torch.zeros(4, 2).double().index_add_(0, codes[:, d], left[d]) for d in seen)
        assert torch.equal(book.counts, counts.double())
        torch.testing.assert_close(book.sums, moments)
    before = copy.deepcopy(part.codebooks)
    part.update(turn(training=False))
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(part.codebooks, before))
    part.update(turn(1))
    for book, old in zip(part.codebooks, before):
        torch.testing.assert_close(book.usage, 0.5 + 0.5 * old.counts)
        assert not torch.equal(book.codes, old.codes) and not book.counts.any()


@pytest.mark.parametrize("shared", [False, True])
def test_the_error_decreases_with_depth(shared):
    part = make(depth=4, num_codes=16, shared=shared, revive=0.01, decay=0.9)
    z = torch.randn(512, 2, dtype=torch.float64)
    part.prepare([z[:200], z[200:]], Rng(0))
    for index in range(30):
        part(z, turn(index))
        part.update(turn(index))
    codes = part(z, None).values["codes"]
    errors = [float((z[..., None] - part.embed(codes[:, :depth])).square().mean()) for depth in (1, 2, 3, 4)]
    assert all(after < 0.85 * before for before, after in zip(errors, errors[1:])), errors


def test_prepare_starts_each_depth_at_the_centres_of_what_is_left():
    coarse, fine = torch.tensor([[9.0, 0], [-9, 0], [0, 9]]), torch.tensor([[1.0, 0], [-1, 0]])
    z = (coarse[:, None] + fine).flatten(0, 1).repeat(20, 1).double()
    part = make(depth=2, num_codes=3)
    part.prepare([z], Rng(0))
    left = part.codebooks[0].codes
    assert {tuple(row) for row in left.round(decimals=6).tolist()} == {(9, 0), (-9, 0), (0, 9)}
    values = part(z, None).values
    torch.testing.assert_close(values["quantized"], z)
    with pytest.raises(ValueError, match="ResidualQuantizer expects features to initialise its codes from, got none"):
        part.prepare([], Rng(0))


def test_depths_draw_their_own_replacements():
    part = make(depth=2, num_codes=2, shared=True, revive=0.5)
    part(torch.randn(9, 2).double(), turn())  # one name drawn twice from one rng would be refused
    assert (part.codebooks[0].priority < 1).all()


test_refuses_keywords = refusals(
    ({"depth": 0}, "ResidualQuantizer expects depth to be at least 1, got 0"),
    ({"num_codes": 0}, "ResidualQuantizer expects num_codes to be at least 1, got 0"),
    ({"codebook": "sgd"}, "ResidualQuantizer expects codebook to be 'ema' or 'gradient', got 'sgd'"),
    ({"commitment": -1.0}, r"ResidualQuantizer expects commitment to be at least 0, got -1\.0"),
    ({"decay": 1.0}, r"ResidualQuantizer expects decay to be in \[0, 1\), got 1\.0"),
    of=lambda keywords: ResidualQuantizer(TensorType((3, 4, 4)), **keywords),
)
