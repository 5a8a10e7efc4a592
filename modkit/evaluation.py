"""Evaluation: samples against data, by any features and metrics, streaming.

    report = modkit.evaluate(real=images, fake=model, features="classifier:digits", seed=0)

Every score says what it depends on: the features in its name (`FD (classifier:digits)`; `FID` only with Inception's),
the counts, the seed, its standard error. Both sides have the same number of samples, always. A run's samples and, as
the floor beside them, held-out images are scored against the same training images.

Shape letters: b batch, n samples, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from modkit.data.loader import permutation
from modkit.engine import LocalEngine
from modkit.feed import Feed
from modkit.kinds import Data, FeatureExtractor, Metric
from modkit.metrics.memory import peak_memory
from modkit.metrics.moments import Gaussian, Moments
from modkit.metrics.per_class import PerClass
from modkit.metrics.speed import training_speed
from modkit.model import Model
from modkit.report import Report
from modkit.rng import Rng
from modkit.run import Run
from modkit.scoring import Chosen, check_needs, lacking, made_extractor, made_metrics, prepared, scored
from modkit.session import Opened, load, opened
from modkit.settings import Watching
from modkit.sources import Samples, Source, from_data, from_model, source
from modkit.types import Score
from modkit.watchers import Watch

__all__ = ["DEFAULT", "OF_MODELS", "OF_TRUTH", "evaluate", "evaluate_run", "statistics", "watched"]

DEFAULT = ("fd", "kd", "prdc", "copying")
"""The metrics of samples; `copying` where training data are given."""

OF_MODELS = (*DEFAULT, "reconstruction", "reconstruction-fd", "codebook", "label-accuracy", "cost")
"""The metrics of a run's model: those of them that there is what they need for."""

OF_TRUTH = ("modes", "sliced-wasserstein", "fd", "prdc", "cost")
"""The same where the truth is known."""

_MOST = 10_000  # samples on each side, where no number is given


def evaluate(
    *,
    real: Samples,
    fake: Samples,
    train: Samples | None = None,
    features: str | FeatureExtractor | None,
    metrics: Chosen | None = None,
    num: int | None = None,
    size: int | None = None,
    k: int | None = None,
    seed: int = 0,
    raw: bool = False,
) -> Report:
    """Measures samples against data.

    Args:
        real: Data: a tensor or array `n c h w` in [−1, 1], a `.npy`, a folder of images, an iterable of batches; for
            the Fréchet distance also a `.npz` with `mu` and `sigma`.
        fake: Samples: the same, or a run or Model to sample.
        train: The training data, for the metrics that ask for them.
        features: A features part or its name (see `modkit list features`); None where `real` and `fake` are features
            already, `n d`.
        metrics: Metrics or their names; `DEFAULT` where not given.
        num: Samples on each side; as many as both have where not given.
        size: Side that images of folders are resized to; the least side that any of them has where not given.
        k: Which neighbour, of the metrics of neighbours.
        seed: Seed of a Model's noise and of subsets.
        raw: Leave values as they are instead of rounding images to 8 bits.

    Raises:
        ValueError: If a source cannot be read, the sides differ in shape or count, or a name is unknown.
    """
    sources = {"real": source(real, "real", num=num, seed=seed, size=size)}
    sources["fake"] = source(fake, "fake", num=num or sources["real"].count, seed=seed, size=size)
    sources["fake"].key = ""  # samples are seen once: not worth a place in the cache
    if train is not None:
        sources["train"] = source(train, "train", seed=seed, size=size)
    sources = _of_one_side(sources) if size is None else sources
    seen = {name: one.type.shape for name, one in sources.items() if one.given is None}
    if len(set(seen.values())) > 1:
        shapes = ", ".join(f"{name} {shape}" for name, shape in seen.items())
        raise ValueError(f"evaluate expects samples of one shape, got {shapes}")
    alive = next((one for one in sources.values() if one.given is None), sources["real"])
    feed = Feed(made_extractor(features, alive.type), raw=raw)
    wanted = metrics if metrics is not None else [name for name in DEFAULT if name != "copying" or train is not None]
    made = made_metrics(wanted, k)
    places = {name: {side: side for side in metric.sets} for name, metric in made.items()}
    check_needs(feed, sources, made, places)
    return scored(feed, sources, made, places, limit=_limit(sources, num), seed=seed)


