r"""Reconstruction: how like images their reconstructions are, by pixels, by structure and by features.

    PSNR = 10 log10(L^2 / mean (x - y)^2),   L = high - low
    SSIM = mean of (2 m_x m_y + C_1)(2 s_xy + C_2) / ((m_x^2 + m_y^2 + C_1)(s_x^2 + s_y^2 + C_2))
    C_1 = (.01 L)^2,   C_2 = (.03 L)^2

m and s^2 are means and variances in an 11x11 window, Gaussian with standard deviation 1.5, at each place where it fits
into the image, of values counted from the range's low end. A sample's PSNR and SSIM (of its channels, averaged) are
averaged over samples; their errors are s / sqrt(n), which is the delete-one jackknife's.

Shape letters: b batch, c channels, h w spatial, d features.

References:
    Image Quality Assessment (Wang et al., 2004), eq. 13 to 17, https://doi.org/10.1109/TIP.2003.819861
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.metrics.frechet import FrechetDistance, FrechetState, factor, factor_distance, warn_of_rank
from modkit.metrics.jackknife import jackknife_variance, standard_error
from modkit.metrics.moments import Moments
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["Likeness", "Reconstruction", "ReconstructionFD", "psnr", "ssim"]

_WINDOW, _STD = 11, 1.5
_K = (0.01, 0.03)
_ROUNDING = 1 / (12 * 255**2)  # mean squared error of rounding to 8 bits, in L^2
_HIGHEST = -10 * math.log10(_ROUNDING)
_CHUNK = 16  # images at a time: SSIM holds five float64 maps of each


def psnr(x: Tensor, y: Tensor, *, ends: Sequence[float] = (-1.0, 1.0)) -> Tensor:
    """Peak signal-to-noise ratio in dB of each sample, `b`, float64.

    An error below that of rounding to 8 bits counts as it, so that nothing is above 58.92 dB.

    Args:
        x: Samples, `b ...`.
        y: Their reconstructions, or the reverse; shape of `x`.
        ends: Lowest and highest value.
    """
    error = (x.double() - y.double()).square().flatten(1).mean(1) / (ends[1] - ends[0]) ** 2
    return -10 * torch.log10(error.clamp_min(_ROUNDING))


def ssim(x: Tensor, y: Tensor, *, ends: Sequence[float] = (-1.0, 1.0)) -> Tensor:
    """Structural similarity of each image, `b`, float64; of smaller images with the largest odd window that fits.

    Args:
        x: Images, `b c h w`.
        y: Their reconstructions, or the reverse; shape of `x`.
        ends: Lowest and highest value.

    Raises:
        ValueError: If `x` is no images.
    """
    if x.ndim != 4:
        raise ValueError(f"ssim expects images of shape (b, c, h, w), got {tuple(x.shape)}")
    kernel = _kernel(_window(x.shape)).to(x.device)
    x, y = ((v.double() - ends[0]) / (ends[1] - ends[0]) for v in (x, y))
    mean_x, mean_y, square_x, square_y, product = (_filter(v, kernel) for v in (x, y, x * x, y * y, x * y))
    c_1, c_2 = (k**2 for k in _K)
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x**2 + square_y - mean_y**2
    luminance = (2 * mean_x * mean_y + c_1) / (mean_x**2 + mean_y**2 + c_1)
    return (luminance * (2 * covariance + c_2) / (variances + c_2)).flatten(1).mean(1)


class Likeness(NamedTuple):
    """What is known of the pairs seen: moments of PSNR (and SSIM, of images), how many are alike, SSIM's window."""

    moments: Moments
    alike: int
    window: int | None


class Reconstruction:
    """PSNR and SSIM of reconstructions, means over samples; of what is no image, PSNR alone.

    References:
        Image Quality Assessment (Wang et al., 2004), eq. 13, https://doi.org/10.1109/TIP.2003.819861

    Args:
        range: Lowest and highest value.

    Raises:
        ValueError: If `range` is not two ascending numbers.
    """

    needs = ("pairs",)
    sets = ("real",)
    better: Literal["higher"] = "higher"

    def __init__(
        self,
        *,
        range: list[float] = [-1.0, 1.0],  # noqa: B006
    ) -> None:
        self.range = range
        if len(range) != 2 or not range[0] < range[1]:
            raise ValueError(f"Reconstruction expects range [low, high] with low < high, got {range}")

    def init(self) -> Likeness | None:
        """No samples."""
        return None

    def update(self, state: Likeness | None, set: str, values: Mapping[str, Tensor], indices: Tensor) -> Likeness:
        """The state with more samples: `pairs`, `b 2 ...`.

        Raises:
            ValueError: If the shape is another, images come in two sizes of window, or a value is not finite.
        """
        pairs = values["pairs"]
        if pairs.ndim < 3 or pairs.shape[1] != 2:
            raise ValueError(f"Reconstruction expects pairs of shape (b, 2, ...), got {tuple(pairs.shape)}")
        window = _window(pairs.shape) if pairs.ndim == 5 else None
        scores = psnr(pairs[:, 0], pairs[:, 1], ends=self.range)[:, None]
        alike = int((scores > _HIGHEST - 1e-9).sum())
        if window is not None:
            chunks = [ssim(part[:, 0], part[:, 1], ends=self.range) for part in torch.split(pairs, _CHUNK)]
            scores = torch.cat([scores, torch.cat(chunks)[:, None]], 1)
        more = Likeness(Moments.of(scores), alike, window)
        return more if state is None else _add(state, more)

    def merge(self, a: Likeness | None, b: Likeness | None) -> Likeness | None:
        """The state of both."""
        return b if a is None else a if b is None else _add(a, b)

    def result(self, state: Likeness | None, rng: Rng) -> dict[str, Score]:
        """The scores `PSNR` and, of images, `SSIM`; draws nothing.

        Raises:
            ValueError: If there are no samples.
        """
        if state is None or not state.moments.count:
            raise ValueError("Reconstruction expects samples of 'real', got none")
        told = () if not state.alike else (_warn_of_exact(state.alike, state.moments.count),)
        scores = {"PSNR": self._score(state, 0, {"range": self.range}, told)}
        if state.window is not None:
            settings = {"range": self.range, "window": state.window}
            told = () if state.window == _WINDOW else (f"small images: SSIM's window is {state.window} wide, not 11",)
            scores["SSIM"] = self._score(state, 1, settings, told)
        return scores

    def _score(self, state: Likeness, which: int, settings: Mapping[str, object], told: tuple[str, ...]) -> Score:
        moments = state.moments
        error = None
        if moments.count > 1:
            error = math.sqrt(float(moments.covariance()[which, which]) / moments.count)
        counts = {"real": moments.count}
        return Score(float(moments.mean[which]), error, self.better, counts, settings=settings, warnings=told)


