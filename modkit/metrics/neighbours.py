r"""Nearest neighbours of features, exactly: radii, and how many samples lie within them.

    |a - b|^2 = |a|^2 + |b|^2 - 2 a . b,   off by at most  e = (d + 32) 2^-24 (|a|^2 + |b|^2)  in float32

The joint mean is subtracted first, since e grows with the norms. Products are made in tiles, as lower bounds of the
squared distance; where e leaves a comparison open it is decided by the float64 sum of squared differences. So counts
are float64's, and memory is linear in n. Everything is known without each group of samples too, for the jackknife.

Shape letters: n m samples, d features, g groups.

References:
    Accuracy and Stability of Numerical Algorithms (Higham, 2002), eq. 3.5, https://doi.org/10.1137/1.9780898718027
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.jackknife import groups_of

__all__ = ["GROUPS", "Comparison", "Hits", "Points", "hits", "points", "radii"]

GROUPS = 10
_ROWS, _COLUMNS = 1024, 4096  # of a tile
_EXACT = 2**20  # numbers in float64 at once

Comparison = Literal["<", "<="]


class Points(NamedTuple):
    """Samples ready for tiles: `left @ right.T` are lower bounds of squared distances, `norms` bound their errors."""

    values: Tensor  # n d, as given
    groups: Tensor  # n
    left: Tensor  # n d+2
    right: Tensor  # n d+2
    norms: Tensor  # n, float64
    scale: float  # of squared distances in tiles

    def slack(self, norms: Tensor) -> Tensor:
        """e, twice of which a lower bound may be too low."""
        return _relative(self) * norms + _absolute(self)


class Hits(NamedTuple):
    """How many samples lie in the balls around others; int64.

    Column 0 is of all samples; column 1 + g is without the centres of group g, radii included.
    """

    by_query: Tensor  # m g+1, balls that hold a sample
    by_centre: Tensor  # n g+1, samples that a ball holds
    by_group: Tensor  # n g, those of each group, the radius being that of all samples


def points(**sets: tuple[Tensor, Tensor]) -> dict[str, Points]:
    """Sets of samples, each its indices, `n`, and values, `n d`, made comparable with each other.

    Raises:
        ValueError: If shapes don't fit or a value is not finite.
    """
    shapes = {name: tuple(values.shape) for name, (_, values) in sets.items()}
    if len({shape[1:] for shape in shapes.values()}) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"neighbours expect sets of shapes (n, d) with one d, got {shapes}")
    for name, (_, values) in sets.items():
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"neighbours expect finite values, got NaN or infinity in {name!r}")
    total = sum(len(values) for _, values in sets.values())
    mean = torch.stack([_total(values) for _, values in sets.values()]).sum(0) / max(total, 1)
    largest = max(
        (float((part.double() - mean).abs().max()) for _, v in sets.values() for part in torch.split(v, _ROWS))
    )
    shift = -math.frexp(largest * math.sqrt(len(mean)))[1] if largest else 0  # powers of two keep the digits
    return {name: _points(values, indices, mean, shift) for name, (indices, values) in sets.items()}


def radii(x: Points, k: int, *, of: Points | None = None) -> Tensor:
    """The squared distance of each sample to its k-th nearest, `n g+1`, float64, summed without scale.

    Column 0 is of all neighbours, column 1 + g without those of group g; infinite where there are fewer than k.

    Args:
        x: The samples.
        k: Which neighbour.
        of: Where neighbours are; None: in `x`, and no sample is its own.
    """
    y = x if of is None else of
    there = len(y.values) - (of is None)
    sizes = torch.bincount(y.groups, minlength=GROUPS)
    enough = torch.cat([torch.tensor([there >= k]), there - sizes >= k])
    few = min(there, k + k // 4 + 11)
    found = torch.full((len(x.values), GROUPS + 1), math.inf, dtype=torch.float64)
    if not enough[0]:
        return found
    for rows in torch.split(torch.arange(len(x.values)), _ROWS // 2):
        found[rows] = _radii(x, rows, y, k, few, same=of is None)
        open = rows[(found[rows].isinf() & enough).any(1)]  # most neighbours are of one group
        if few < there and len(open):
            for more in torch.split(open, 16):
                found[more] = _radii(x, more, y, k, there, same=of is None)
    return found


def hits(real: Points, fake: Points, around: dict[str, Tensor], comparison: Comparison) -> dict[str, Hits]:
    """Samples of each set within balls around the other's: of the fake around `real`, of the real around `fake`.

    Args:
        real: One set.
        fake: The other.
        around: Squared radii by the name of the set whose samples are centres, as `radii` gives them.
        comparison: A distance is this of the radius, where it is within.
    """
    sets = {"real": real, "fake": fake}
    other = {"real": fake, "fake": real}
    counted = {name: _no_hits(len(sets[name].values), len(other[name].values)) for name in around}
    widest = {name: _up(_widest(each) * real.scale) for name, each in around.items()}
    for first in range(0, len(real.values), _ROWS):
        for second in range(0, len(fake.values), _COLUMNS):
            tile = real.left[first : first + _ROWS] @ fake.right[second : second + _COLUMNS].T
            for name, each in around.items():
                if name == "real":
                    near = tile <= widest[name][first : first + _ROWS, None]
                else:
                    near = tile <= widest[name][second : second + _COLUMNS]
                i, j = near.nonzero(as_tuple=True)
                for ii, jj in zip(torch.split(i, _EXACT // 8), torch.split(j, _EXACT // 8), strict=True):
                    pair = {"real": ii + first, "fake": jj + second}
                    low = tile[ii, jj].double()
                    centre, query = pair[name], pair["fake" if name == "real" else "real"]
                    _count(counted[name], sets[name], centre, other[name], query, low, each, comparison)
    return counted


def _total(values: Tensor) -> Tensor:
    total = torch.zeros(values.shape[1], dtype=torch.float64)
    for part in torch.split(values, _ROWS):
        total += part.double().sum(0)
    return total


def _points(values: Tensor, indices: Tensor, mean: Tensor, shift: int) -> Points:
    # Reduced precision for products would break the bound; float64 has none.
    dtype = torch.float32 if torch.get_float32_matmul_precision() == "highest" else torch.float64
    n, d = values.shape
    left, right = torch.empty(n, d + 2, dtype=dtype), torch.empty(n, d + 2, dtype=dtype)
    norms = torch.empty(n, dtype=torch.float64)
    made = Points(values, groups_of(indices, GROUPS), left, right, norms, 4.0**shift)
    for first in range(0, n, _ROWS):
        part = slice(first, first + _ROWS)
        left[part, :d] = (values[part].double() - mean) * 2.0**shift
        norms[part] = left[part, :d].double().square().sum(1)
        low = norms[part] - made.slack(norms[part])
        right[part, :d] = -2 * left[part, :d]
        left[part, d], left[part, d + 1] = low, 1
        right[part, d], right[part, d + 1] = 1, low
    return made


def _relative(points: Points) -> float:
    return (points.values.shape[1] + 32) * 2.0**-24 * 1.01


def _absolute(points: Points) -> float:
    """What underflow may cost, flushed to zero or not."""
    return (points.values.shape[1] + 32) * 2.0**-124


def _exact(x: Points, i: Tensor, y: Points, j: Tensor) -> Tensor:
    """Squared distances of pairs, by differences in float64; NumPy's sum of a row depends on nothing but the row."""
    size = max(1, _EXACT // x.values.shape[1])
    parts = [
        torch.from_numpy((x.values[a].double() - y.values[b].double()).square_().numpy().sum(1))
        for a, b in zip(torch.split(i, size), torch.split(j, size), strict=True)
    ]
    return torch.cat(parts)


def _radii(x: Points, rows: Tensor, y: Points, k: int, few: int, *, same: bool) -> Tensor:
    tile = x.left[rows] @ y.right.T
    if same:
        tile[torch.arange(len(rows)), rows] = math.inf
    bound = _smallest(tile, few).double() + 2 * (x.slack(x.norms[rows]) + y.slack(y.norms.max()))
    i, j = (tile <= _up(bound)[:, None]).nonzero(as_tuple=True)
    lower = tile[i, j].double()
    counts = torch.bincount(i, minlength=len(rows))
    head = torch.arange(len(i)) - (counts.cumsum(0) - counts)[i] < 4 * few
    found = _decided(x, rows, y, i[head], j[head], lower[head], k, few)
    open = (counts > 4 * few) & (found != 0).any(1)  # where many are copies of a sample, some of them settle it
    if bool(open.any()):
        rest, renumbered = open[i], open.cumsum(0) - 1
        found[open] = _decided(x, rows[open], y, renumbered[i[rest]], j[rest], lower[rest], k, few)
    return found


def _decided(x: Points, rows: Tensor, y: Points, i: Tensor, j: Tensor, lower: Tensor, k: int, few: int) -> Tensor:
    """The radii of `rows` from candidates: pairs (place in `rows`, index in `y`), by place, and lower bounds."""
    counts = torch.bincount(i, minlength=len(rows))
    column = torch.arange(len(i)) - (counts.cumsum(0) - counts)[i]
    low = torch.full((len(rows), max(k, int(counts.max()))), math.inf, dtype=torch.float64)
    groups, other = torch.full_like(low, -1, dtype=torch.int64), torch.zeros_like(low, dtype=torch.int64)
    high = low.clone()
    low[i, column] = lower
    high[i, column] = low[i, column] + 2 * (x.slack(x.norms[rows[i]]) + y.slack(y.norms[j]))
    groups[i, column], other[i, column] = y.groups[j], j

    # Those surely nearer than the k-th of all only count; those surely past the widest radius don't.
    inner, outer = low.kthvalue(k, dim=1).values[:, None], _widest(_kth(high, groups, k))[:, None]
    open = (high >= inner) & (low <= outer) & (groups >= 0)
    squared = torch.full_like(low, math.inf).masked_fill(high < inner, -1)
    first = open & (open.cumsum(1) <= 2 * few)
    _fill(squared, first, x, rows, y, other)
    found = _kth(squared, groups, k)
    reach = _widest(found)[:, None]
    more = open & ~first & (low <= reach * x.scale) & (reach > 0)  # copies of one sample are settled already
    if bool(more.any()):
        _fill(squared, more, x, rows, y, other)
        found = _kth(squared, groups, k)
    return found


def _fill(squared: Tensor, where: Tensor, x: Points, rows: Tensor, y: Points, other: Tensor) -> None:
    i, column = where.nonzero(as_tuple=True)
    if len(i):
        squared[i, column] = _exact(x, rows[i], y, other[i, column])


def _smallest(tile: Tensor, few: int) -> Tensor:
    """A bound, from above, of the `few`-th smallest of each row: that of the minima of parts of it."""
    width = max(1, min(32, tile.shape[1] // (4 * few)))
    num = tile.shape[1] // width
    shape, stride = (len(tile), width, num), (tile.stride(0), num, 1)
    minima = tile.as_strided(shape, stride).amin(1)
    smallest: Tensor = minima.topk(few, dim=1, largest=False).values
    return smallest[:, -1]


def _kth(values: Tensor, groups: Tensor, k: int) -> Tensor:
    """The k-th smallest of each row, of all and without each group."""
    columns = [values, *(values.masked_fill(groups == group, math.inf) for group in range(GROUPS))]
    return torch.stack([column.kthvalue(k, dim=1).values for column in columns], dim=1)


def _widest(each: Tensor) -> Tensor:
    """The largest finite radius of each row: an infinite one has no use; infinite where all are."""
    finite = each.masked_fill(each.isinf(), -math.inf).amax(1)
    return torch.where(finite.isinf(), math.inf, finite)


def _up(bound: Tensor) -> Tensor:
    """At least `bound`, in float32."""
    return (bound + bound.abs() * 2.0**-20).float()


def _no_hits(centres: int, queries: int) -> Hits:
    rows = (queries, GROUPS + 1), (centres, GROUPS + 1), (centres, GROUPS)
    return Hits(*(torch.zeros(shape, dtype=torch.int64) for shape in rows))


def _count(
    counted: Hits,
    centres: Points,
    i: Tensor,
    queries: Points,
    j: Tensor,
    low: Tensor,
    squared_radii: Tensor,
    comparison: Comparison,
) -> None:
    """Adds the pairs (centre i, query j) that are within; `low` bounds their distances in the tiles' scale."""
    levels = squared_radii[i]
    high = low + 2 * (centres.slack(centres.norms[i]) + queries.slack(queries.norms[j]))
    squared = (low + high) / 2 / centres.scale
    scaled = levels * centres.scale
    open = ((scaled >= low[:, None]) & (scaled <= high[:, None])).any(1).nonzero()[:, 0]
    if len(open):
        squared[open] = _exact(centres, i[open], queries, j[open])
    within = squared[:, None] <= levels if comparison == "<=" else squared[:, None] < levels
    within[torch.arange(len(i)), 1 + centres.groups[i]] = False  # a centre goes with its group
    within = within.long()
    counted.by_query.index_add_(0, j, within)
    counted.by_centre.index_add_(0, i, within)
    counted.by_group.view(-1).index_add_(0, i * GROUPS + queries.groups[j], within[:, 0])