def statistics(
    real: Samples,
    *,
    features: str | FeatureExtractor,
    num: int | None = None,
    size: int | None = None,
    raw: bool = False,
) -> Gaussian:
    """Mean and covariance of the features of some data, to stand for them in a Fréchet distance.

    Raises:
        ValueError: If the data cannot be read.
    """
    data = source(real, "real", num=num, size=size)
    feed = Feed(made_extractor(features, data.type), raw=raw)
    moments: Moments | None = None
    for _, batch in data.numbered(num):
        vectors = feed.values(data, batch, ["features"])["features"]
        moments = moments or Moments(vectors.shape[1])
        moments.update(vectors)
    if moments is None:
        raise ValueError(f"statistics expects samples, got none in {real}")
    return moments.gaussian()


def evaluate_run(
    run: Run,
    *,
    overrides: Sequence[str] = (),
    features: str | FeatureExtractor | None = None,
    metrics: Chosen | None = None,
    num: int | None = None,
    k: int | None = None,
    seed: int = 0,
    raw: bool = False,
    per_class: bool = False,
    checkpoint: str | None = None,
    device: str = "auto",
) -> Report:
    """Measures a run's model, and held-out images in the same way: the floor.

    Both are scored against the same training images, as many as they are; copying, likelihood and reconstruction are
    measured on held-out images. A conditional Model is given the held-out images' fields.

    Args:
        run: The run.
        overrides: Of its spec, for what has no weights: `model.prior.sampler=ddim`.
        features: Features or their name; where not given, what the spec says, else a classifier's for labelled images,
            else the values themselves.
        metrics: Metrics or their names; what the spec says where not given, else those of `OF_MODELS` that fit.
        num: Samples on each side; where not given, what the spec says, else all that the test split has, up to 10,000.
        k: Which neighbour, of the metrics of neighbours.
        seed: Seed of the noise and of subsets.
        raw: Leave values as they are instead of rounding images to 8 bits.
        per_class: Score each class as well, and their mean.
        checkpoint: Which checkpoint: the last where not given, the `best`, or one by its name.
        device: Where to sample and to make features; `auto` takes CUDA where there is one.

    Raises:
        ValueError: If the run has no data or checkpoint, or `num` is more than there are images.
    """
    found = opened(run, overrides)
    data, settings = found.data, found.evaluation
    where = LocalEngine(device=device).device
    model = load(run, overrides, checkpoint=checkpoint, device=str(where))
    count = num or (settings.num if settings else None) or min(data.splits["test"], data.splits["train"], _MOST)
    feed = Feed(_features(found, features), model, raw=raw, device=where)
    sources = {
        "reference": from_data(data, "train", "training images", _chosen(data, "train", count)),
        "held-out": from_data(data, "test", "held-out images", _chosen(data, "test", count)),
        "train": from_data(data, "train", "training images"),
    }
    if per_class:
        sources["reference"] = _matched(data, sources["held-out"])
    sources["fake"] = from_model(model, "samples", count, seed, sources["held-out"])
    if metrics is None and settings and settings.metrics:
        metrics = [make() for make in settings.metrics]
    usual = OF_MODELS if sources["held-out"].truth is None else OF_TRUTH
    made = made_metrics(usual if metrics is None else metrics, k)
    unsampled = () if metrics else _unsampled(model)
    if unsampled:
        del sources["fake"]
    if metrics is None:
        made = {name: one for name, one in made.items() if not lacking(feed, sources, one, _places(one))}
    if per_class:
        splits = {name: one for name, one in made.items() if {"real", "fake"} == set(one.sets)}
        made |= {f"{name} per class": PerClass(one) for name, one in splits.items()}
    places = {name: _places(one) for name, one in made.items()}
    check_needs(feed, sources, made, places)
    floors = {
        name: {**at, "fake": "held-out"}
        for name, at in places.items()
        if "fake" in at and "train" not in at and "model" not in made[name].needs
    }
    report = scored(feed, sources, made, places, floors=floors, seed=seed)
    costs: dict[str, Score | None] = {}
    if "cost" in made:
        costs["peak memory (MiB)"] = peak_memory(run.path, overrides, device=str(where))
        costs["training steps/s"] = training_speed(run)
    notes = (*report.notes, *unsampled)
    scores = {**report.scores, **{name: cost for name, cost in costs.items() if cost}}
    return replace(
        report, scores=scores, notes=notes, overrides=tuple(overrides), checkpoint=run.checkpoint(checkpoint).name
    )


