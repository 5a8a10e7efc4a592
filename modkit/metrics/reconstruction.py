r"""Reconstruction: how similar reconstructions are to their images, by pixels, by structure and by features.

    PSNR = 10 log10(L^2 / mean (x - y)^2),   L = high - low
    SSIM = mean of (2 m_x m_y + C_1)(2 s_xy + C_2) / ((m_x^2 + m_y^2 + C_1)(s_x^2 + s_y^2 + C_2))
    C_1 = (.01 L)^2,   C_2 = (.03 L)^2

m and s^2 are means and variances in an 11x11 window, Gaussian with standard deviation 1.5, at each position where it
fits into the image, as in the authors' code and scikit-image. torchmetrics also averages over windows that reach into a
reflected border, which moves SSIM by about .002. Values are measured from the low end of the range. PSNR and SSIM (the
mean over channels) of a sample are averaged over samples; their errors are s / sqrt(n), which equals the delete-one
jackknife's.

Shape letters: b batch, c channels, h w spatial, d features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.metrics.frechet import FrechetDistance, Side, compute_distance, factor, list_groups, warn_of_rank
from modkit.metrics.jackknife import compute_variance, standard_error
from modkit.metrics.moments import Moments
from modkit.metrics.streaming import Streaming
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["Likeness", "Reconstruction", "ReconstructionFD", "psnr", "ssim"]

_WINDOW, _STD = 11, 1.5
_K = (0.01, 0.03)
_ROUNDING = 1 / (12 * 255**2)  # mean squared error of rounding to 8 bits, in L^2
_HIGHEST = -10 * math.log10(_ROUNDING)
_CHUNK = 16  # images at once: SSIM stores five float64 maps of each


def psnr(x: Tensor, y: Tensor, *, ends: Sequence[float] = (-1.0, 1.0)) -> Tensor:
    """Computes the peak signal-to-noise ratio of each sample in dB, `b`, float64.

    Errors below those of rounding to 8 bits count as these, so the highest value is 58.92 dB.

    Args:
        x: Samples, `b ...`.
        y: Their reconstructions, shape of `x`; the order does not matter.
        ends: Lowest and highest value of the range.

    Examples:
        An error of a tenth of the range:

        >>> round(psnr(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.2)).item(), 4)
        20.0
    """
    error = (x.double() - y.double()).square().flatten(1).mean(1) / (ends[1] - ends[0]) ** 2
    return -10 * torch.log10(error.clamp_min(_ROUNDING))


def ssim(x: Tensor, y: Tensor, *, ends: Sequence[float] = (-1.0, 1.0)) -> Tensor:
    """Computes the structural similarity of each image, `b`, float64.

    On images smaller than the window it uses the largest odd window that fits. For the arguments see `psnr`; `x` are
    images, `b c h w`.

    Raises:
        ValueError: If `x` is not a batch of images.

    Examples:
        >>> x = torch.linspace(-1, 1, 144).view(1, 1, 12, 12)
        >>> round(ssim(x, x).item(), 12)
        1.0
    """
    if x.ndim != 4:
        raise ValueError(f"ssim expects images of shape (b, c, h, w), got {tuple(x.shape)}")
    kernel = _make_kernel(_choose_window(x.shape)).to(x.device)
    x, y = ((v.double() - ends[0]) / (ends[1] - ends[0]) for v in (x, y))
    mean_x, mean_y, square_x, square_y, product = (_filter(v, kernel) for v in (x, y, x * x, y * y, x * y))
    c_1, c_2 = (k**2 for k in _K)
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x**2 + square_y - mean_y**2
    luminance = (2 * mean_x * mean_y + c_1) / (mean_x**2 + mean_y**2 + c_1)
    return (luminance * (2 * covariance + c_2) / (variances + c_2)).flatten(1).mean(1)


class Likeness(NamedTuple):
    """Moments of PSNR (and SSIM, for images), the number of pairs equal within rounding, SSIM's window, the range."""

    moments: Moments
    alike: int
    window: int | None
    range: tuple[float, float]


