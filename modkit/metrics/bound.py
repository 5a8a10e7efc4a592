r"""Bound: how well a Model predicts data, by its lower bound on log p(x), in nats and in bits per dimension.

    bits/dim = -(nats / d + log w) / log 2,   w = (high - low) / (levels - 1)

Data that take finitely many levels, evenly spaced over their range, are dequantised, x + w u with u uniform in
[-1/2, 1/2]. A bound on their density is then a bound on the probability of the levels (Theis et al., 2016, eq. 2 to 4),
each of which is w wide. With 256 levels in [-1, 1], -log w is log 127.5. The density of data without levels depends on
their unit, so no bits are given for them. A Model that is `discrete` (of codes, or with a Bernoulli likelihood) gives
the probability itself: x is not dequantised, and bits/dim = -nats / (d log 2).

Shape letters: b batch, d dimensions of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from torch import Tensor

from modkit.metrics.moments import Moments
from modkit.metrics.streaming import Streaming
from modkit.models.model import Model, evaluate_mode
from modkit.rng import Rng
from modkit.types import Batch, PositiveInt, Score, TensorType, checked

__all__ = ["Bound", "Bounds", "bits_per_dim"]

_NO_LEVELS = "the data have no levels, so bits per dimension would depend on their unit and are not given"
_OUTSIDE = 5e-5  # how far rounding may take values past the range, as a share of it
_RANGE = (-1.0, 1.0)  # of data whose type states none


def bits_per_dim(nats: float, dim: int, levels: int, *, range: tuple[float, float] = _RANGE) -> float:
    """Converts the log density of dequantised data from nats to bits per dimension.

    Args:
        nats: log p(x) of a sample, or a bound on it.
        dim: Number of dimensions of a sample.
        levels: Number of values that a dimension takes, at least 2.
        range: The lowest and the highest of them.

    Examples:
        An even density on [-2, 2] over two levels, each 2 wide: one bit per dimension.

        >>> round(bits_per_dim(-math.log(4), dim=1, levels=2), 12)
        1.0
    """
    return -(nats / dim + math.log(_measure_level(levels, range))) / math.log(2)


class Bounds(NamedTuple):
    """The moments of the bounds, `1`, float64, the levels, dimensions and range of the data, what is bounded."""

    moments: Moments
    levels: int | None
    dim: int
    range: tuple[float, float]
    discrete: bool


@checked
class Bound(Streaming[Bounds]):
    """The mean of a Model's lower bound on log p(x), in nats per sample and, for data with levels, bits per dimension.

    The error is s / sqrt(n), which equals the delete-one jackknife's, and includes the noise of the draws. The draws
    are a function of the seed and the sample's index.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), eq. 8, https://arxiv.org/abs/1509.00519
        A Note on the Evaluation of Generative Models (Theis et al., 2016), section 3.1,
        https://arxiv.org/abs/1511.01844

    Args:
        num: Number of draws per sample; more draws make the Model's bound tighter (importance weights) or less noisy.
            1 gives the ELBO.
        seed: Seed of the draws.

    Raises:
        ValueError: If `num` is not positive.

    Examples:
        >>> import torch
        >>> from modkit import Batch, Model, TensorType
        >>> class Even(Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.event = TensorType((3,))
        ...     def bound(self, batch, num, rng, *, grain=0.0):
        ...         return torch.full((len(batch),), -3 * math.log(2 + grain), dtype=torch.float64)
        >>> values = {"model": Even.assemble(), "batch": Batch(torch.ones(4, 3), {}), "levels": 17}
        >>> round(Bound().compute(real=values)["bits/dim"].value, 12) == round(math.log2(17), 12)
        True
    """

    needs = ("model", "batch", "levels")
    sets = ("real",)
    better: Literal["lower", "higher"] = "higher"

    def __init__(self, *, num: PositiveInt = 1, seed: int = 0) -> None:
        self.num, self.seed = num, seed
        self.settings: dict[str, Any] = {"num": num}
        self.names = ("ELBO" if num == 1 else f"bound (num={num})", "bits/dim")

    def refuse(self, model: Model, x: TensorType) -> str | None:
        """Returns the reason of a Model without a bound, or None."""
        return model.explain_lack("bound", self.num)

    def measure(self, values: Mapping[str, Any], indices: Tensor) -> Bounds:
        """Computes the moments of the bounds that `model` gives of a `batch` whose data have `levels`.

        Raises:
            ValueError: If `indices` are not consecutive, the Model has no bound or a bound that is not finite, or data
                with levels lie outside the range of the Model's type, [-1, 1] where it has none.
        """
        if bool((indices.diff() != 1).any()):
            raise ValueError(f"{type(self).__name__} expects consecutive indices, got {indices.tolist()}")
        model: Model = values["model"]
        levels: int | None = values["levels"]
        batch: Batch = values["batch"].to(model.device)
        rng = Rng(self.seed, "bound").rows(int(indices[0]))
        ends = model.single.range or _RANGE
        grain = 0.0 if levels is None or model.discrete else _measure_level(levels, ends)
        if grain:
            batch = replace(batch, x=self._dequantize(batch.tensor, grain, ends, rng))
        with evaluate_mode(model):
            nats = self.compute_nats(model, batch, rng.at("model"), grain)
        if not bool(nats.isfinite().all()):
            expected = f"a finite {self.names[0]} of {type(model).__name__}"
            raise ValueError(f"{type(self).__name__} expects {expected}, got NaN or infinity")
        return Bounds(Moments.from_samples(nats[:, None]), levels, model.single.numel, ends, model.discrete)

    def compute_nats(self, model: Model, batch: Batch, rng: Rng, grain: float) -> Tensor:
        """Computes what is averaged, nats per sample, `b`."""
        return model.bound(batch, self.num, rng, grain=grain)

    def add(self, a: Bounds, b: Bounds) -> Bounds:
        """Merges moments.

        Raises:
            ValueError: If the levels or dimensions of the data differ.
        """
        if a[1:] != b[1:]:
            expected = "all data to have the same levels, dimensions and range"
            raise ValueError(f"{type(self).__name__} expects {expected}, got {a[1:4]} and {b[1:4]}")
        return a._replace(moments=a.moments.merge(b.moments))

    def result(self, state: dict[str, Bounds], rng: Rng) -> dict[str, Score]:
        """Computes the score `ELBO` (`bound (num=K)` for K > 1 draws) and, for data with levels, `bits/dim`."""
        moments, levels, dim, ends, discrete = self.find(state, "real")
        nats, counts = float(moments.mean), {"real": moments.count}
        error = math.sqrt(float(moments.covariance()) / moments.count) if moments.count > 1 else None
        notes = () if levels is not None or discrete else (_NO_LEVELS,)
        settings = {**self.settings, "levels": levels}
        score = Score(nats, error, self.better, counts, seed=self.seed, settings=settings, warnings=notes)
        name, bits_name = self.names
        if discrete:
            bits = -nats / (dim * math.log(2))
        elif levels is not None:
            bits = bits_per_dim(nats, dim, levels, range=ends)
        else:
            return {name: score}
        bits_error = None if error is None else error / (dim * math.log(2))
        return {name: score, bits_name: replace(score, value=bits, error=bits_error, better="lower")}

    def _dequantize(self, x: Tensor, grain: float, range: tuple[float, float], rng: Rng) -> Tensor:
        (low, high), (least, most) = range, (float(x.min()), float(x.max()))
        slack = _OUTSIDE * (high - low)
        if not low - slack <= least <= most <= high + slack:
            expected = f"data with levels in [{low:g}, {high:g}]"
            raise ValueError(f"{type(self).__name__} expects {expected}, got values in [{least:g}, {most:g}]")
        return x + grain * (rng.uniform("dequantise", x) - 0.5)


def _measure_level(levels: int, range: tuple[float, float]) -> float:
    """The width of a level."""
    return (range[1] - range[0]) / (levels - 1)
