"""Evaluation of a run: its model's samples and, as the floor beside them, held-out images.

    sets        metrics of samples      with training data (copying)      of real samples alone
    real        training images         held-out images                   held-out images
    fake        the model's             the model's
    floor       held-out images

The training images of the first column are a fixed random subset, as many as there are samples: model and held-out
images are scored against the same reference, so a score is read beside what the data themselves would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from modkit.building.session import Loaded, Opened, load_run, open_data
from modkit.data.loader import permutation
from modkit.engines.local import LocalEngine
from modkit.evaluation.evaluate import DEFAULT
from modkit.evaluation.feed import Feed
from modkit.evaluation.report import Report
from modkit.evaluation.scoring import Chosen, check_needs, lacking, made_extractor, made_metrics, prepared, scored
from modkit.evaluation.sources import Source, from_data, from_model
from modkit.kinds import Data, FeatureExtractor, Metric
from modkit.metrics.memory import peak_memory
from modkit.metrics.per_class import PerClass
from modkit.metrics.speed import training_speed
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.runs.run import Run
from modkit.specs.settings import Watching
from modkit.specs.spec import Spec
from modkit.training.callbacks import Scorer
from modkit.types import Score

__all__ = ["OF_MODELS", "OF_TRUTH", "evaluate_run", "measure_run", "watched"]

OF_MODELS = (*DEFAULT, "reconstruction", "reconstruction-fd", "codebook", "label-accuracy", "cost")
"""The metrics of a run's model where none is named: those of them that there is what they need for."""

OF_TRUTH = ("modes", "sliced-wasserstein", "fd", "prdc", "cost")
"""The same where the truth is known."""

_MOST = 10_000  # samples on each side, where no number is given


def evaluate_run(
    run: Run,
    *,
    overrides: Sequence[str] = (),
    spec: Spec | None = None,
    features: str | FeatureExtractor | None = None,
    metrics: Chosen | None = None,
    num: int | None = None,
    k: int | None = None,
    seed: int = 0,
    raw: bool = False,
    per_class: bool = False,
    checkpoint: str | None = None,
    device: str = "auto",
    locked: bool = False,
) -> Report:
    """Measures a run's model, and held-out images in the same way: the floor.

    Both are scored against the same training images, as many as they are; copying, likelihood and reconstruction are
    measured on held-out images. A conditional Model is given the held-out images' fields.

    Args:
        run: The run.
        overrides: Of its spec, for what has no weights: `model.prior.sampler=ddim`.
        spec: Stands in for the run's own where that has local parts, which no name reloads.
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
        locked: Refuse parts and a torch that are not those of the run's lock.

    Raises:
        ValueError: If the run has no data or checkpoint, or `num` is more than there are images.
    """
    settings = _describe(
        num=num, features=features, metrics=metrics, k=k, seed=seed, raw=raw, per_class=per_class, checkpoint=checkpoint
    )
    loaded = load_run(run, overrides, spec=spec, checkpoint=checkpoint, locked=locked)
    report = measure_run(
        run,
        loaded,
        open_data(run, loaded.site),
        features=features,
        metrics=metrics,
        num=num,
        k=k,
        seed=seed,
        raw=raw,
        per_class=per_class,
        device=device,
        named=overrides if spec is None else None,
    )
    name = run.find_checkpoint_name(checkpoint)
    return replace(report, overrides=tuple(overrides), checkpoint=name, settings=settings)