class Reconstruction(Streaming[Likeness]):
    """PSNR and SSIM of reconstructions, averaged over samples; for data other than images, only PSNR.

    References:
        Image Quality Assessment (Wang et al., 2004), eq. 13 to 17, https://doi.org/10.1109/TIP.2003.819861

    Args:
        range: Lowest and highest value of the data; None is the range of the data's type.

    Raises:
        ValueError: If `range` does not consist of two ascending numbers.

    Examples:
        Errors of a tenth of the range:

        >>> pairs = torch.stack([torch.zeros(3, 5), torch.full((3, 5), 0.2)], 1)
        >>> round(Reconstruction(range=[-1.0, 1.0]).compute(real=pairs)["PSNR"].value, 4)
        20.0
    """

    sets = ("real",)
    better: Literal["lower", "higher"] = "higher"

    def __init__(self, *, range: list[float] | None = None) -> None:
        self.range = range
        self.needs = ("pairs", "range") if range is None else ("pairs",)
        if range is not None and (len(range) != 2 or not range[0] < range[1]):
            raise ValueError(f"Reconstruction expects range [low, high] with low < high, got {range}")

    def measure(self, values: Mapping[str, Tensor], indices: Tensor) -> Likeness:
        """Compares the two sides of `pairs`, `b 2 ...`.

        Raises:
            ValueError: If they have another shape, a value is not finite, or the range is unknown.
        """
        pairs, range = values["pairs"], self.range or values.get("range")
        if range is None:
            raise ValueError("Reconstruction expects the range of the data, got none; give range=[low, high]")
        ends = (float(range[0]), float(range[1]))
        if pairs.ndim < 3 or pairs.shape[1] != 2:
            raise ValueError(f"Reconstruction expects pairs of shape (b, 2, ...), got {tuple(pairs.shape)}")
        window = _choose_window(pairs.shape) if pairs.ndim == 5 else None
        scores = psnr(pairs[:, 0], pairs[:, 1], ends=ends)[:, None]
        alike = int((scores > _HIGHEST - 1e-9).sum())
        if window is not None:
            chunks = [ssim(part[:, 0], part[:, 1], ends=ends) for part in torch.split(pairs, _CHUNK)]
            scores = torch.cat([scores, torch.cat(chunks)[:, None]], 1)
        return Likeness(Moments.from_samples(scores), alike, window, ends)

    def add(self, a: Likeness, b: Likeness) -> Likeness:
        """Merges moments.

        Raises:
            ValueError: If images of two sizes have different windows, only some samples are images, or ranges differ.
        """
        if a.window != b.window:
            received = f"SSIM windows of {a.window} and {b.window}"
            raise ValueError(f"Reconstruction expects images of one size, got {received}")
        if a.range != b.range:
            raise ValueError(f"Reconstruction expects samples of one range, got {a.range} and {b.range}")
        return a._replace(moments=a.moments.merge(b.moments), alike=a.alike + b.alike)

    def result(self, state: dict[str, Likeness], rng: Rng) -> dict[str, Score]:
        """Computes the scores `PSNR` and, for images, `SSIM`; `rng` is not used."""
        moments, alike, window, ends = self.find(state, "real")
        settings = {"range": list(ends)}
        exact = f"{alike} of {moments.count} reconstructions are exact within rounding to 8 bits"
        notes = (f"{exact} and count as {_HIGHEST:.2f} dB",) if alike else ()
        scores = {"PSNR": self._score(moments, 0, settings, notes)}
        if window is not None:
            notes = () if window == _WINDOW else (f"small images: SSIM's window is {window} wide, not 11",)
            scores["SSIM"] = self._score(moments, 1, {**settings, "window": window}, notes)
        return scores

    def _score(self, moments: Moments, which: int, settings: Mapping[str, object], notes: tuple[str, ...]) -> Score:
        error = None
        if moments.count > 1:
            error = math.sqrt(float(moments.covariance()[which, which]) / moments.count)
        counts = {"real": moments.count}
        return Score(float(moments.mean[which]), error, self.better, counts, settings=settings, warnings=notes)


