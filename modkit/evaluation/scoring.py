"""Scoring: one pass over each source of samples, then each metric's result from the states of its sets.

A source may stand for different sets to different metrics: held-out images are real to a reconstruction, and fake where
they are the floor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

from torch import nn

from modkit.data.loader import ordered_pass
from modkit.evaluation.feed import Feed, gathered, measured_by_features
from modkit.evaluation.report import Report
from modkit.evaluation.sources import Source
from modkit.kinds import Data, FeatureExtractor, Metric
from modkit.metrics.reference import Reference, ReferenceCache
from modkit.parts.registry import get_registry
from modkit.parts.signature import read_parameters
from modkit.rng import Rng
from modkit.types import Score, TensorType

__all__ = ["Chosen", "Places", "check_needs", "lacking", "made_extractor", "made_metrics", "prepared", "scored"]

Chosen: TypeAlias = Sequence[str | Metric]
Places: TypeAlias = Mapping[str, Mapping[str, str]]
"""By metric and set, the source that stands for it."""

_INCEPTION = {"FD": "FID", "FD∞": "FID∞", "KD": "KID"}


def made_metrics(chosen: Chosen, k: int | None = None) -> dict[str, Metric]:
    """Metrics by name.

    Args:
        chosen: Metrics or their parts' names.
        k: The parameter `k` of those named that have one.

    Raises:
        ValueError: If a name is unknown, or stands twice.
    """
    made: dict[str, Metric] = {}
    for one in chosen:
        name, metric = _named_metric(one, k) if isinstance(one, str) else (type(one).__name__, one)
        if name in made:
            raise ValueError(f"evaluate expects each metric once, got {name} twice")
        made[name] = metric
    return made


def made_extractor(features: str | FeatureExtractor | None, x: TensorType, **offered: Any) -> FeatureExtractor | None:
    """An extractor, from its part's name, perhaps with weights: `classifier:digits`.

    Args:
        features: The extractor, its name, or None.
        x: Type of the samples.
        **offered: Parameters for it, where it has them and they are not None.

    Raises:
        ValueError: If the name is unknown, or it cannot be made for `x`.
    """
    if not isinstance(features, str):
        return features
    name, _, weights = features.partition(":")
    part = get_registry().find("features", name)
    declared = read_parameters(part)
    given = {key: value for key, value in offered.items() if key in declared and value is not None}
    made: FeatureExtractor = part.load()(x=x, **given, **({"weights": weights} if weights else {}))
    return made


def prepared(extractor: FeatureExtractor | None, data: Data) -> FeatureExtractor | None:
    """An extractor ready to use: what it learns of the training split is kept in the cache for another time."""
    if not isinstance(extractor, nn.Module) or _ready(extractor):
        return extractor
    cache = ReferenceCache()
    described = f"{type(extractor).__qualname__} {extractor.label} {extractor}"
    entry = Reference(data.key, "train", described, "as read", data.splits["train"], "weights")
    if (kept := cache.load(entry)) is not None:
        extractor.load_state_dict(kept)
    else:
        extractor.prepare(ordered_pass(data, "train", 256, Rng(0, "features")))
        cache.save(entry, extractor.state_dict())
    return extractor


def lacking(feed: Feed, sources: Mapping[str, Source], metric: Metric, at: Mapping[str, str]) -> list[str]:
    """What a metric needs that its sources do not give."""
    if missing := [f"samples of {side!r}" for side, place in at.items() if place not in sources]:
        return missing
    offered = {place: feed.offers(sources[place]) for place in at.values() if sources[place].given is None}
    return [need for need in metric.needs if any(need not in names for names in offered.values())]


def check_needs(feed: Feed, sources: Mapping[str, Source], metrics: Mapping[str, Metric], places: Places) -> None:
    """Refuses metrics that need what there is not.

    Raises:
        ValueError: Of the first.
    """
    for name, metric in metrics.items():
        if missing := lacking(feed, sources, metric, places[name]):
            raise ValueError(f"{name} needs {', '.join(missing)}, which these samples and features do not give")


def scored(
    feed: Feed,
    sources: Mapping[str, Source],
    metrics: Mapping[str, Metric],
    places: Places,
    *,
    floors: Places | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Report:
    """The scores of metrics, and of those in `floors` with other sources in their sets' places.

    Args:
        feed: Makes what metrics need.
        sources: Samples by name.
        metrics: Metrics by name.
        places: Which source stands for which of a metric's sets.
        floors: The same for the floor.
        limit: Samples of each source, but of `train`; all where not given.
        seed: Seed of subsets.

    Raises:
        ValueError: If samples cannot be read, the sides have different counts, or a score cannot be computed.
    """
    states: dict[str, dict[tuple[str, str], Any]] = {}
    counts: dict[str, int] = {}
    for place, one in sources.items():
        uses = {(name, side): None for name, side, at in (*_each(places), *_each(floors or {})) if at == place}
        if uses:
            states[place], counts[place] = gathered(feed, one, list(uses), metrics, None if place == "train" else limit)
    label = feed.extractor.label if feed.extractor else "features as given"

    def results(uses: Places) -> dict[str, Score]:
        found: dict[str, Score] = {}
        for name, at in uses.items():
            sides = {side: counts[at[side]] for side in ("real", "fake") if side in at}
            if len(set(sides.values())) > 1 and not any(sources[at[side]].given for side in sides):
                raise ValueError(f"{name} expects equal counts, got {sides}")
            metric = metrics[name]
            state = reduce(metric.merge, [states[place][name, side] for side, place in at.items()])
            for title, score in metric.result(state, Rng(seed, "evaluate", name)).items():
                found[_titled(title, label) if measured_by_features(metric) else title] = score
        return found

    scores, floor = results(places), results(floors or {})
    notes = [note for one in sources.values() for note in one.notes]
    notes += [warning for score in scores.values() for warning in score.warnings]
    return Report(scores, counts, seed, tuple(dict.fromkeys(notes)), floor)


def _each(places: Places) -> Iterator[tuple[str, str, str]]:
    return ((name, side, place) for name, at in places.items() for side, place in at.items())


def _named_metric(name: str, k: int | None) -> tuple[str, Metric]:
    part = get_registry().find("metric", name)
    metric: Metric = part.load()(**({"k": k} if k is not None and "k" in read_parameters(part) else {}))
    return part.name, metric


def _ready(extractor: FeatureExtractor) -> bool:
    try:
        extractor.key()
    except ValueError:
        return False
    return True


def _titled(score: str, label: str) -> str:
    """A score's name with its features: `FD (pixels)`, `FID`, `FD (pixels), class 3`."""
    name, comma, rest = score.partition(", ")
    return f"{_INCEPTION.get(name, name) if label == 'inception' else f'{name} ({label})'}{comma}{rest}"
