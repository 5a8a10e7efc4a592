"""Feeding: what metrics are told of a batch of samples, each value computed once, where a metric needs it.

Images are held against 8-bit ones: values are rounded to the 256 levels of their range unless they are wanted raw, so
that the same samples score the same from a run, from a `.npy` and from PNGs.

Shape letters: b batch, h w spatial, d features or depth, k codes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from modkit.evaluation.sources import Source
from modkit.kinds import FeatureExtractor, Metric, MetricExtras, read_extras
from modkit.metrics.reference import Reference, ReferenceCache
from modkit.models.model import Model, evaluate_mode
from modkit.types import Batch, Features, Modes, TensorType, split_levels

__all__ = ["Feed", "gathered", "measured_by_features"]

_CACHED = 2**29  # bytes of features that are kept for another time
_OF_FEATURES = frozenset({"features", "logits", "feature-pairs"})
Use = tuple[str, str]  # a metric's name, and the set that it takes a source for


def measured_by_features(metric: Metric) -> bool:
    """Whether a metric's scores depend on the features."""
    return not _OF_FEATURES.isdisjoint(metric.needs)


class Feed:
    """Makes what metrics need of samples.

    Args:
        extractor: Makes features; None where the samples are features.
        model: The Model that is measured, if one is.
        raw: Leave values as they are instead of rounding them to 8 bits.
        device: Where features are made.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | None,
        model: Model | None = None,
        *,
        raw: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.extractor, self.model, self.raw = extractor, model, raw or extractor is None
        self._device = device
        self._tried: dict[TensorType, bool] = {}
        if isinstance(extractor, nn.Module):
            extractor.to(device)

    def offers(self, source: Source) -> frozenset[str]:
        """What there is of a source's samples; logits where it has images to try the extractor on."""
        names = {"features", "points", "batch", "levels"}
        if len(source.type.shape) > 1:
            names.add("images")
        if self._classifies(source.type):
            names.add("logits")
        if "labels" in source.fields:
            names.add("labels")
        if source.truth is not None:
            names.add("truth")
        if self.model is not None:
            names.add("model")
            if (coder := self.model.coder) is not None:
                names |= {"pairs", "feature-pairs"}
                names |= {"codes"} if _coded(coder) else set()
        return frozenset(names)

    def values(self, source: Source, batch: Batch, wanted: Collection[str]) -> dict[str, Any]:
        """The values by name, on the CPU but for the Model.

        Raises:
            ValueError: If one is wanted that there is not.
        """
        made = _Values(self, source, batch)
        if missing := [name for name in wanted if not hasattr(type(made), _attribute(name))]:
            raise ValueError(f"expected a metric that needs what can be given, got one that needs {missing}")
        return {name: getattr(made, _attribute(name)) for name in wanted}

    def features(self, x: Tensor) -> Features:
        """The features of `x`, on the CPU; `x` itself where samples are features."""
        if self.extractor is None:
            return Features(x)
        with torch.no_grad():
            made = self.extractor(x.to(self._device))
        return Features(made.vector.cpu(), (), None if made.logits is None else made.logits.cpu())

    def _classifies(self, type: TensorType) -> bool:
        """Whether the extractor gives logits, tried once a type."""
        if type not in self._tried:
            blank = torch.zeros(1, *type.shape)
            self._tried[type] = self.extractor is not None and self.features(blank).logits is not None
        return self._tried[type]

    def rounded(self, x: Tensor, type: TensorType) -> Tensor:
        """`x` as 8 bits hold it, unless raw or without a range."""
        if self.raw or type.range is None:
            return x
        low, high = type.range
        return ((x - low) * (255 / (high - low))).round().clamp(0, 255) * ((high - low) / 255) + low