class ReconstructionFD:
    """Fréchet distance between the features of images and those of their reconstructions (rFID with Inception's).

    Its standard error is the delete-a-group jackknife's; an image leaves with its reconstruction.

    References:
        Taming Transformers (Esser et al., 2021), table 4, https://arxiv.org/abs/2012.09841

    Args:
        groups: Number of groups of samples for the standard error; see `FrechetDistance`.

    Raises:
        ValueError: If `groups` is not positive.
    """

    needs = ("feature-pairs",)
    sets = ("real",)
    better: Literal["lower"] = "lower"

    def __init__(self, *, groups: int | None = None) -> None:
        self._distance = FrechetDistance(groups=groups)

    def init(self) -> FrechetState:
        """No samples."""
        return self._distance.init()

    def update(self, state: FrechetState, set: str, values: Mapping[str, Tensor], indices: Tensor) -> FrechetState:
        """The state, in place, with more samples: `feature-pairs`, `b 2 d`.

        Raises:
            ValueError: If the shape is another than before or a value is not finite.
        """
        pairs = values["feature-pairs"]
        if pairs.ndim != 3 or pairs.shape[1] != 2:
            raise ValueError(f"ReconstructionFD expects feature-pairs of shape (b, 2, d), got {tuple(pairs.shape)}")
        for side, features in zip(self._distance.sets, pairs.unbind(1), strict=True):
            state = self._distance.update(state, side, {"features": features}, indices)
        return state

    def merge(self, a: FrechetState, b: FrechetState) -> FrechetState:
        """The state of both, which are used up."""
        return self._distance.merge(a, b)

    def result(self, state: FrechetState, rng: Rng) -> dict[str, Score]:
        """The score `reconstruction FD`; draws nothing.

        Raises:
            ValueError: If there are fewer than two samples.
        """
        pairs = [(x, y) for x, y in zip(*(state.groups.get(side, []) for side in self._distance.sets)) if x.count]
        count = sum(x.count for x, _ in pairs)
        if count < 2:
            raise ValueError(f"ReconstructionFD expects at least 2 samples of 'real', got {count}")
        value, sizes = _between(pairs), [x.count for x, _ in pairs]
        variance = None
        if len(pairs) > 1 and count - max(sizes) >= 2:
            left_out = [_between([*pairs[:index], *pairs[index + 1 :]]) for index in range(len(pairs))]
            variance = jackknife_variance(value, left_out, sizes)
        score = Score(
            value,
            standard_error(variance),
            self.better,
            {"real": count},
            settings={"groups": len(state.groups["real"])},
            warnings=warn_of_rank("real", count, len(pairs[0][0].mean)),
        )
        return {"reconstruction FD": score}


def _warn_of_exact(alike: int, count: int) -> str:
    return f"{alike} of {count} reconstructions are exact within rounding to 8 bits: they count as {_HIGHEST:.2f} dB"


def _add(a: Likeness, b: Likeness) -> Likeness:
    if a.window != b.window:
        raise ValueError(f"Reconstruction expects images of one size, got SSIM windows of {a.window} and {b.window}")
    return Likeness(a.moments.merge(b.moments), a.alike + b.alike, a.window)


def _between(pairs: Sequence[tuple[Moments, Moments]]) -> float:
    real, fake = (reduce(Moments.merge, side) for side in zip(*pairs, strict=True))
    return factor_distance(factor(real), factor(fake))


def _window(shape: Sequence[int]) -> int:
    """The largest odd width that fits, at most 11."""
    return (min(_WINDOW, *shape[-2:]) - 1) // 2 * 2 + 1


def _kernel(width: int) -> Tensor:
    offset = torch.arange(width, dtype=torch.float64) - width // 2
    kernel = torch.exp(-(offset**2) / (2 * _STD**2))
    return kernel / kernel.sum()


def _filter(x: Tensor, kernel: Tensor) -> Tensor:
    """Local means of `x`, `b c h w`, where the window fits."""
    means = F.conv2d(F.conv2d(x.flatten(0, 1)[:, None], kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return means.view(*x.shape[:2], *means.shape[2:])
