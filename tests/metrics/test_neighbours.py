import math

import pytest
import torch

import modkit.metrics.neighbours as neighbours
from modkit.metrics.jackknife import groups_of
from modkit.metrics.neighbours import GROUPS, hits, points, radii
from modkit.rng import Rng


def normal(name, *shape):
    return Rng(0).normal(name, torch.empty(shape))


def squared(x, y):
    """All pairs, by differences in float64; NumPy's sum, since at some scales the order of a sum decides ties."""
    return torch.from_numpy((x.double()[:, None] - y.double()[None]).square().numpy().sum(2))


def test_the_reference_is_torch_s_cdist():
    x, y = normal("x", 20, 512) + 20, normal("y", 20, 512)
    theirs = torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(squared(x, y).sqrt(), theirs, rtol=1e-13, atol=0)


def made(**sets):
    return points(**{name: (torch.arange(len(values)), values) for name, values in sets.items()})


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
    "tiny": lambda n, d: (normal("x", n, d) * 1e-35, normal("y", n, d) * 1e-35),
    "constant": lambda n, d: (torch.full((n, d), 3.7), torch.full((n, d), 3.7)),
}


def by_brute_force(x, y, k, comparison):
    """Radii of `x` and its balls' hits of `y`, by column."""
    groups, others = groups_of(torch.arange(len(x)), GROUPS), groups_of(torch.arange(len(y)), GROUPS)
    within = squared(x, x)
    within.fill_diagonal_(math.inf)
    cross = squared(x, y)
    reach, by_query, by_centre = [], [], []
    for group in range(-1, GROUPS):
        row = within.masked_fill((groups == group)[None], math.inf)
        reach.append(row.kthvalue(k, dim=1).values if len(x) >= k else torch.full((len(x),), math.inf))
        held = cross <= reach[-1][:, None] if comparison == "<=" else cross < reach[-1][:, None]
        held[groups == group] = False
        by_query.append(held.sum(0))
        by_centre.append(held.sum(1))
    held = cross <= reach[0][:, None] if comparison == "<=" else cross < reach[0][:, None]
    by_group = [(held & (others == group)).sum(1) for group in range(GROUPS)]
    return [torch.stack(each, 1) for each in (reach, by_query, by_centre, by_group)]


@pytest.mark.parametrize("comparison", ["<=", "<"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n, d, k", [(7, 3, 2), (90, 1, 3), (100, 64, 5), (40, 512, 3)])
def test_counts_are_float64_s(case, n, d, k, comparison):
    x, y = CASES[case](n, d)
    sets = made(real=x, fake=y)
    around = {name: radii(each, k) for name, each in sets.items()}
    found = hits(sets["real"], sets["fake"], around, comparison)
    for name, a, b in (("real", x, y), ("fake", y, x)):
        reach, *counts = by_brute_force(a, b, k, comparison)
        known = reach.isfinite().any(1).all() and n > 20
        torch.testing.assert_close(around[name], reach, rtol=1e-13, atol=0)
        for column, (mine, expected) in enumerate(zip(found[name], counts, strict=True)):
            assert torch.equal(mine, expected) or (not known and column < 2)
            assert torch.equal(mine[:, 0], expected[:, 0])


def test_tiles_and_parts_of_rows_change_nothing(monkeypatch):
    x, y = CASES["ties"](70, 4)

    def both():
        sets = made(real=x, fake=y)
        around = {name: radii(each, 3) for name, each in sets.items()}
        return around, hits(sets["real"], sets["fake"], around, "<=")

    around, found = both()
    for name, value in (("_ROWS", 16), ("_COLUMNS", 7), ("_EXACT", 64)):
        monkeypatch.setattr(neighbours, name, value)
    again, counted = both()
    for name in around:
        assert torch.equal(around[name], again[name])
        assert all(torch.equal(a, b) for a, b in zip(found[name], counted[name], strict=True))


def test_many_samples_are_narrowed_down_by_parts_of_a_row():
    x = normal("x", 1500, 2) + 20
    within = squared(x, x)
    within.fill_diagonal_(math.inf)
    assert torch.equal(radii(made(x=x)["x"], 3)[:, 0], within.kthvalue(3, dim=1).values)


def test_neighbours_all_of_one_group_are_seen_past():
    groups = groups_of(torch.arange(400), GROUPS)
    x = normal("x", 400, 2) + 100 * (groups == 4)[:, None]
    expected = by_brute_force(x, x, 3, "<")[0]
    torch.testing.assert_close(radii(made(x=x)["x"], 3), expected, rtol=1e-13, atol=0)


def test_nearest_of_another_set_counts_copies():
    x, y = normal("x", 40, 5), torch.cat([normal("y", 30, 5), normal("x", 40, 5)[:10]])
    sets = made(x=x, y=y)
    found = radii(sets["x"], 1, of=sets["y"])[:, 0]
    torch.testing.assert_close(found, squared(x, y).amin(1), rtol=1e-13, atol=0)
    assert (found[:10] == 0).all() and (found[10:] > 0).all()


def test_float64_features_keep_their_digits():
    x, y = normal("x", 50, 3).double() * 1e-9 + 1, normal("y", 50, 3).double() * 1e-9 + 1
    sets = made(real=x, fake=y)
    around = {"real": radii(sets["real"], 3)}
    found = hits(sets["real"], sets["fake"], around, "<=")["real"]
    assert torch.equal(found.by_query, by_brute_force(x, y, 3, "<=")[1]) and 0 < found.by_query[:, 0].sum()


def test_reduced_precision_of_products_is_not_used():
    torch.set_float32_matmul_precision("medium")
    try:
        assert made(x=normal("x", 5, 2))["x"].left.dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision("highest")
    assert made(x=normal("x", 5, 2))["x"].left.dtype == torch.float32


def test_too_few_neighbours_have_no_radius():
    assert radii(made(x=normal("x", 3, 2))["x"], 3).isinf().all()


def test_refusals_say_what_was_expected_and_got():
    with pytest.raises(ValueError, match=r"one d, got .*\(3, 2\).*\(3, 3\)"):
        made(real=torch.zeros(3, 2), fake=torch.zeros(3, 3))
    with pytest.raises(ValueError, match="NaN or infinity in 'fake'"):
        made(real=torch.zeros(3, 2), fake=torch.full((3, 2), math.nan))
