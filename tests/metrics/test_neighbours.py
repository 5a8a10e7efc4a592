import math
from functools import partial

import pytest
import torch

import modkit.metrics.neighbours as neighbours
from modkit.metrics.copying import Copying
from modkit.metrics.halves import SPLITS, assign_sides
from modkit.metrics.mapped import allocate
from modkit.metrics.neighbours import Balls, compute_radii, count_hits, prepare_points
from modkit.metrics.per_class import PerClass
from modkit.metrics.precision_recall import PRDC
from modkit.rng import Rng
from tests.metrics.pretended_device import FAR, PretendedDevice
from tests.metrics.streams import normal
from tests.refusals import check_refusal


def squared(x, y):
    """All pairs, by differences in float64; NumPy's sum, since at some scales the order of a sum decides ties."""
    return torch.from_numpy((x.double()[:, None] - y.double()[None]).square().numpy().sum(2))


def test_the_reference_is_torch_s_cdist():
    x, y = normal("x", 20, 512) + 20, normal("y", 20, 512)
    theirs = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(squared(x, y).sqrt(), theirs, rtol=1e-13, atol=0)


def made(device="cpu", /, **sets):
    return prepare_points(device, **{name: (torch.arange(len(values)), values) for name, values in sets.items()})


def lattice(name, n, d):
    """Few values, so that distances tie and float64 has no rounding."""
    return Rng(0).uniform(name, torch.empty(n, d)).mul(3).floor()


CASES = {
    "normal": lambda n, d: (normal("x", n, d), normal("y", n, d) * 1.1),
    "mean 20": lambda n, d: (normal("x", n, d) + 20, normal("y", n, d) + 20),
    "far apart": lambda n, d: (normal("x", n, d) + 1000, normal("y", n, d)),
    "duplicates": lambda n, d: (normal("x", n, d)[torch.arange(n) % 9], normal("x", n, d)[torch.arange(n) % 5] + 0),
    "copies": lambda n, d: (normal("x", n, d) + 20, (normal("x", n, d) + 20).flip(0)),
    "ties": lambda n, d: (lattice("x", n, d), lattice("y", n, d)),
    "near ties": lambda n, d: (20 + normal("x", n, d) * 1e-5, 20 + normal("y", n, d) * 1e-5),
    "scales": lambda n, d: (normal("x", n, d) * torch.logspace(-20, 15, n)[:, None], normal("y", n, d) * 1e-19),
    "outlier": lambda n, d: (normal("x", n, d) * (1 + 1e4 * (torch.arange(n) == 5)[:, None]), normal("y", n, d)),
    "tiny": lambda n, d: (normal("x", n, d) * 1e-35, normal("y", n, d) * 1e-35),
    "constant": lambda n, d: (torch.full((n, d), 3.7), torch.full((n, d), 3.7)),
}


def by_brute_force(x, y, k, comparison):
    """Radii of `x` and its balls' hits of `y`, by column."""
    sides, others = assign_sides(torch.arange(len(x))), assign_sides(torch.arange(len(y)))
    within = squared(x, x)
    within.fill_diagonal_(math.inf)
    cross = squared(x, y)
    columns = []
    for column in range(SPLITS + 1):
        row = within.masked_fill(sides[:, None, column] != sides[None, :, column], math.inf)
        reach = row.kthvalue(k, dim=1).values if len(x) >= k else torch.full((len(x),), math.inf)
        held = cross <= reach[:, None] if comparison == "<=" else cross < reach[:, None]
        held &= sides[:, None, column] == others[None, :, column]
        columns.append((reach, held.sum(0), held.sum(1)))
    return [torch.stack(each, 1) for each in zip(*columns, strict=True)]


def balls_and_hits(sets, ks, comparison):
    around = {name: compute_radii(each, ks) for name, each in sets.items()}
    balls = [Balls(name, found[k], comparison) for name, found in around.items() for k in ks]
    return balls, count_hits(sets["real"], sets["fake"], balls)


