"""Feeding: computes the values that metrics need of a batch of samples, each once, and only if a metric needs it.

Images are compared at 8 bits: values are rounded to the 256 levels of their range unless raw values are requested, so
that samples score the same from a run, a `.npy` file and PNG files.

Shape letters: b batch, h w spatial, d features or depth, k codes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from itertools import zip_longest
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modkit.evaluation.needs import extract, find_codes, find_continuous, has_logits, list_offers
from modkit.evaluation.sources import SIZE, Source
from modkit.evaluation.states import gather_states
from modkit.kinds import Engine, FeatureExtractor, Metric, MetricExtras, read_extras
from modkit.metrics.reference import Reference, ReferenceCache
from modkit.models.model import Model, evaluate_mode, reconstruct_batch
from modkit.progress import show_progress
from modkit.runs.sources import hash_source
from modkit.types import Batch, Features, Modes, TensorType, Value, split_levels

__all__ = ["Feed", "gather", "uses_features"]

_CACHED = 2**29  # bytes of features that are cached at most
_IMAGE = 3  # axes of an image; volumes have more
_OF_FEATURES = frozenset({"features", "logits", "feature-pairs"})
_OF_PIXELS = _OF_FEATURES | {"images", "points", "pairs"}
Use = tuple[str, str]  # a metric's name, and the set that a source provides


def uses_features(metric: Metric) -> bool:
    """Whether the scores of a metric depend on the features."""
    return not _OF_FEATURES.isdisjoint(metric.needs)


class Feed:
    """Computes the values that metrics need of samples.

    Args:
        extractor: Computes features; None if the samples are features.
        model: The Model that is measured, or None.
        raw: Whether to leave values unchanged instead of rounding them to 8 bits.
        device: Where features are computed.
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

    def list_offers(self, source: Source) -> frozenset[str]:
        """Names the values that a source's samples offer; logits are found by trying the extractor."""
        known = {"truth": source.truth is not None, "factors": bool(source.factors)}
        known["features"] = self.extractor is not None or source.type.classes is None  # else samples are features
        known["logits"] = self._classifies(source.type)
        return list_offers(source.type, source.fields, model=self.model, **known)

    def compute_values(self, source: Source, batch: Batch, wanted: Collection[str]) -> dict[str, Any]:
        """Computes values by name, on the CPU except for the Model and the batch.

        Raises:
            ValueError: If a value does not exist or the samples do not offer it.
        """
        made = _Values(self, source, batch)
        if missing := [name for name in wanted if not hasattr(type(made), _name_attribute(name))]:
            raise ValueError(f"expected a metric whose needs are known values, got a metric that needs {missing}")
        return {name: getattr(made, _name_attribute(name)) for name in wanted}

    def compute_features(self, x: Tensor) -> Features:
        """Computes the features of `x`, on the CPU; returns `x` if samples are features."""
        if self.extractor is None:
            return Features(x)
        made = extract(self.extractor, x.to(self._device))
        return Features(made.vector.cpu(), (), None if made.logits is None else made.logits.cpu())

    def _classifies(self, type: TensorType) -> bool:
        """Whether the extractor gives logits, which is tried once for each type."""
        if type not in self._tried:
            self._tried[type] = self.extractor is not None and has_logits(self.extractor, type)
        return self._tried[type]

    def round_to_bytes(self, x: Tensor, type: TensorType) -> Tensor:
        """Rounds images (and volumes) to 8 bits, unless values are raw or have no range."""
        if self.name_values(type) != "8 bits":
            return x
        assert type.range is not None
        low, high = type.range
        return ((x - low) * (255 / (high - low))).round().clamp(0, 255) * ((high - low) / 255) + low

    def name_values(self, type: TensorType) -> Literal["8 bits", "raw"] | None:
        """Names how the values of samples are taken; None if they are no images, which are as they are."""
        return ("raw" if self.raw else "8 bits") if _has_bytes(type) else None

    def is_raw(self, metric: Metric, source: Source) -> bool:
        """Whether a metric is given values of samples that are rounded by default."""
        chosen = self.raw and self.extractor is not None
        return chosen and _has_bytes(source.type) and not _OF_PIXELS.isdisjoint(metric.needs)