class _Values:
    """One batch; an attribute a value."""

    def __init__(self, feed: Feed, source: Source, batch: Batch) -> None:
        self._feed, self._source, self._batch = feed, source, batch

    @property
    def batch(self) -> Batch:
        return self._batch

    @property
    def levels(self) -> int | None:
        return self._source.levels

    @property
    def truth(self) -> Modes:
        if self._source.truth is None:
            raise ValueError(f"{self._source.name}: expected synthetic data whose truth is known")
        return self._source.truth

    @cached_property
    def images(self) -> Tensor:
        return self._feed.rounded(self.batch.tensor, self._source.type)

    @property
    def points(self) -> Tensor:
        return self.images

    @cached_property
    def _extracted(self) -> Features:
        return self._feed.features(self.images)

    @property
    def features(self) -> Tensor:
        return self._extracted.vector

    @property
    def logits(self) -> Tensor:
        if self._extracted.logits is None:
            raise ValueError("expected features of a classifier, got some without logits")
        return self._extracted.logits

    @property
    def labels(self) -> Tensor:
        if "labels" not in self.batch.fields:
            raise ValueError(f"{self._source.name}: expected samples with labels, got none")
        return self.batch.fields["labels"].cpu()

    @cached_property
    def _reconstruction(self) -> Tensor:
        coder = self._coder
        with evaluate_mode(coder):
            x = coder.reconstruct(self.batch.tensor.to(coder.device)).float().cpu()
        ends = self._source.type.range
        return self._feed.rounded(x if ends is None else x.clamp(*ends), self._source.type)

    @property
    def pairs(self) -> Tensor:
        return torch.stack([self.images, self._reconstruction], 1)

    @property
    def feature_pairs(self) -> Tensor:
        return torch.stack([self.features, self._feed.features(self._reconstruction).vector], 1)

    @property
    def codes(self) -> Tensor | tuple[Tensor, ...]:
        """How often each code stands for a sample, `b k`; a tuple, coarse to fine, of several codebooks."""
        coder = self._coder
        if (name := _coded(coder)) is None:
            raise ValueError(f"{type(coder).__name__}: expected codes among what it encodes to, got none")
        with evaluate_mode(coder):
            codes = coder.encode(self.batch.tensor.to(coder.device), name)
        maps, types = codes if isinstance(codes, tuple) else (codes,), split_levels(coder.latents[name])
        z = split_levels(list(coder.latents.values())[-1])[-1]
        counted = [one for map_, type in zip(maps, types, strict=True) for one in _counts(map_.cpu(), type, z)]
        return counted[0] if len(counted) == 1 else tuple(counted)

    @property
    def model(self) -> Model:
        if self._feed.model is None:
            raise ValueError("expected a Model to measure, got samples alone")
        return self._feed.model

    @property
    def _coder(self) -> Model:
        if (coder := self.model.coder) is None:
            raise ValueError(f"{type(self.model).__name__} encodes nothing to measure")
        return coder


def gathered(
    feed: Feed, source: Source, uses: Sequence[Use], metrics: Mapping[str, Metric], limit: int | None = None
) -> tuple[dict[Use, Any], int]:
    """The state of each metric that takes the source for a set, and how many samples there were: one pass.

    Raises:
        ValueError: If samples cannot be read, or a metric needs what they do not give.
    """
    states = {use: metrics[use[0]].init() for use in uses}
    wanted = {need for name, _ in uses for need in metrics[name].needs}
    if source.given is not None:
        for name, set in uses:
            if (take := read_extras(metrics[name], MetricExtras).given) is None:
                raise ValueError(f"{source.name}: expected samples, got mean and covariance, which `{name}` cannot use")
            states[name, set] = take(states[name, set], set, source.given)
        return states, source.given.count or 0
    count = 0
    for indices, values in _fed(feed, source, wanted, limit) if uses else ():
        for name, set in uses:
            needs = {need: values[need] for need in metrics[name].needs}
            states[name, set] = metrics[name].update(states[name, set], set, needs, indices)
        count += len(indices)
    return states, count


def _fed(
    feed: Feed, source: Source, wanted: Collection[str], limit: int | None
) -> Iterator[tuple[Tensor, Mapping[str, Any]]]:
    """Indices and values, batch by batch; features alone come from the cache where they have been made before."""
    if feed.extractor is None or not source.key or source.count is None or not {"features", "logits"} >= set(wanted):
        for indices, batch in source.numbered(limit):
            yield indices, feed.values(source, batch, wanted)
        return
    count = source.count if limit is None else min(source.count, limit)
    preprocessing = "; ".join(("raw" if feed.raw else "8 bits", *source.notes))
    statistics = " and ".join(sorted(wanted))
    reference = Reference(source.key, source.name, feed.extractor.key(), preprocessing, count, statistics)
    cache = ReferenceCache()
    kept = cache.load(reference)
    if kept is not None:
        for indices in torch.split(torch.arange(count), 256):
            yield indices, {name: kept[name][indices] for name in wanted}
        return
    made: list[dict[str, Tensor]] | None = []
    for indices, batch in source.numbered(limit):
        values = feed.values(source, batch, wanted)
        yield indices, values
        if made is not None:
            made.append(values)
            size = sum(value.nbytes for value in values.values()) / len(indices) * count
            made = made if size <= _CACHED else None
    if made:
        cache.save(reference, {name: torch.cat([values[name] for values in made]) for name in wanted})


def _coded(coder: Model) -> str | None:
    """Name of the first of what it encodes to of which each level is codes."""
    return next(
        (name for name, event in coder.latents.items() if all(one.classes for one in split_levels(event))), None
    )


def _counts(codes: Tensor, type: TensorType, z: TensorType) -> Iterator[Tensor]:
    """How often each code stands for a sample, `b k`, by codebook.

    Where the codes `b d h w` have an axis more than the positions of the decoder's `z` it is of codebooks.
    """
    positions = len(z.shape) - (z.classes is None)
    for part in codes.unbind(1) if len(type.shape) > positions else (codes,):
        flat = part.reshape(len(part), -1)
        zeros = torch.zeros(len(flat), type.classes or 0, dtype=torch.int64)
        yield zeros.scatter_add_(1, flat, torch.ones_like(flat))


def _attribute(need: str) -> str:
    return need.replace("-", "_")
