"""Scoring: one pass over each source of samples, then the result of each metric from the states of its sets.

A source may provide different sets to different metrics: held-out images are `real` to a reconstruction, and `fake` for
the floor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, TypeAlias

from torch import Tensor, nn

from modkit.data.loader import read_in_order
from modkit.evaluation.feed import Feed, gather, uses_features
from modkit.evaluation.needs import explain_unmeasured, name_needs
from modkit.evaluation.report import Report
from modkit.evaluation.sources import Source
from modkit.kinds import Data, Engine, FeatureExtractor, Metric, MetricExtras, read_extras
from modkit.metrics.reference import Reference, ReferenceCache
from modkit.parts.registry import get_registry
from modkit.parts.signature import read_parameters
from modkit.precision import use_precision
from modkit.rng import Rng
from modkit.runs.cache import compute_once
from modkit.types import Score

__all__ = [
    "Chosen",
    "Places",
    "check_needs",
    "explain_short",
    "find_missing",
    "make_metrics",
    "prepare_extractor",
    "score",
]

Chosen: TypeAlias = Sequence[str | Metric]
Places: TypeAlias = Mapping[str, Mapping[str, str]]
"""By metric and set, the name of the source that provides the set."""

_INCEPTION = {"FD": "FID", "FD∞": "FID∞", "KD": "KID"}


def make_metrics(chosen: Chosen, k: int | None = None) -> dict[str, Metric]:
    """Makes metrics, by name.

    Args:
        chosen: Metrics, or the names of their parts.
        k: The rank of the neighbour in named metrics: their parameters `k` and `..._k`.

    Raises:
        ValueError: If a name is unknown or repeated, or no metric takes `k`.

    Examples:
        >>> {name: (metric.held.k, metric.counted.k) for name, metric in make_metrics(["prdc"], k=4).items()}
        {'prdc': (4, 4)}
    """
    made: dict[str, Metric] = {}
    taken = k is None
    for one in chosen:
        if isinstance(one, str):
            part = get_registry().find("metric", one)
            ranks = [] if k is None else [name for name in read_parameters(part) if name == "k" or name.endswith("_k")]
            given = dict.fromkeys(ranks, k)
            taken = taken or bool(given)
            name, metric = part.name, part.load()(**given)
        else:
            name, metric = type(one).__name__, one
        if name in made:
            raise ValueError(f"evaluate expects each metric once, got {name} twice")
        made[name] = metric
    if not taken:
        expected = "a metric of neighbours beside k, chosen by its name, such as prdc"
        raise ValueError(f"evaluate expects {expected}, got k={k} and {', '.join(made)}")
    return made


def prepare_extractor(extractor: FeatureExtractor | None, data: Data) -> FeatureExtractor | None:
    """Prepares an extractor on the training split, unless it is ready or its weights are in the cache.

    Of several processes, one computes the weights, and the others read them from the cache.
    """
    if not isinstance(extractor, nn.Module) or _is_ready(extractor):
        return extractor
    cache = ReferenceCache()
    entry = Reference(data.key, "train", _describe(extractor), "as read", data.splits["train"], "weights")

    def compute() -> Mapping[str, Tensor]:
        extractor.prepare(read_in_order(data, "train", 256, Rng(0, "features")))
        return extractor.state_dict()

    def fill() -> bytes:
        cache.get(entry, compute)
        return b""

    if cache.load(entry) is None:
        compute_once(f"preparing {entry.text}", fill)
    if not _is_ready(extractor):
        extractor.load_state_dict(cache.get(entry, compute))
    return extractor


def find_missing(feed: Feed, sources: Mapping[str, Source], metric: Metric, at: Mapping[str, str]) -> list[str]:
    """Finds what a metric needs that its sources do not offer."""
    if missing := [f"samples of {side!r}" for side, place in at.items() if place not in sources]:
        return missing
    offered = {place: feed.list_offers(sources[place]) for place in at.values() if sources[place].given is None}
    return [need for need in metric.needs if any(need not in names for names in offered.values())]


def check_needs(feed: Feed, sources: Mapping[str, Source], metrics: Mapping[str, Metric], places: Places) -> None:
    """Checks that the sources offer what metrics need, and enough of it, and that no metric refuses them or the Model.

    Raises:
        ValueError: If a metric needs anything else, or refuses what it is given; the message is that of the first.
    """
    for name, metric in metrics.items():
        if missing := find_missing(feed, sources, metric, places[name]):
            raise ValueError(name_needs(name, missing))
        types = [source.type for place in places[name].values() if (source := sources[place]).given is None]
        if reason := explain_unmeasured(metric, feed.model, types):
            raise ValueError(reason)
        if short := explain_short(sources, metric, places[name]):
            raise ValueError(short)


def explain_short(sources: Mapping[str, Source], metric: Metric, at: Mapping[str, str]) -> str | None:
    """Returns why the sources of a metric have too few samples for it, or None; those that are counted later may."""
    fewest = read_extras(metric, MetricExtras).fewest or 0
    for side, place in at.items():
        count = sources[place].count
        if count is not None and count < fewest and sources[place].given is None:
            return f"{type(metric).__name__} expects at least {fewest} samples of {side!r}, got {count}"
    return None


def score(
    feed: Feed,
    sources: Mapping[str, Source],
    metrics: Mapping[str, Metric],
    places: Places,
    engine: Engine,
    *,
    floors: Places | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Report:
    """Computes the scores of metrics and, for those in `floors`, scores with other sources in place of their sets.

    Where two metrics give scores of one name, that of the second tells its settings, as `precision k=10`. Everything is
    computed in float32 at least, whatever surrounds the call; a Model samples in its source's precision.

    Args:
        feed: Computes what metrics need.
        sources: Sources of samples by name.
        metrics: Metrics by name.
        places: Which source provides which set of a metric.
        engine: The processes that share the samples; each gets all scores.
        floors: The same for the floor.
        limit: Number of samples of each source except `train`; None is all.
        seed: Seed of subsets; scores state it, unless their metric has a `seed` of its own.

    Raises:
        ValueError: If samples cannot be read, the sides have different numbers of samples, or a score cannot be
            computed.
    """
    states: dict[str, dict[tuple[str, str], Any]] = {}
    counts: dict[str, int] = {}
    label = feed.extractor.label if feed.extractor else "features as given"

    def results(uses: Places) -> dict[str, Score]:
        found: dict[str, Score] = {}
        for name, at in uses.items():
            sides = {side: counts[at[side]] for side in ("real", "fake") if side in at}
            if len(set(sides.values())) > 1 and not any(sources[at[side]].given for side in sides):
                fewest = min(sides.values())
                raise ValueError(f"{name} expects as many real as fake samples, got {sides}; give num={fewest}")
            metric = metrics[name]
            engine.announce(f"the scores of {name}")
            state = reduce(metric.merge, [states[place][name, side] for side, place in at.items()])
            extras = read_extras(metric, MetricExtras)
            if extras.place is not None:
                state = extras.place(state, engine.device)
            drawn = seed if extras.seed is None else extras.seed
            other = [one for place in at.values() if (one := sources[place].precision) != "float32"]
            how: dict[str, Any] = {"precision": other[0]} if other else {}
            how |= {"raw": True} if any(feed.is_raw(metric, sources[place]) for place in at.values()) else {}
            for title, score in metric.result(state, Rng(seed, "evaluate", name)).items():
                warnings = (*score.warnings, *_warn_of_few(score, extras.enough))
                score = replace(score, seed=drawn, settings={**score.settings, **how}, warnings=warnings)
                add_label = partial(_add_label, label=label) if uses_features(metric) else str
                if (before := found.get(add_label(title))) and before.settings != score.settings:
                    title = _add_settings(title, score.settings, before.settings)
                found[add_label(title)] = score
        return found

    every = (*_flatten(places), *_flatten(floors or {}))
    with use_precision(engine.device, "float32"):
        for place, one in sources.items():
            if uses := {(name, side): None for name, side, at in every if at == place}:
                most = None if place == "train" else limit
                states[place], counts[place] = gather(feed, one, list(uses), metrics, engine, most)
        scores, floor = results(places), results(floors or {})
    notes = [note for one in sources.values() for note in one.list_notes()]
    notes += [warning for score in scores.values() for warning in score.warnings]
    of_floor = [warning for score in floor.values() for warning in score.warnings if warning not in notes]
    notes += [f"held-out images: {warning}" for warning in of_floor]
    return Report(scores, counts, seed, tuple(dict.fromkeys(notes)), floor)


def _warn_of_few(score: Score, enough: int | None) -> tuple[str, ...]:
    """Warns of a score of fewer samples than its metric needs."""
    few = {side: count for side, count in score.counts.items() if enough is not None and count < enough}
    if not few:
        return ()
    listed = " and ".join(f"{count} {side}" for side, count in few.items())
    return (f"scores of {listed} samples and their errors are not reliable: expected at least {enough} of each set",)


def _flatten(places: Places) -> Iterator[tuple[str, str, str]]:
    return ((name, side, place) for name, at in places.items() for side, place in at.items())


def _describe(extractor: FeatureExtractor) -> str:
    """What weights depend on beside the data: the structure, and the plain values that modules were made with."""
    assert isinstance(extractor, nn.Module)
    values = {
        f"{path}.{name}": value
        for path, module in extractor.named_modules()
        for name, value in sorted(vars(module).items())
        if name != "training" and _is_plain(value)
    }
    return f"{type(extractor).__qualname__} {extractor.label} {extractor} {values}"


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)


def _is_ready(extractor: FeatureExtractor) -> bool:
    try:
        extractor.key()
    except ValueError:
        return False
    return True


def _add_settings(score: str, settings: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """Adds the settings that differ from the others to the name of a score: `precision k=10, class 3`."""
    name, comma, rest = score.partition(", ")
    differing = [key for key in {**settings, **others} if settings.get(key) != others.get(key)]
    return f"{' '.join([name, *(f'{key}={settings.get(key)}' for key in differing)])}{comma}{rest}"


def _add_label(score: str, label: str) -> str:
    """Adds the features to the name of a score: `FD (pixels)`, `FID`, `FD (pixels), class 3`."""
    name, comma, rest = score.partition(", ")
    return f"{_INCEPTION.get(name, name) if label == 'inception' else f'{name} ({label})'}{comma}{rest}"