def _has_bytes(type: TensorType) -> bool:
    """Whether samples can be files of pictures, or slices of volumes."""
    return type.range is not None and len(type.shape) >= _IMAGE


class _Values:
    """The values of one batch, each an attribute."""

    def __init__(self, feed: Feed, source: Source, batch: Batch) -> None:
        self._feed, self._source, self._batch = feed, source, batch

    @property
    def batch(self) -> Batch:
        return self._batch

    @property
    def levels(self) -> int | None:
        return self._source.levels

    @property
    def range(self) -> tuple[float, float]:
        if self._source.type.range is None:
            raise ValueError(f"{self._source.name}: expected samples of a known range, got unbounded samples")
        return self._source.type.range

    @property
    def truth(self) -> Modes:
        if self._source.truth is None:
            raise ValueError(f"{self._source.name}: expected synthetic data whose true modes are known, got other data")
        return self._source.truth

    @cached_property
    def _rounded(self) -> Tensor:
        """The samples on their device."""
        return self._feed.round_to_bytes(self.batch.tensor, self._source.type)

    @property
    def images(self) -> Tensor:
        return self._rounded.cpu()

    @property
    def points(self) -> Tensor:
        return self.images

    @cached_property
    def _extracted(self) -> Features:
        return self._feed.compute_features(self._rounded)

    @property
    def features(self) -> Tensor:
        return self._extracted.vector

    @property
    def logits(self) -> Tensor:
        if self._extracted.logits is None:
            raise ValueError("expected features of a classifier, got features without logits")
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
            x = reconstruct_batch(coder, self.batch.to(coder.device)).float()
        ends = self._source.type.range
        return self._feed.round_to_bytes(x if ends is None else x.clamp(*ends), self._source.type)

    @property
    def pairs(self) -> Tensor:
        return torch.stack([self.images, self._reconstruction.cpu()], 1)

    @property
    def feature_pairs(self) -> Tensor:
        return torch.stack([self.features, self._feed.compute_features(self._reconstruction).vector], 1)

    @property
    def codes(self) -> Tensor | tuple[Tensor, ...]:
        """How often a sample uses each code, `b k`; of several codebooks a tuple, coarse to fine."""
        coder = self._coder
        if (name := find_codes(coder)) is None:
            raise ValueError(f"{type(coder).__name__}: expected a Model that encodes to codes, got one without")
        codes = self._encode(coder, name)
        maps, types = codes if isinstance(codes, tuple) else (codes,), split_levels(coder.latents[name])
        z = split_levels(list(coder.latents.values())[-1])[-1]
        counted = [one for map_, type in zip(maps, types, strict=True) for one in _count_codes(map_.cpu(), type, z)]
        return counted[0] if len(counted) == 1 else tuple(counted)

    @property
    def factors(self) -> Tensor:
        if not self._source.factors:
            raise ValueError(f"{self._source.name}: expected data whose factors of variation are known, got other data")
        return torch.stack([self.batch.fields[name].cpu() for name in self._source.factors], 1)

    @property
    def latents(self) -> Tensor:
        coder = self._coder
        if (name := find_continuous(coder)) is None:
            raise ValueError(f"{type(coder).__name__}: expected an encoding that is one continuous tensor, got none")
        latents = self._encode(coder, name)
        assert isinstance(latents, Tensor)
        return latents.flatten(1).float().cpu()

    @property
    def posterior(self) -> Tensor:
        coder = self._coder
        with evaluate_mode(coder):
            batch = self.batch.to(coder.device)
            moments = coder.encode_moments(batch.tensor, (*coder.diagonal, "")[0], fields=batch.fields)
        return torch.stack([one.flatten(1).float().cpu() for one in moments], 1)

    @property
    def precision(self) -> str:
        return self._source.precision

    @property
    def model(self) -> Model:
        if self._feed.model is None:
            raise ValueError("expected a Model to measure, got samples only")
        return self._feed.model

    @property
    def _coder(self) -> Model:
        if (coder := self.model.coder) is None:
            raise ValueError(f"expected a Model that encodes samples, got {type(self.model).__name__}")
        return coder

    def _encode(self, coder: Model, name: str) -> Value:
        """Encodes the samples, given their fields, to what has a name in `latents`."""
        batch = self.batch.to(coder.device)
        with evaluate_mode(coder):
            return coder.encode(batch.tensor, name, fields=batch.fields)


