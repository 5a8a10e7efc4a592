r"""Perceptual path length: how fast samples change along paths between draws of the noise that a Model decodes.

    PPL = E 1/eps^2 d(G(walk(a, b; t)), G(walk(a, b; t + eps))),   a, b draws of a source,   t ~ U(0, 1) or t = 0

Paths between normal draws (z) are spherical, those between others (w) linear. d is the perceptual distance in the maps
of features that have any, otherwise the squared distance of their vectors; `pixels` gives the squared speed of values.

References:
    A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., 2019), eq. 2 and 3,
    https://arxiv.org/abs/1812.04948

Shape letters: n paths, and the samples' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from modkit.evaluation.extractors import make_extractor
from modkit.losses.perceptual import Perceptual
from modkit.metrics.streaming import Streaming
from modkit.models.model import Model, evaluate_mode
from modkit.models.paths import walk
from modkit.precision import use_precision
from modkit.rng import Rng
from modkit.types import Range, Score, TensorType, checked

__all__ = ["PathLength"]

_BATCH = 128


@checked
class PathLength(Streaming[Model]):
    """The mean squared speed of samples along paths, with its standard error; requires a Model with sources.

    Fields that a conditional Model reads are drawn for each path, the same all along it. Scores are comparable only if
    features, source and kind of place are the same.

    Args:
        num: Number of paths.
        source: Name of the source, by default the Model's last (w of a generator that has one, otherwise z).
        features: Features whose distance is measured, ready without training: `pixels`, `random-conv`,
            `classifier:digits`, `lpips:…`.
        places: Where on a path: anywhere (`path`) or at its beginning (`ends`).
        eps: Length of a step, as a share of the path.

    Raises:
        ValueError: If `num` is below 2, `eps` outside (0, 1), or `places` unknown.

    Examples:
        >>> from modkit import TensorType
        >>> from modkit.models import GAN
        >>> model = GAN(TensorType((2,)), generator="mlp", discriminator="mlp")
        >>> PathLength(num=4).compute(fake={"model": model})["path length"].counts
        {'fake': 4}
    """

    needs = ("model",)
    sets = ("fake",)
    better: Literal["lower", "higher"] = "lower"

    def __init__(
        self,
        *,
        num: Annotated[int, Range(2)] = 1000,
        source: str | None = None,
        features: str = "pixels",
        places: Literal["path", "ends"] = "path",
        eps: Annotated[float, Range(above=0, below=1)] = 1e-4,
    ) -> None:
        self.num, self.source, self.features, self.places, self.eps = num, source, features, places, eps

    def refuse(self, model: Model, x: TensorType) -> str | None:
        """Returns the reason of a Model without the source, or of features that cannot measure its samples, or None."""
        if self._choose_source(model) in model.sources:
            return _explain_unfit(self.features, x)
        who, known = type(model).__name__, ", ".join(model.sources) or "none"
        expected = f"the source {self.source!r}" if self.source else "sources"
        return f"PathLength expects a Model with {expected}, got {who}, whose sources are: {known}"

    def measure(self, values: Mapping[str, Any], indices: Tensor) -> Model:
        """Returns the model."""
        return values["model"]

    def add(self, a: Model, b: Model) -> Model:
        """Returns either; they are the same."""
        return a

    def result(self, state: dict[str, Model], rng: Rng) -> dict[str, Score]:
        """Computes `path length`, from samples that it decodes itself, in float32.

        Raises:
            ValueError: If the Model has no such source.
        """
        model = self.find(state, "fake")
        if reason := self.refuse(model, model.single):
            raise ValueError(reason)
        source = self._choose_source(model)
        measure, rng = _make_distance(self.features, model), Rng("path length", rng.draw_seed())
        with use_precision(model.device, "float32"), evaluate_mode(model):
            speeds = [
                self._measure_speed(model, source, measure, min(_BATCH, self.num - first), rng.rows(first))
                for first in range(0, self.num, _BATCH)
            ]
        values = torch.cat(speeds).cpu().double()
        error = float(values.std()) / math.sqrt(self.num)
        settings = {"source": source, "features": self.features, "places": self.places, "eps": self.eps}
        return {"path length": Score(float(values.mean()), error, "lower", {"fake": self.num}, settings=settings)}

    def _choose_source(self, model: Model) -> str:
        """The name of the source: that which is stated, or the Model's last; empty if it has none."""
        return self.source or next(reversed(tuple(model.sources)), "")

    def _measure_speed(
        self, model: Model, source: str, measure: Callable[[Tensor, Tensor], Tensor], num: int, rng: Rng
    ) -> Tensor:
        """The squared speed at a place of each of `num` paths, `n`."""
        fields = model.complete(num, {}, rng)
        a, b = (model.draw_source(num, source, rng.at(end), fields=fields) for end in ("a", "b"))
        t = rng.uniform("t", a.new_empty(num, 1)) if self.places == "path" else a.new_zeros(num, 1)
        path: Literal["spherical", "linear"] = "spherical" if model.sources[source] is model.start_noise else "linear"
        near, far = (
            model.decode_source(
                walk(a.flatten(1), b.flatten(1), at, path=path).view(a.shape).to(a), source, fields=fields
            )
            for at in (t, t + self.eps)
        )
        return measure(near, far) / self.eps**2


def _explain_unfit(name: str, x: TensorType) -> str | None:
    """Returns why features of this name cannot be made, or are not ready, for samples of type `x`, or None."""
    try:
        with torch.device("meta"):
            features = make_extractor(name, x)
            if features is not None:
                features.key()  # refuses those that are to be trained
    except ValueError as error:
        return f"PathLength expects features that are ready without training, got {name!r}: {error}"
    except RuntimeError:  # a plug-in's features may not be made without values
        return None
    return None


def _make_distance(name: str, model: Model) -> Callable[[Tensor, Tensor], Tensor]:
    x: TensorType = model.single
    features = make_extractor(name, x)
    assert features is not None
    if isinstance(features, nn.Module):
        features.to(model.device)
    if features(torch.zeros(1, *x.shape, device=model.device)).maps:
        return Perceptual(features)
    return lambda near, far: (features(near).vector - features(far).vector).square().sum(1)
