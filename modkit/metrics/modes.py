r"""Modes of a known mixture: how many are covered, how many samples lie within them, and how evenly.

    n_j = samples whose nearest mode is j, within radius * std of it;   n_out = samples within no mode
    modes = #{j: n_j >= least},   high quality = sum_j n_j / n,   mode KL = KL(q || 1/k),   q_j = n_j / sum_i n_i
    symmetric KL = sum_c (p_c - q_c) log(p_c / q_c),   c over the k modes and the outside

If the modes lie far apart, a sample of a perfect sampler is within a mode with probability P(|eps| <= radius), eps ~
N(0, I): 98.89 % for radius 3 in two dimensions. A larger share means that samples collapse inside the modes. The state
consists of counts, which are whole numbers.

Shape letters: b batch, n samples, d dimensions, k modes, g groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.streaming import Streaming
from modkit.rng import Rng
from modkit.types import Modes, PositiveFloat, PositiveInt, Score, checked

__all__ = ["ModeCoverage", "count_modes", "mode_kl", "compute_share_within", "symmetric_kl"]

_GROUPS = 10
_TILE = 2**22  # distances in memory: 32 MB
_SMOOTHING = 0.5  # samples added to each cell: Jeffreys' prior
_TOLERANCE = 3.0  # standard errors above the ceiling that may be due to chance


def count_modes(*, points: Tensor, truth: Modes, radius: float = 3.0) -> Tensor:
    """Counts the samples within each mode and, last, outside all modes; int64, `k+1`.

    Args:
        points: Samples, `n d`.
        truth: The modes.
        radius: Radius of a mode in its standard deviations; its boundary is included.

    Raises:
        ValueError: If shapes do not match, a value is not finite or the modes have no width.

    Examples:
        >>> truth = Modes(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), 1.0)
        >>> count_modes(points=torch.tensor([[0.0, 3.0], [1.0, 0.0], [4.5, 0.0]]), truth=truth).tolist()
        [2, 0, 1]
    """
    return torch.bincount(_assign_modes(points, truth, radius), minlength=len(truth.centers) + 1)


def mode_kl(*, counts: Tensor) -> float:
    """KL(q || uniform) in nats, where q are the modes' shares of the samples within any mode: log k minus q's entropy.

    It is log k if all samples are in one mode, or none is in any, and about (k - 1) / (2 n) for a perfect sampler. Of
    the counts from `count_modes`, `k+1`, the last is not used.

    Examples:
        >>> mode_kl(counts=torch.tensor([5, 5, 2]))
        0.0
    """
    held = counts[:-1].double()
    q = held / held.sum().clamp_min(1)
    return max(0.0, math.log(len(q)) - float(torch.special.entr(q).sum()))


def symmetric_kl(*, counts: Tensor, inside: float) -> float:
    """KL(p || q) + KL(q || p) in nats, of the true shares p and the samples' shares q of each mode and the outside.

    Half a sample is added to each cell on both sides (for p, as if n samples of the truth had been drawn), so the score
    is finite: a lost mode costs about log(2 n / k) / k. A perfect sampler scores about k / n.

    Args:
        counts: Counts from `count_modes`, `k+1`.
        inside: The true share of samples within any mode, spread evenly over the modes.
    """
    cells, total = len(counts), counts.sum()
    p = torch.full((cells,), inside / (cells - 1), dtype=torch.float64)
    p[-1] = 1 - inside
    p, q = ((each + _SMOOTHING) / (total + _SMOOTHING * cells) for each in (p * total, counts.double()))
    return float(((p - q) * (p / q).log()).sum())


def compute_share_within(*, radius: float, dim: int) -> float:
    """P(|eps| <= radius) for eps ~ N(0, I) in `dim` dimensions; 1 - exp(-radius^2 / 2) in two.

    Examples:
        >>> round(compute_share_within(radius=3.0, dim=2), 4)
        0.9889
    """
    halves = torch.tensor([dim / 2, radius**2 / 2], dtype=torch.float64)
    return float(torch.special.gammainc(halves[0], halves[1]))


class Tally(NamedTuple):
    """The true modes, and counts of samples by group and cell, `g k+1`, int64."""

    truth: Modes
    counts: Tensor


@checked
class ModeCoverage(Streaming[Tally]):
    """Modes covered, share of high-quality samples, mode KL and symmetric KL, for data whose true modes are known.

    A sample has high quality if it is within `radius` of its nearest mode; a mode is covered by `least` such samples.
    The settings include the ceiling of the share of high-quality samples, which is that of a perfect sampler. A share
    more than three of its standard errors above the ceiling causes a warning, as do modes that overlap. More samples
    cover more modes, so compare scores of equal numbers of samples only. Errors are those of the delete-a-group
    jackknife.

    References:
        VEEGAN (Srivastava et al., 2017), section 4.1, https://arxiv.org/abs/1705.07761
        PacGAN (Lin et al., 2018), section 4, https://arxiv.org/abs/1712.04086

    Args:
        radius: Radius of a mode in its standard deviations (VEEGAN: 3; 10 in 1200 dimensions).
        least: Number of high-quality samples that cover a mode (VEEGAN and PacGAN: 1).

    Raises:
        ValueError: If `radius` or `least` is not positive.

    Examples:
        >>> truth = Modes(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), 1.0)
        >>> values = {"points": torch.tensor([[0.0, 3.0], [1.0, 0.0], [4.5, 0.0]]), "truth": truth}
        >>> scores = ModeCoverage().compute(fake=values)
        >>> scores["modes"].value, round(scores["high quality"].value, 4)
        (1.0, 0.6667)
    """

    needs = ("points", "truth")
    sets = ("fake",)

    def __init__(self, *, radius: PositiveFloat = 3.0, least: PositiveInt = 1) -> None:
        self.radius, self.least = radius, least

    def measure(self, values: Mapping[str, Any], indices: Tensor) -> Tally:
        """Counts the `points`, `b ...` (flattened), within the true modes, `truth`.

        Raises:
            ValueError: If shapes do not match, a value is not finite, or the modes have no width.
        """
        points, truth = values["points"], values["truth"]
        cells = len(truth.centers) + 1
        found = _assign_modes(points.reshape(len(points), -1), truth, self.radius)
        places = assign_groups(indices, _GROUPS) * cells + found
        return Tally(truth, torch.bincount(places, minlength=_GROUPS * cells).view(_GROUPS, cells))

    def add(self, a: Tally, b: Tally) -> Tally:
        """Adds counts.

        Raises:
            ValueError: If the true modes differ.
        """
        if a.truth.std != b.truth.std or not torch.equal(a.truth.centers, b.truth.centers):
            shapes = [f"{tuple(one.truth.centers.shape)} of std {one.truth.std}" for one in (a, b)]
            expected = "all samples to have the same true modes"
            raise ValueError(f"ModeCoverage expects {expected}, got centers {', '.join(shapes)}")
        return Tally(a.truth, a.counts + b.counts)

    def result(self, state: dict[str, Tally], rng: Rng) -> dict[str, Score]:
        """Computes the scores `modes`, `high quality`, `mode KL` and `symmetric KL`; `rng` is not used."""
        truth, groups = self.find(state, "fake")
        modes, dim = truth.centers.shape
        ceiling = compute_share_within(radius=self.radius, dim=dim)
        settings = {"radius": self.radius, "least": self.least, "modes": modes, "ceiling": ceiling}
        counts, apart = groups.sum(0), _measure_gap(truth)
        overlap = _warn_of_overlap(apart, self.radius)
        none = [] if counts[:-1].any() else ["no sample is within a mode: the worst value is given"]

        def score(better: Literal["higher", "lower"], of: Callable[[Tensor], float], *warnings: str) -> Score:
            value, total = of(counts), {"fake": int(counts.sum())}
            error = standard_error(compute_variance(value, lambda g: of(counts - groups[g]), groups.sum(1).tolist()))
            return Score(value, error, better, total, settings=dict(settings), warnings=(*overlap, *warnings))

        return {
            "modes": score("higher", lambda n: float((n[:-1] >= self.least).sum())),
            "high quality": score("higher", _compute_quality, *_warn_of_collapse(counts, self.radius, dim, apart)),
            "mode KL": score("lower", lambda n: mode_kl(counts=n), *none),
            "symmetric KL": score("lower", lambda n: symmetric_kl(counts=n, inside=ceiling)),
        }


def _assign_modes(points: Tensor, truth: Modes, radius: float) -> Tensor:
    """The mode that each of `points`, `n d`, lies within, or k if there is none; `n`."""
    centers, width = truth.centers, truth.std
    if points.ndim != 2 or centers.ndim != 2 or points.shape[1] != centers.shape[1] or not 0 < width < math.inf:
        received = f"{tuple(points.shape)}, {tuple(centers.shape)} and {width}"
        raise ValueError(f"ModeCoverage expects points (n, d), centers (k, d) and a positive std, got {received}")
    if not bool(torch.isfinite(points).all()):
        raise ValueError("ModeCoverage expects finite points, got NaN or infinity")
    cells = []
    for distances in _compute_distances(points, centers):
        distance, nearest = distances.min(1)
        cells.append(nearest.masked_fill(distance > radius * width, len(centers)))
    return torch.cat(cells) if cells else torch.empty(0, dtype=torch.int64)


def _compute_distances(points: Tensor, centers: Tensor) -> Iterator[Tensor]:
    """Yields the distances of points to centers in tiles, `n k`, computed from differences in float64."""
    points, centers = (each.detach().to("cpu", torch.float64) for each in (points, centers))
    rows = max(1, _TILE // len(centers))
    for first in range(0, len(points), rows):
        yield torch.cdist(points[first : first + rows], centers, compute_mode="donot_use_mm_for_euclid_dist")


def _measure_gap(truth: Modes) -> float:
    """The least distance between two modes, in their standard deviations."""
    if len(truth.centers) < 2:
        return math.inf
    nearest = (tile.kthvalue(2, dim=1).values.min() for tile in _compute_distances(truth.centers, truth.centers))
    return float(min(nearest)) / truth.std


def _warn_of_overlap(apart: float, radius: float) -> list[str]:
    """Returns a warning if a sample may lie within two modes, so that the true shares differ from those assumed."""
    return [] if apart >= 2 * radius else [f"modes overlap: they are {apart:.3g} std apart, their radius is {radius:g}"]


def _warn_of_collapse(counts: Tensor, radius: float, dim: int, apart: float) -> list[str]:
    """Returns a warning if more samples lie within the modes than a perfect sampler's would by chance."""
    ceiling, share = compute_share_within(radius=radius, dim=dim), _compute_quality(counts)
    strays = 1 - compute_share_within(
        radius=max(0.0, apart - radius), dim=dim
    )  # samples of one mode within another, at most
    chance = _TOLERANCE * math.sqrt(ceiling * (1 - ceiling) / float(counts.sum()))
    if share <= ceiling + strays + chance:
        return []
    return [f"{share:.2%} within {radius:g} std of a mode is more than a perfect sampler's {ceiling:.2%}: collapse"]


def _compute_quality(counts: Tensor) -> float:
    return float(counts[:-1].sum()) / float(counts.sum())