def watched(found: Opened, seed: int) -> Watch | None:
    """What scores a model in training, as the spec's `evaluate.watch` says: samples against training images.

    Raises:
        ValueError: If there are fewer training images, or a metric looks at something else.
    """
    settings = found.evaluation.watch if found.evaluation else Watching()
    if settings.every is None:
        return None
    metrics = made_metrics([make() for make in settings.metrics] or DEFAULT[:1])
    for name, metric in metrics.items():
        if not {"real", "fake"} >= set(metric.sets) or "model" in metric.needs:
            raise ValueError(f"evaluate.watch expects metrics of samples and training images, got {name}")
    real = from_data(found.data, "train", "training images", _chosen(found.data, "train", settings.num))
    return _Watch(settings.every, settings.num, seed, Feed(_features(found)), metrics, real)


@dataclass(frozen=True)
class _Watch:
    """Scores a model that can be sampled against training images."""

    every: int
    num: int
    seed: int
    feed: Feed
    metrics: Mapping[str, Metric]
    real: Source

    def __call__(self, model: Model) -> Mapping[str, Score]:
        sources = {"real": self.real, "fake": from_model(model, "samples", self.num, self.seed, self.real)}
        places = {name: {side: side for side in metric.sets} for name, metric in self.metrics.items()}
        check_needs(self.feed, sources, self.metrics, places)
        return scored(self.feed, sources, self.metrics, places, seed=self.seed).scores


def _features(found: Opened, features: str | FeatureExtractor | None = None) -> FeatureExtractor | None:
    """The features asked for, or the spec's, or the usual ones, ready to use."""
    data, settings = found.data, found.evaluation
    if features is None and settings and settings.features:
        features = settings.features(x=data.x)
    extractor = made_extractor(features or _usual(data, found.name), data.x, name=found.name, classes=_classes(data))
    return prepared(extractor, data)


def _unsampled(model: Model) -> tuple[str, ...]:
    """Why a Model cannot be sampled; nothing where it can."""
    try:
        model.sample(1, seed=0)
    except ValueError as error:
        return (f"samples were not measured: {error}",)
    return ()


def _places(metric: Metric) -> Mapping[str, str]:
    """Which samples of a run a metric takes for which of its sets."""
    compares = "fake" in metric.sets and "train" not in metric.sets
    return {side: {"real": "reference" if compares else "held-out"}.get(side, side) for side in metric.sets}


def _chosen(data: Data, split: str, count: int) -> Sequence[int] | None:
    """The indices of so many samples of a split, always the same; None for all of it."""
    there = data.splits[split]
    if count > there:
        raise ValueError(f"evaluate expects at most the {there} images of the {split} split on each side, got {count}")
    return None if count == there else permutation(Rng(0, "evaluate", split), there)[:count].tolist()


def _matched(data: Data, held: Source) -> Source:
    """Training images with as many of each class as the held-out ones have."""
    wanted = torch.cat([batch.fields["labels"] for _, batch in held.numbered()]).bincount()
    order = permutation(Rng(0, "evaluate", "train"), data.splits["train"])
    labels = torch.cat([batch.fields["labels"] for _, batch in from_data(data, "train", "", order.tolist()).numbered()])
    kept = [order[(labels == label).nonzero()[: int(num), 0]] for label, num in enumerate(wanted)]
    if short := [label for label, num in enumerate(wanted) if len(kept[label]) < num]:
        raise ValueError(f"evaluate expects as many training as held-out images of each class, got fewer of {short}")
    return from_data(data, "train", "training images", torch.cat(kept).sort().values.tolist())


def _usual(data: Data, name: str) -> str:
    """The features where none are named: a classifier's where it can be trained, else the values themselves."""
    if name == "digits":
        return "classifier:digits"
    return "classifier" if len(data.x.shape) == 3 and data.x.range and _classes(data) else "pixels"


def _classes(data: Data) -> int | None:
    return data.fields["labels"].classes if "labels" in data.fields else None


def _of_one_side(sources: dict[str, Source]) -> dict[str, Source]:
    """Folders of images resized to the side of what cannot be resized, else to the least of theirs."""
    fixed = [one.type.shape[-1] for one in sources.values() if one.at is None and one.given is None]
    sides = [one.type.shape[-1] for one in sources.values() if one.at is not None]
    target = min(fixed or sides, default=0)
    return {name: one.at(target) if one.at and one.type.shape[-1] != target else one for name, one in sources.items()}


def _limit(sources: Mapping[str, Source], num: int | None) -> int | None:
    """Samples on each side: as many as asked for, or as the smaller side is known to have."""
    known = {n: one.count for n, one in sources.items() if n != "train" and one.count is not None and not one.given}
    if num is not None and any(count < num for count in known.values()):
        raise ValueError(f"evaluate expects {num} samples on each side, got {known}")
    return min(known.values()) if num is None and known else num
