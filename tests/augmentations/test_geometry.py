import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from modkit.augmentations.geometry import Geometry
from modkit.augmentations.warp import warp
from modkit.rng import Rng
from tests.refusals import refusals

ALL = ["x-flip", "y-flip", "scaling", "rotation", "anisotropy", "translation"]
SIZE = (9, 12)
LENGTHS = {"rotation": 2, "anisotropy": 2, "translation": 2}


def draw(num, changes=ALL, p=1.0, seed=0):
    return Geometry(changes, p=p).draw(torch.empty(num, dtype=torch.float64), Rng(seed))


def pictures(num=1):
    g = torch.Generator().manual_seed(0)
    return torch.randn(num, 2, *SIZE, dtype=torch.float64, generator=g)


def change(x, parameters, changes):
    return warp(x, Geometry(changes, p=1.0).make_maps(torch.as_tensor(parameters, dtype=x.dtype), SIZE))


def resample(x, forward, shift=(0.0, 0.0)):
    """Resamples a picture, `c h w`, of which what is at (down, right) from the centre is moved by `forward`."""
    inverse, centre = np.linalg.inv(np.array(forward)), (np.array(SIZE) - 1) / 2
    offset = centre - inverse @ (centre + np.array(shift))
    each = [affine_transform(one.numpy(), inverse, offset, order=1, mode="reflect") for one in x]
    return torch.from_numpy(np.stack(each))