def measure_run(
    run: Run,
    loaded: Loaded,
    found: Opened,
    *,
    features: str | FeatureExtractor | None = None,
    metrics: Chosen | None = None,
    num: int | None = None,
    k: int | None = None,
    seed: int = 0,
    raw: bool = False,
    per_class: bool = False,
    device: str = "auto",
    named: Sequence[str] | None = (),
) -> Report:
    """What `evaluate_run` does, of a model and data that have been loaded.

    Args:
        run: The run.
        loaded: Its model.
        found: Its data, and how its spec measures them.
        features: See `evaluate_run`, as of those below.
        metrics: Metrics.
        num: Samples on each side.
        k: Which neighbour.
        seed: Seed of the noise and of subsets.
        raw: Leave values as they are.
        per_class: Score each class as well.
        device: Where to sample.
        named: The overrides with which another process can load the model by name, or None where none can.

    Raises:
        ValueError: As `evaluate_run`.
    """
    where = LocalEngine(device=device).device
    model = loaded.model.to(where).eval()
    feed = Feed(_features(found, features), model, raw=raw, device=where)
    sources = _sources(found, model, num, seed, per_class)
    if metrics is None and found.evaluation and found.evaluation.metrics:
        metrics = [make() for make in found.evaluation.metrics]
    notes = () if metrics else _unsampled(model)
    if notes:
        del sources["fake"]
    if metrics is None:
        usual = made_metrics(OF_MODELS if sources["held-out"].truth is None else OF_TRUTH, k)
        made = {name: one for name, one in usual.items() if not lacking(feed, sources, one, _places(one))}
    else:
        made = made_metrics(metrics, k)
    if per_class:
        split = {name: one for name, one in made.items() if {"real", "fake"} == set(one.sets)}
        made |= {f"{name} per class": PerClass(one) for name, one in split.items()}
    places = {name: _places(one) for name, one in made.items()}
    check_needs(feed, sources, made, places)
    floors = {name: {**at, "fake": "held-out"} for name, at in places.items() if _has_floor(made[name])}
    report = scored(feed, sources, made, places, floors=floors, seed=seed)
    scores = dict(report.scores)
    if "cost" in made:
        if named is not None:  # a process of its own loads the run by its names
            scores["peak memory (MiB)"] = peak_memory(run.path, named, device=str(where))
        if speed := training_speed(run):
            scores["training steps/s"] = speed
    return replace(report, scores=scores, notes=(*report.notes, *notes), checkpoint=run.find_checkpoint_name())


def _describe(**arguments: Any) -> dict[str, Any]:
    """The arguments that are not left at their defaults, as plain data; of an object, `<its class>`."""

    def plain(value: Any) -> Any:
        if isinstance(value, str | int):
            return value
        return [*map(plain, value)] if isinstance(value, Sequence) else f"<{type(value).__name__}>"

    return {name: plain(value) for name, value in arguments.items() if value}


def watched(found: Opened, seed: int) -> Scorer | None:
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


def _sources(found: Opened, model: Model, num: int | None, seed: int, per_class: bool) -> dict[str, Source]:
    """The samples that a run's metrics look at: training images, held-out ones, the Model's."""
    data, splits = found.data, found.data.splits
    count = num or (found.evaluation.num if found.evaluation else None) or min(splits["test"], splits["train"], _MOST)
    held = from_data(data, "test", "held-out images", _chosen(data, "test", count))
    indices = _matched(data, held) if per_class else _chosen(data, "train", count)
    return {
        "reference": from_data(data, "train", "training images", indices),
        "held-out": held,
        "train": from_data(data, "train", "training images"),
        "fake": from_model(model, "samples", count, seed, held),
    }


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


def _has_floor(metric: Metric) -> bool:
    """Whether held-out images can stand in the samples' place: neither for copying, nor for what a Model costs."""
    return "fake" in metric.sets and "train" not in metric.sets and "model" not in metric.needs


def _chosen(data: Data, split: str, count: int) -> Sequence[int] | None:
    """The indices of so many samples of a split, always the same; None for all of it."""
    there = data.splits[split]
    if count > there:
        raise ValueError(f"evaluate expects at most the {there} images of the {split} split on each side, got {count}")
    return None if count == there else permutation(Rng(0, "evaluate", split), there)[:count].tolist()


def _matched(data: Data, held: Source) -> Sequence[int]:
    """The indices of training images, as many of each class as the held-out ones have; reads the whole split."""
    wanted = torch.cat([batch.fields["labels"] for _, batch in held.numbered()]).bincount()
    order = permutation(Rng(0, "evaluate", "train"), data.splits["train"])
    passed = from_data(data, "train", "training images", order.tolist()).numbered()
    labels = torch.cat([batch.fields["labels"] for _, batch in passed])
    kept = [order[(labels == label).nonzero()[: int(num), 0]] for label, num in enumerate(wanted)]
    if short := [label for label, num in enumerate(wanted) if len(kept[label]) < num]:
        raise ValueError(f"evaluate expects as many training as held-out images of each class, got fewer of {short}")
    return torch.cat(kept).sort().values.tolist()


def _usual(data: Data, name: str) -> str:
    """The features where none are named: a classifier's where it can be trained, else the values themselves."""
    if name == "digits":
        return "classifier:digits"
    return "classifier" if len(data.x.shape) == 3 and data.x.range and _classes(data) else "pixels"


def _classes(data: Data) -> int | None:
    return data.fields["labels"].classes if "labels" in data.fields else None