def gather(
    feed: Feed,
    source: Source,
    uses: Sequence[Use],
    metrics: Mapping[str, Metric],
    engine: Engine,
    limit: int | None = None,
) -> tuple[dict[Use, Any], int]:
    """Reads a source once, each process its share; returns the state of each use, and the number of samples.

    Raises:
        ValueError: If samples cannot be read, or do not offer what a metric needs.
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
    rows = min((num for num in (source.count, limit) if num is not None), default=0)
    with show_progress(brief=True) as shown:
        if rows:  # an iterable may not tell how many it has
            shown.begin_stage(source.name, 0, -(-rows // (SIZE * engine.world)))
        for indices, values in _feed(feed, source, wanted, engine, limit) if uses else ():
            for name, set in uses:
                needs = {need: values[need] for need in metrics[name].needs}
                states[name, set] = metrics[name].update(states[name, set], set, needs, indices)
            count += len(indices)
            engine.announce(f"the samples up to {int(indices[-1]) + 1} of {source.name}")
            shown.step(None)
    every = gather_states((count, list(states.values())), engine, feed.model)
    merged = {use: reduce(metrics[use[0]].merge, parts) for use, *parts in zip(uses, *(one for _, one in every))}
    return merged, sum(count for count, _ in every)


def _feed(
    feed: Feed, source: Source, wanted: Collection[str], engine: Engine, limit: int | None
) -> Iterator[tuple[Tensor, Mapping[str, Any]]]:
    """Yields indices and values of this process's batches; features, if they suffice, may come from the cache."""
    rank, world = engine.rank, engine.world
    code = hash_source(type(feed.extractor))  # a key is of weights, and need not know of code that has changed
    suffices = code and {"features", "logits"} >= set(wanted)
    if feed.extractor is None or not source.key or source.count is None or not suffices:
        for indices, batch in source.number_batches(limit, rank, world):
            yield indices, feed.compute_values(source, batch, wanted)
        return
    count = source.count if limit is None else min(source.count, limit)
    preprocessing = "; ".join(("raw" if feed.raw else "8 bits", *source.notes))
    statistics = " and ".join(sorted(wanted))
    features = f"{feed.extractor.key()}; code {code}"
    reference = Reference(source.key, source.name, features, preprocessing, count, statistics)
    cache = ReferenceCache()
    kept = cache.load(reference)
    if not engine.agree(kept is None) and kept is not None:
        for indices in torch.split(torch.arange(count), SIZE)[rank::world]:
            yield indices, {name: kept[name][indices] for name in wanted}
        return
    made: list[dict[str, Tensor]] | None = []
    for indices, batch in source.number_batches(limit, rank, world):
        values = feed.compute_values(source, batch, wanted)
        yield indices, values
        if made is not None:
            made.append(values)
            size = sum(value.nbytes for value in values.values()) / len(indices) * count
            made = made if size <= _CACHED else None
    if not engine.agree(made is None):
        every = [values for turn in zip_longest(*gather_states(made or [], engine)) for values in turn if values]
        if every and rank == 0:
            cache.try_save(reference, {name: torch.cat([values[name] for values in every]) for name in wanted})


def _count_codes(codes: Tensor, type: TensorType, z: TensorType) -> Iterator[Tensor]:
    """Counts how often a sample uses each code, `b k`, by codebook.

    If codes, `b d h w`, have one axis more than the positions of the decoder's `z`, that axis is the codebooks. The
    codes of a vector stand at its tokens.
    """
    positions = max(1, len(z.shape) - (z.classes is None))
    for part in codes.unbind(1) if len(type.shape) > positions else (codes,):
        flat = part.reshape(len(part), -1)
        zeros = torch.zeros(len(flat), type.classes or 0, dtype=torch.int64)
        yield zeros.scatter_add_(1, flat, torch.ones_like(flat))


def _name_attribute(need: str) -> str:
    return need.replace("-", "_")
