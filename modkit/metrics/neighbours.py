r"""Exact nearest neighbours of features: radii, and how many samples lie within them.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a . b,   with an error of at most  e = (d + 32) 2^-24 (|a|^2 + |b|^2)  in float32

The joint mean is subtracted first, because e grows with the norms. Products are computed in tiles, as lower bounds of
the squared distances. If e leaves a comparison undecided, the sum of squared differences in float64 decides it. So the
counts are those of float64. Everything is also computed within halves of the samples, for errors.

Memory is linear in n: tables past a limit are in mapped files, and tiles have fewer rows, the more columns they have.

On a GPU, tiles are computed there, within a budget of its memory; all else is as on the CPU, where the samples stay. So
counts and radii are the same.

Shape letters: n m samples, d features, s splits in halves.

References:
    Accuracy and Stability of Numerical Algorithms (Higham, 2002), eq. 3.5, https://doi.org/10.1137/1.9780898718027
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.halves import assign_sides
from modkit.metrics.mapped import allocate
from modkit.precision import use_precision

__all__ = ["Balls", "Comparison", "Hits", "Points", "count_hits", "prepare_points", "compute_radii"]

_ROWS, _COLUMNS = 1024, 4096  # of a tile
_TILE = 2**26  # numbers in a tile that has all columns
_EXACT = 2**20  # numbers in float64 at once
_PAIR = 32  # bytes that a pair in a tile may take with its indices
_DEVICES = ("cuda",)  # whose products, without TF32, are known to keep the bound

Comparison = Literal["<", "<="]


class Points(NamedTuple):
    """Samples prepared for tiles: `left @ right.T` bounds squared distances from below, `norms` bound the errors."""

    values: Tensor  # n d, unchanged
    sides: Tensor  # n s+1, the half of each split that the sample is in
    left: Tensor  # n d+2
    right: Tensor  # n d+2
    norms: Tensor  # n, float64
    scale: float  # of squared distances in tiles
    device: torch.device  # of tiles; the tensors are on the CPU

    def compute_slack(self, norms: Tensor) -> Tensor:
        """Computes e; a lower bound may be too low by up to 2 e."""
        return _compute_relative_error(self) * norms + _compute_absolute_error(self)


class Balls(NamedTuple):
    """Balls around the samples of one set, and the comparison that decides whether a distance is within."""

    of: Literal["real", "fake"]
    squared_radii: Tensor  # n s+1
    comparison: Comparison


class Hits(NamedTuple):
    """Counts of samples in balls around others, int64: column 0 among all samples, column 1 + s within halves."""

    by_query: Tensor  # m s+1, number of balls that contain each sample
    by_centre: Tensor  # n s+1, number of samples in each ball


def prepare_points(device: torch.device | str = "cpu", /, **sets: tuple[Tensor, Tensor]) -> dict[str, Points]:
    """Prepares sets of samples, each given by indices, `n`, and values, `n d`, for comparison with each other.

    Args:
        device: The device that computes tiles; the CPU does if it is no CUDA device, or a set does not fit its memory.
        sets: The sets, on the CPU.

    Raises:
        ValueError: If shapes do not match or a value is not finite.
    """
    shapes = {name: tuple(values.shape) for name, (_, values) in sets.items()}
    if len({shape[1:] for shape in shapes.values()}) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"neighbours expect sets of shapes (n, d) with one d, got {shapes}")
    for name, (_, values) in sets.items():
        if not all(bool(torch.isfinite(part).all()) for part in torch.split(values, _ROWS)):
            raise ValueError(f"neighbours expect finite values, got NaN or infinity in {name!r}")
    total = sum(len(values) for _, values in sets.values())
    mean = torch.stack([_sum_rows(values) for _, values in sets.values()]).sum(0) / max(total, 1)
    largest = max(
        (float((part.double() - mean).abs().max()) for _, v in sets.values() for part in torch.split(v, _ROWS))
    )
    shift = -math.frexp(largest * math.sqrt(len(mean)))[1] if largest else 0  # powers of two keep the digits
    place = _find_device(torch.device(device), [values for _, values in sets.values()])
    return {name: _prepare(values, indices, mean, shift, place) for name, (indices, values) in sets.items()}


def compute_radii(x: Points, ks: Sequence[int], *, of: Points | None = None) -> dict[int, Tensor]:
    """Computes the squared distance of each sample to its k-th nearest neighbour, by k: `n s+1`, float64, unscaled.

    Column 0 is among all neighbours, column 1 + s among those in the sample's half; it is infinite if there are fewer
    than k.

    Args:
        x: The samples.
        ks: The ranks of the neighbours.
        of: The set in which neighbours are sought; None is `x` itself, without the sample.

    Examples:
        >>> sets = prepare_points(x=(torch.arange(3), torch.tensor([[0.0], [1.0], [4.0]])))
        >>> compute_radii(sets["x"], [1])[1][:, 0].tolist()
        [1.0, 1.0, 9.0]
    """
    y = x if of is None else of
    num = y.sides.sum(0)
    there = torch.where(x.sides, num, len(y.sides) - num) - int(of is None)
    enough = there >= torch.tensor(ks)[:, None, None]
    found = torch.full(enough.shape, math.inf, dtype=torch.float64)
    least = 3 * max(ks) + 14  # nearly always enough for more than k in any half
    with use_precision(x.device, "float32"):
        right = y.right.to(x.device)
        for rows in torch.split(torch.arange(len(x.values)), _count_rows(x.device, len(right))):
            for few, size in ((least, len(rows)), (8 * least, 64), (len(y.sides), 16)):
                for some in torch.split(rows, size) if len(rows) else ():
                    found[:, some] = _find_radii(x, some, y, right, ks, few, same=of is None)
                rows = rows[(found[:, rows].isinf() & enough[:, rows]).any(2).any(0)]
    return dict(zip(ks, found, strict=True))


def count_hits(real: Points, fake: Points, balls: Sequence[Balls]) -> list[Hits]:
    """Counts the samples of one set that lie within balls around the samples of the other."""
    sets, other = {"real": real, "fake": fake}, {"real": fake, "fake": real}
    found = [
        Hits(*(torch.zeros(side[each.of].sides.shape, dtype=torch.int64) for side in (other, sets))) for each in balls
    ]
    widest = {name: [_find_widest(each.squared_radii) for each in balls if each.of == name] for name in sets}
    reach = {name: _round_up(torch.stack(each).amax(0) * real.scale) for name, each in widest.items() if each}
    with use_precision(real.device, "float32"):
        right = fake.right.to(real.device)
        for first in range(0, len(real.values), _ROWS):
            left = real.left[first : first + _ROWS].to(real.device)
            for second in range(0, len(fake.values), _COLUMNS):
                tile = left @ right[second : second + _COLUMNS].T
                for name, far in reach.items():
                    part = far[first : first + _ROWS, None] if name == "real" else far[second : second + _COLUMNS]
                    i, j, lower = _select(tile, tile <= part.to(real.device))
                    for ii, jj, low in zip(*(torch.split(one, _EXACT // 8) for one in (i, j, lower)), strict=True):
                        pair = {"real": ii + first, "fake": jj + second}
                        centre, query = pair[name], pair["fake" if name == "real" else "real"]
                        for each, counted in zip(balls, found, strict=True):
                            if each.of == name:
                                _count(counted, each, sets[name], centre, other[name], query, low.double())
    return found


def _sum_rows(values: Tensor) -> Tensor:
    total = torch.zeros(values.shape[1], dtype=torch.float64)
    for part in torch.split(values, _ROWS):
        total += part.double().sum(0)
    return total


def _find_device(device: torch.device, sets: Sequence[Tensor]) -> torch.device:
    """Returns the device that computes tiles: the CPU unless half of its budget holds any set."""
    known = device.type in _DEVICES
    fits = known and max(4 * len(one) * (one.shape[1] + 2) for one in sets) <= _read_budget(device) // 2
    return device if fits else torch.device("cpu")


def _read_budget(device: torch.device) -> int:
    """The bytes that may be taken: half of what is free."""
    return torch.cuda.mem_get_info(device)[0] // 2


def _count_rows(device: torch.device, columns: int) -> int:
    """The rows of a tile of so many columns; on a device, half of its budget holds the tile."""
    numbers = _TILE if device.type == "cpu" else _read_budget(device) // (2 * _PAIR)
    return max(1, min(_ROWS // 2, numbers // max(1, columns)))


def _prepare(values: Tensor, indices: Tensor, mean: Tensor, shift: int, device: torch.device) -> Points:
    # The bound requires full precision of products, which float64 always has.
    full = device.type != "cpu" or torch.get_float32_matmul_precision() == "highest"
    dtype = torch.float32 if full else torch.float64
    n, d = values.shape
    left, right = allocate(n, d + 2, dtype), allocate(n, d + 2, dtype)
    norms = torch.empty(n, dtype=torch.float64)
    made = Points(values, assign_sides(indices), left, right, norms, 4.0**shift, device)
    for first in range(0, n, _ROWS):
        part = slice(first, first + _ROWS)
        left[part, :d] = (values[part].double() - mean) * 2.0**shift
        norms[part] = left[part, :d].double().square().sum(1)
        low = norms[part] - made.compute_slack(norms[part])
        right[part, :d] = -2 * left[part, :d]
        left[part, d], left[part, d + 1] = low, 1
        right[part, d], right[part, d + 1] = 1, low
    return made


def _compute_relative_error(points: Points) -> float:
    return (points.values.shape[1] + 32) * 2.0**-24 * 1.01


def _compute_absolute_error(points: Points) -> float:
    """The error by underflow, whether or not it is flushed to zero."""
    return (points.values.shape[1] + 32) * 2.0**-124


def _measure_exactly(x: Points, i: Tensor, y: Points, j: Tensor) -> Tensor:
    """Squared distances of pairs from differences in float64; NumPy's sum of a row depends only on the row."""
    size = max(1, _EXACT // x.values.shape[1])
    parts = [
        torch.from_numpy(x.values[a].double().sub_(y.values[b]).square_().numpy().sum(1))
        for a, b in zip(torch.split(i, size), torch.split(j, size), strict=True)
    ]
    return torch.cat(parts)


def _find_radii(
    x: Points, rows: Tensor, y: Points, right: Tensor, ks: Sequence[int], few: int, *, same: bool
) -> Tensor:
    """The radii of some samples, `k rows s+1`; infinite where the nearest `few` candidates do not determine them.

    `right` is y's, on the device of tiles.
    """
    place = right.device
    tile = x.left[rows].to(place) @ right.T
    if same:
        tile[torch.arange(len(rows), device=place), rows.to(place)] = math.inf
    bound, near = torch.full((len(rows),), math.inf), tile < math.inf
    usual = y.norms <= 16 * y.norms.median()  # the error of an outlier would widen every bound
    if few < usual.sum():
        smallest = _compute_upper_bound(tile if bool(usual.all()) else tile[:, usual.to(place)], few).cpu().double()
        bound = smallest + 2 * (x.compute_slack(x.norms[rows]) + y.compute_slack(y.norms[usual].max()))
        near = tile <= _round_up(bound)[:, None].to(place)
    i, j, lower = _select(tile, near)
    counts = torch.bincount(i, minlength=len(rows))
    column = torch.arange(len(i)) - (counts.cumsum(0) - counts)[i]
    head = column < 2 * few
    found = _decide(x, rows, y, ks, (i[head], column[head]), j[head], lower[head].double())
    unseen = (counts > 2 * few)[:, None] & (found > 0)  # if many are copies of a sample, a few are enough
    return found.masked_fill(unseen | (found * x.scale > bound[:, None]), math.inf)


def _select(tile: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns rows, columns and values of a tile where the mask is true, on the CPU."""
    i, j = mask.nonzero(as_tuple=True)
    return i.cpu(), j.cpu(), tile[i, j].cpu()


def _decide(
    x: Points, rows: Tensor, y: Points, ks: Sequence[int], at: tuple[Tensor, Tensor], j: Tensor, lower: Tensor
) -> Tensor:
    """Determines radii from candidates `j` in y, at (index in `rows`, column), and lower bounds of distances."""
    i = rows[at[0]]
    shape = len(rows), int(at[1].max()) + 1
    low = torch.full(shape, math.inf, dtype=torch.float64)
    high, squared = low.clone(), low.clone()
    alike = torch.zeros(*shape, x.sides.shape[1], dtype=torch.bool)
    low[at], high[at] = lower, lower + 2 * (x.compute_slack(x.norms[i]) + y.compute_slack(y.norms[j]))
    squared[at], alike[at] = lower / x.scale, x.sides[i] == y.sides[j]

    # Candidates that are certainly nearer or farther than the k-th need only be counted.
    inner, outer = _find_kth(low, alike, ks), _find_kth(high, alike, ks)
    open = torch.zeros(shape, dtype=torch.bool)
    for least, most in zip(inner, outer, strict=True):
        open |= (alike & (high[..., None] >= least[:, None]) & (low[..., None] <= most[:, None])).any(2)
    chosen = open[at]
    squared[at[0][chosen], at[1][chosen]] = _measure_exactly(x, i[chosen], y, j[chosen])
    return _find_kth(squared, alike, ks)


def _compute_upper_bound(tile: Tensor, few: int) -> Tensor:
    """An upper bound of the `few`-th smallest value of each row: that of the minima of its parts."""
    width = max(1, min(32, tile.shape[1] // (4 * few)))
    num = tile.shape[1] // width
    shape, stride = (len(tile), width, num), (tile.stride(0), num, 1)
    minima = tile.as_strided(shape, stride).amin(1)
    smallest: Tensor = minima.topk(few, dim=1, largest=False).values
    return smallest[:, -1]


def _find_kth(values: Tensor, alike: Tensor, ks: Sequence[int]) -> Tensor:
    """The k-th smallest value of each row in the same half, `k rows s+1`; infinite if there are fewer."""
    ordered, order = values.sort(dim=1)
    rank = alike.gather(1, order[..., None].expand_as(alike)).cumsum(1, dtype=torch.int32)
    ended = torch.nn.functional.pad(ordered, (0, 1), value=math.inf)
    return torch.stack([ended.gather(1, (rank < k).sum(1)) for k in ks])


def _find_widest(each: Tensor) -> Tensor:
    """The largest finite radius of each row, or infinity if there is none."""
    finite = each.masked_fill(each.isinf(), -math.inf).amax(1)
    return torch.where(finite.isinf(), math.inf, finite)


def _round_up(bound: Tensor) -> Tensor:
    """Rounds `bound` up to float32."""
    return (bound + bound.abs() * 2.0**-20).float()


def _count(counted: Hits, balls: Balls, centres: Points, i: Tensor, queries: Points, j: Tensor, low: Tensor) -> None:
    """Counts the pairs (centre i, query j) within a ball; `low` bounds their squared distances in the tiles' scale."""
    levels = balls.squared_radii[i]
    high = low + 2 * (centres.compute_slack(centres.norms[i]) + queries.compute_slack(queries.norms[j]))
    squared = (low + high) / 2 / centres.scale
    scaled = levels * centres.scale
    alike = centres.sides[i] == queries.sides[j]
    open = (alike & (scaled >= low[:, None]) & (scaled <= high[:, None])).any(1).nonzero()[:, 0]
    if len(open):
        squared[open] = _measure_exactly(centres, i[open], queries, j[open])
    within = squared[:, None] <= levels if balls.comparison == "<=" else squared[:, None] < levels
    held = (within & alike).long()
    counted.by_query.index_add_(0, j, held)
    counted.by_centre.index_add_(0, i, held)
