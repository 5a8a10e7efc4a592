r"""Bound: how well a Model predicts data, by its lower bound on log p(x), in nats and in bits a dimension.

    bits/dim = (-nats / d + log((levels - 1) / 2)) / log 2

Data of finitely many levels in [-1, 1] are dequantised, x + u / (levels - 1) with u uniform in [-1, 1]: their bound on
a density is then one on the probability of the levels (Theis et al., 2016, eq. 2 to 4), each 2 / (levels - 1) wide. Of
256 levels the second term is log 127.5. The density of data without levels depends on their unit alone: no bits.

Shape letters: b batch, d dimensions of a sample.

References:
    A Note on the Evaluation of Generative Models (Theis et al., 2016), section 3.1, https://arxiv.org/abs/1511.01844
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from torch import Tensor

from modkit.metrics.moments import Moments
from modkit.models.model import Model, evaluate_mode
from modkit.rng import Rng
from modkit.types import Batch, Score

__all__ = ["Bound", "Bounds", "bits_per_dim"]

_NO_LEVELS = "the data have no levels, so that bits per dimension would depend on their unit: none are given"
_OUTSIDE = 1e-4  # past [-1, 1]: rounding


def bits_per_dim(nats: float, dim: int, levels: int) -> float:
    """Bits a dimension from the log density, in nats, of dequantised data in [-1, 1].

    Args:
        nats: log p(x), or a bound.
        dim: Number of dimensions of a sample.
        levels: Number of values that a dimension takes, at least 2.
    """
    return (-nats / dim + math.log((levels - 1) / 2)) / math.log(2)


class Bounds(NamedTuple):
    """Moments of the bounds seen, `1`, float64; the data's levels and dimensions."""

    moments: Moments
    levels: int | None
    dim: int


class Bound:
    """The mean of a Model's lower bound on log p(x), nats a sample; of data with levels, in bits a dimension, too.

    Its error is s / sqrt(n), which is the delete-one jackknife's, and holds the noise of the draws. Each is a function
    of the seed and the sample's index.

    References:
        Importance Weighted Autoencoders (Burda et al., 2016), eq. 8, https://arxiv.org/abs/1509.00519
        A Note on the Evaluation of Generative Models (Theis et al., 2016), section 3.1,
        https://arxiv.org/abs/1511.01844

    Args:
        num: Draws a sample, which make the Model's bound tighter (importance weights) or less noisy; 1: the ELBO.
        seed: Seed of the draws.

    Raises:
        ValueError: If `num` is not positive.
    """

    needs = ("model", "batch", "levels")
    sets = ("real",)
    better: Literal["higher"] = "higher"

    def __init__(self, *, num: int = 1, seed: int = 0) -> None:
        if num < 1:
            raise ValueError(f"Bound expects num of at least 1, got {num}")
        self.num, self.seed = num, seed

    def init(self) -> Bounds | None:
        """No samples."""
        return None

    def update(self, state: Bounds | None, set: str, values: Mapping[str, Any], indices: Tensor) -> Bounds:
        """The state with more samples: the `batch` and its `levels`, by the `model`.

        Raises:
            ValueError: If `indices` are not consecutive, the Model has no bound or one that is not finite, or data
                with levels leave [-1, 1].
        """
        if bool((indices.diff() != 1).any()):
            raise ValueError(f"Bound expects consecutive indices, got {indices.tolist()}")
        model: Model = values["model"]
        levels: int | None = values["levels"]
        batch: Batch = values["batch"].to(model.device)
        rng = Rng(self.seed, "bound").rows(int(indices[0]))
        grain = 0.0 if levels is None else 2 / (levels - 1)
        if grain:
            batch = replace(batch, x=_dequantised(batch.tensor, grain, rng))
        with evaluate_mode(model):
            nats = model.bound(batch, self.num, rng.at("model"), grain=grain)
        if not bool(nats.isfinite().all()):
            raise ValueError(f"Bound expects finite bounds of {type(model).__name__}, got NaN or infinity")
        more = Bounds(Moments.of(nats[:, None]), levels, model.single.numel)
        return more if state is None else _added(state, more)

    def merge(self, a: Bounds | None, b: Bounds | None) -> Bounds | None:
        """The state of both."""
        return b if a is None else a if b is None else _added(a, b)

    def result(self, state: Bounds | None, rng: Rng) -> dict[str, Score]:
        """The score `ELBO` or, of more draws, `bound (num=K)`, and `bits/dim`; draws nothing.

        Raises:
            ValueError: If there are no samples.
        """
        if state is None or not state.moments.count:
            raise ValueError("Bound expects samples of 'real', got none")
        moments, levels = state.moments, state.levels
        nats, counts = float(moments.mean), {"real": moments.count}
        error = math.sqrt(float(moments.covariance()) / moments.count) if moments.count > 1 else None
        told = () if levels is not None else (_NO_LEVELS,)
        settings = {"num": self.num, "levels": levels}
        score = Score(nats, error, self.better, counts, seed=self.seed, settings=settings, warnings=told)
        name = "ELBO" if self.num == 1 else f"bound (num={self.num})"
        if levels is None:
            return {name: score}
        bits = bits_per_dim(nats, state.dim, levels)
        bits_error = None if error is None else error / (state.dim * math.log(2))
        return {name: score, "bits/dim": replace(score, value=bits, error=bits_error, better="lower")}


def _dequantised(x: Tensor, grain: float, rng: Rng) -> Tensor:
    if not bool((x.abs() <= 1 + _OUTSIDE).all()):
        raise ValueError(f"Bound expects data with levels in [-1, 1], got values up to {float(x.abs().max()):g}")
    return x + grain * (rng.uniform("dequantise", x) - 0.5)


def _added(a: Bounds, b: Bounds) -> Bounds:
    if (a.levels, a.dim) != (b.levels, b.dim):
        raise ValueError(f"Bound expects data of one kind, got levels and dimensions {a[1:]} and {b[1:]}")
    return Bounds(a.moments.merge(b.moments), a.levels, a.dim)