class ReconstructionFD(Streaming[Side]):
    """Fréchet distance between the features of images and of their reconstructions; with Inception's it is the rFID.

    The standard error is the delete-a-group jackknife's; an image is left out together with its reconstruction.

    References:
        Taming Transformers (Esser et al., 2021), table 4, https://arxiv.org/abs/2012.09841

    Args:
        groups: Number of groups of samples for the standard error; see `FrechetDistance`.

    Raises:
        ValueError: If `groups` is not positive.

    Examples:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> round(ReconstructionFD().compute(real=torch.stack([x, x + 3], 1))["reconstruction FD"].value, 12)
        9.0
    """

    needs = ("feature-pairs",)
    sets = ("real",)
    better: Literal["lower", "higher"] = "lower"

    def __init__(self, *, groups: int | None = None) -> None:
        self._distance = FrechetDistance(groups=groups)

    def update(
        self, state: dict[str, Side], set: str, values: Mapping[str, Tensor], indices: Tensor
    ) -> dict[str, Side]:
        """Returns the state, changed in place, with more samples: `feature-pairs`, `b 2 d`.

        Raises:
            ValueError: If the shape differs from that of earlier samples or a value is not finite.
        """
        pairs = values["feature-pairs"]
        if pairs.ndim != 3 or pairs.shape[1] != 2:
            raise ValueError(f"ReconstructionFD expects feature-pairs of shape (b, 2, d), got {tuple(pairs.shape)}")
        for side, features in zip(self._distance.sets, pairs.unbind(1), strict=True):
            state = self._distance.update(state, side, {"features": features}, indices)
        return state

    def add(self, a: Side, b: Side) -> Side:
        """Merges the moments of each group."""
        return self._distance.add(a, b)

    def result(self, state: dict[str, Side], rng: Rng) -> dict[str, Score]:
        """Computes the score `reconstruction FD`; `rng` is not used."""
        sides = (list_groups(state, side) for side in self._distance.sets)
        pairs = [(x, y) for x, y in zip(*sides) if x.count]
        count = sum(x.count for x, _ in pairs)
        if count < 2:
            raise ValueError(f"ReconstructionFD expects at least 2 samples of 'real', got {count}")
        value, variance = _compute_distance(pairs), None
        if count - max(x.count for x, _ in pairs) >= 2:
            without = lambda group: _compute_distance([*pairs[:group], *pairs[group + 1 :]])  # noqa: E731
            variance = compute_variance(value, without, (x.count for x, _ in pairs))
        score = Score(
            value,
            standard_error(variance),
            self.better,
            {"real": count},
            settings={"groups": len(list_groups(state, "real"))},
            warnings=warn_of_rank("real", count, len(pairs[0][0].mean)),
        )
        return {"reconstruction FD": score}


def _compute_distance(pairs: Sequence[tuple[Moments, Moments]]) -> float:
    real, fake = (reduce(Moments.merge, side) for side in zip(*pairs, strict=True))
    return compute_distance(factor(real), factor(fake))


def _choose_window(shape: Sequence[int]) -> int:
    """Returns the largest odd width that fits, at most 11."""
    return (min(_WINDOW, *shape[-2:]) - 1) // 2 * 2 + 1


def _make_kernel(width: int) -> Tensor:
    offset = torch.arange(width, dtype=torch.float64) - width // 2
    kernel = torch.exp(-(offset**2) / (2 * _STD**2))
    return kernel / kernel.sum()


def _filter(x: Tensor, kernel: Tensor) -> Tensor:
    """Computes the local means of `x`, `b c h w`, where the window fits."""
    means = F.conv2d(F.conv2d(x.flatten(0, 1)[:, None], kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return means.view(*x.shape[:2], *means.shape[2:])