def turn(angle):
    """Turns positions (down, right) so that what is right comes up."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@pytest.mark.smoke
@pytest.mark.parametrize("changes", [ALL, *([name] for name in ALL)], ids=str)
def test_zeros_change_nothing_to_the_bit(changes):
    geometry = Geometry(changes, p=1.0)
    maps = geometry.make_maps(torch.zeros(3, geometry.num), SIZE)
    assert torch.equal(maps, torch.eye(3).expand(3, 3, 3))
    x = pictures(3)
    assert torch.equal(warp(x, maps), x)


def test_each_change_is_what_an_independent_resampling_makes_of_its_parameters():
    x, (h, w) = pictures(), SIZE
    angle, axis, size, s = 0.7, 2.3, 1.4, 2**0.2
    wide, narrow = s**size, s**-size
    stretched = turn(-axis) @ np.diag([narrow, wide]) @ turn(axis)  # wide along the axis, from the right downwards
    cases = {
        "x-flip": ([1.0], np.diag([1.0, -1.0]), (0, 0)),
        "y-flip": ([1.0], np.diag([-1.0, 1.0]), (0, 0)),
        "scaling": ([-1.5], s**-1.5 * np.eye(2), (0, 0)),
        "rotation": ([math.cos(angle) - 1, math.sin(angle)], turn(angle), (0, 0)),
        "anisotropy": ([size * math.cos(axis), size * math.sin(axis)], stretched, (0, 0)),
        "translation": ([0.6, -1.3], np.eye(2), (-1.3 * h / 8, 0.6 * w / 8)),
    }
    assert list(cases) == ALL
    for name, (parameters, forward, shift) in cases.items():
        found = change(x, [parameters], [name])[0]
        torch.testing.assert_close(found, resample(x[0], forward, shift), msg=lambda text, name=name: f"{name}: {text}")
        assert (found - x[0]).abs().max() > 0.1


def test_whole_flips_and_shifts_are_those_of_torch():
    x = pictures()
    assert torch.equal(change(x, [[1.0]], ["x-flip"]), x.flip(3))
    assert torch.equal(change(x, [[1.0]], ["y-flip"]), x.flip(2))
    moved = change(x, [[8 * 2 / 12, 8 * 3 / 9]], ["translation"])  # two pixels right and three down
    torch.testing.assert_close(moved[:, :, 3:, 2:], x[:, :, :-3, :-2])


def test_stretching_keeps_areas_and_what_lies_on_its_axis():
    maps = Geometry(["anisotropy"], p=1.0).make_maps(torch.tensor([[0.0, 2.0]], dtype=torch.float64), SIZE)[0]
    torch.testing.assert_close(maps, torch.diag(torch.tensor([2**0.4, 2**-0.4, 1.0], dtype=torch.float64)))


def test_changes_are_made_one_after_another_in_the_order_of_the_table():
    x, parameters, start = pictures(5), draw(5), 0
    assert parameters.any(0).all()
    maps = torch.eye(3, dtype=x.dtype).expand(5, 3, 3)
    for name in ALL:
        own = parameters[:, start : start + LENGTHS.get(name, 1)]
        maps, start = maps @ Geometry([name], p=1.0).make_maps(own, SIZE), start + LENGTHS.get(name, 1)
    torch.testing.assert_close(Geometry(ALL[::-1], p=1.0).make_maps(parameters, SIZE), maps)


def test_a_change_has_its_probability_and_law():
    num = 40_000
    parameters = draw(num, p=0.12)
    flips, upright, scale, turns, stretch, move = parameters.split([LENGTHS.get(name, 1) for name in ALL], 1)
    assert abs(flips.mean() - 0.5) < 0.01 and abs(upright.mean() - 0.06) < 0.005  # sd .0025 and .0012
    assert set(flips.unique().tolist()) == set(upright.unique().tolist()) == {0.0, 1.0}
    made = {}
    for name, values in {"scale": scale, "turn": turns, "stretch": stretch, "move": move}.items():
        rows = values.any(1)
        made[name] = values[rows]
        assert abs(rows.double().mean() - 0.12) < 0.008, name  # sd .0016
    normal = torch.cat([made["scale"], made["move"].reshape(-1, 1)])  # 14,400 draws: sd .0083 of the mean
    assert abs(normal.mean()) < 0.04 and abs(normal.std() - 1) < 0.03
    angles = torch.atan2(made["turn"][:, 1], made["turn"][:, 0] + 1)
    axes = torch.atan2(made["stretch"][:, 1], made["stretch"][:, 0])
    for each in (angles, axes):
        counts = torch.histc(each, 8, -math.pi, math.pi) / len(each)
        torch.testing.assert_close(counts, torch.full_like(counts, 1 / 8), atol=0.025, rtol=0)  # sd .0048
    sizes = made["stretch"].norm(dim=1)
    assert abs(sizes.mean() - math.sqrt(2 / math.pi)) < 0.05  # of |N(0, 1)|: sd .0087
    torch.testing.assert_close(
        (made["turn"][:, 0] + 1) ** 2 + made["turn"][:, 1] ** 2, torch.ones(len(angles)).double()
    )
    both = (scale.any(1) & move.any(1)).double().mean()
    assert abs(both - 0.12**2) < 0.003  # independent: sd .0006


@pytest.mark.wide
def test_no_two_changes_have_the_same_parameters():
    """Of the paper's a_5 with a sign they would: its product with (cos a_4, sin a_4) is that of -a_5 and a_4 + pi."""
    parameters = draw(4000, ["anisotropy"])
    maps = Geometry(["anisotropy"], p=1.0).make_maps(parameters, SIZE)
    near = torch.cdist(parameters, parameters) + 9 * torch.eye(len(parameters))
    apart = (maps - maps[near.argmin(1)]).flatten(1).abs().amax(1)
    assert (apart < 2 * near.amin(1)).all()  # the map is a smooth function of them


def test_what_is_drawn_for_one_change_depends_on_no_other_and_on_its_row_alone():
    every, few = draw(6, p=0.5), draw(6, ["translation", "y-flip"], p=0.5)
    assert torch.equal(few, every[:, [1, 7, 8]])
    assert torch.equal(Geometry(ALL, p=0.5).draw(torch.empty(2).double(), Rng(0).rows(4)), every[4:])
    assert not torch.equal(draw(6, p=0.5, seed=1), every)
    assert not draw(50, [name for name in ALL if name != "x-flip"], p=0.0).any()


test_refuses = refusals(
    (([], 0.1), r"Geometry expects different changes of \['x-flip', 'y-flip', .*\], got \[\]"),
    ((["x-flip", "x-flip"], 0.1), r"Geometry expects different changes of .*, got \['x-flip', 'x-flip'\]"),
    ((["shear"], 0.1), r"Geometry expects different changes of .*, got \['shear'\]"),
    ((["x-flip"], 1.5), r"Geometry expects p to be in \[0, 1\], got 1.5"),
    of=lambda given: Geometry(given[0], p=given[1]),
)