@pytest.mark.parametrize("comparison", ["<=", "<"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n, d, ks", [(7, 3, [2]), (90, 1, [3]), (100, 64, [2, 5]), (40, 512, [3, 5])])
def test_counts_are_float64_s(case, n, d, ks, comparison):
    x, y = CASES[case](n, d)
    balls, found = balls_and_hits(made(real=x, fake=y), ks, comparison)
    expected = [by_brute_force(a, b, k, comparison) for a, b in ((x, y), (y, x)) for k in ks]
    for ball, counted, (reach, *counts) in zip(balls, found, expected, strict=True):
        torch.testing.assert_close(ball.squared_radii, reach, rtol=1e-13, atol=0)
        for mine, theirs in zip(counted, counts, strict=True):
            assert torch.equal(mine[:, 0], theirs[:, 0])
            assert torch.equal(mine, theirs) or not reach.isfinite().all()


def test_tiles_and_parts_of_rows_change_nothing(monkeypatch):
    x, y = CASES["ties"](70, 4)
    balls, found = balls_and_hits(made(real=x, fake=y), [3], "<=")
    for name, value in (("_ROWS", 16), ("_COLUMNS", 7), ("_EXACT", 64)):
        monkeypatch.setattr(neighbours, name, value)
    check_equal(balls_and_hits(made(real=x, fake=y), [3], "<="), (balls, found))


def test_mapped_tables_and_tiles_of_few_rows_change_nothing(monkeypatch):
    x, y = CASES["ties"](70, 4)
    expected = balls_and_hits(made(real=x, fake=y), [3], "<=")
    monkeypatch.setattr(neighbours, "allocate", partial(allocate, limit=0))
    monkeypatch.setattr(neighbours, "_TILE", 300)
    assert neighbours._count_rows(torch.device("cpu"), 70) == 4
    assert neighbours._count_rows(torch.device("cpu"), 1000) == 1
    check_equal(balls_and_hits(made(real=x, fake=y), [3], "<="), expected)


@pytest.mark.wide(1)
@pytest.mark.parametrize("case, d", [("normal", 2), ("ties", 2), ("ties", 6), ("near ties", 2), ("outlier", 2)])
def test_many_samples_are_narrowed_down_by_parts_of_a_row(case, d):
    x, _ = CASES[case](600, d)
    found = compute_radii(made(x=x)["x"], [1, 3])
    for k in (1, 3):
        torch.testing.assert_close(found[k], by_brute_force(x, x, k, "<")[0], rtol=1e-13, atol=0)


def test_neighbours_all_of_the_other_half_are_seen_past():
    x = normal("x", 400, 2) + 100 * assign_sides(torch.arange(400))[:, 4:5]
    x[0] -= 100  # among those of the other half
    expected = by_brute_force(x, x, 3, "<")[0]
    torch.testing.assert_close(compute_radii(made(x=x)["x"], [3])[3], expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_at_the_edge_of_what_is_looked_at_are_told_apart(seed):
    sides = assign_sides(torch.arange(60))[:, 4]
    angle, further = Rng(seed).uniform("edge", torch.empty(2, 60, dtype=torch.float64)).mul(7).unbind()
    squares = 1 + 1e-6 * (7 + further / 7) * (sides == sides[0])  # twice float32's error away from the other half
    x = squares.sqrt()[:, None] * torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    x[0] = 0
    expected = by_brute_force(x, x, 3, "<")[0]
    torch.testing.assert_close(compute_radii(made(x=x)["x"], [3])[3], expected, rtol=1e-13, atol=0)


def test_nearest_of_another_set_counts_copies():
    x, y = normal("x", 40, 5), torch.cat([normal("y", 30, 5), normal("x", 40, 5)[:10]])
    sets = made(x=x, y=y)
    found = compute_radii(sets["x"], [1], of=sets["y"])[1]
    torch.testing.assert_close(found[:, 0], squared(x, y).amin(1), rtol=1e-13, atol=0)
    assert (found[:10, 0] == 0).all() and (found[10:, 0] > 0).all()
    apart = sets["x"].sides[:, None, 3] != sets["y"].sides[None, :, 3]
    torch.testing.assert_close(found[:, 3], squared(x, y).masked_fill(apart, math.inf).amin(1), rtol=1e-13, atol=0)


def test_float64_features_keep_their_digits():
    x, y = normal("x", 50, 3).double() * 1e-9 + 1, normal("y", 50, 3).double() * 1e-9 + 1
    _, (found, _) = balls_and_hits(made(real=x, fake=y), [3], "<=")
    assert torch.equal(found.by_query, by_brute_force(x, y, 3, "<=")[1]) and 0 < found.by_query[:, 0].sum()


def test_reduced_precision_of_products_is_not_used():
    torch.set_float32_matmul_precision("medium")
    try:
        assert made(x=normal("x", 5, 2))["x"].left.dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision("highest")
    assert made(x=normal("x", 5, 2))["x"].left.dtype == torch.float32


def check_equal(mine, theirs):
    for one, other in zip(mine[0], theirs[0], strict=True):
        assert torch.equal(one.squared_radii, other.squared_radii)
    for one, other in zip(mine[1], theirs[1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def far(monkeypatch):
    """A device with 1 MB to spare, on which nothing else may be computed than on its own tensors."""
    monkeypatch.setattr(neighbours, "_DEVICES", (FAR.type,))
    monkeypatch.setattr(neighbours, "_read_budget", lambda device: 2**20)
    with PretendedDevice() as device:
        yield device


@pytest.mark.wide(1)
@pytest.mark.parametrize("case, n, d", [(case, 150, 4) for case in CASES] + [("ties", 500, 2), ("normal", 90, 64)])
def test_tiles_on_a_device_change_nothing(case, n, d, far):
    x, y = CASES[case](n, d)
    expected = balls_and_hits(made(real=x, fake=y), [2, 3], "<=")
    assert not far.products
    check_equal(balls_and_hits(made(FAR, real=x, fake=y), [2, 3], "<="), expected)
    assert len(far.products) > 2


@pytest.mark.wide
def test_tiles_keep_to_the_budget_of_the_device(far, monkeypatch):
    x, y = CASES["normal"](600, 8)
    sets = made(FAR, x=x, y=y)
    compute_radii(sets["x"], [3])
    assert far.products and max(far.products) * neighbours._PAIR <= 2**19
    assert made(FAR, x=x.repeat(30, 1))["x"].device.type == "cpu"


@pytest.mark.wide(1)
@pytest.mark.parametrize("metric", [PRDC(), Copying(), PerClass(PRDC())], ids=lambda metric: type(metric).__name__)
def test_scores_are_computed_on_the_device_that_a_state_is_placed_on(metric, far):
    values = {one: {"features": normal(one, 90, 4), "labels": torch.arange(90) % 2} for one in metric.sets}
    state = metric.init()
    for one, given in values.items():
        state = metric.update(state, one, given, torch.arange(90))
    expected = metric.result(state, Rng(0))
    assert not far.products
    assert metric.result(metric.place(state, FAR), Rng(0)) == expected and far.products


def test_scores_are_computed_where_features_come_from(far):
    x, y = normal("x", 90, 4), normal("y", 90, 4)
    expected = PRDC().compute(real=x, fake=y)
    assert not far.products
    assert PRDC().compute(real=x.to(FAR), fake=y.to(FAR)) == expected and far.products


def test_autocast_narrows_no_products():
    x, y = CASES["normal"](60, 8)
    expected = balls_and_hits(made(real=x, fake=y), [3], "<=")
    with torch.autocast("cpu", torch.bfloat16):
        check_equal(balls_and_hits(made(real=x, fake=y), [3], "<="), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_counts_on_cuda_are_the_cpu_s_though_tf32_is_allowed(case):
    x, y = CASES[case](900, 64)
    expected = balls_and_hits(made(real=x, fake=y), [3, 5], "<=")
    torch.set_float32_matmul_precision("high")
    try:
        sets = made("cuda", real=x, fake=y)
        assert sets["real"].device.type == "cuda" and sets["real"].left.dtype == torch.float32
        check_equal(balls_and_hits(sets, [3, 5], "<="), expected)
    finally:
        torch.set_float32_matmul_precision("highest")


def test_too_few_neighbours_have_no_radius():
    assert compute_radii(made(x=normal("x", 3, 2))["x"], [3])[3].isinf().all()


def test_refusals_say_what_was_expected_and_got():
    check_refusal(r"one d, got .*\(3, 2\).*\(3, 3\)", made, real=torch.zeros(3, 2), fake=torch.zeros(3, 3))
    check_refusal("NaN or infinity in 'fake'", made, real=torch.zeros(3, 2), fake=torch.full((3, 2), math.nan))
