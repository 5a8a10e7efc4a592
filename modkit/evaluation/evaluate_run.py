"""Evaluation of a run: scores of its model's samples and, as a floor, of held-out images.

    sets        metrics of samples      with training data (copying)      of real samples only
    real        training images         held-out images                   held-out images
    fake        the model's samples     the model's samples
    floor       held-out images

The training images of the first column are a fixed random subset, as large as the set of samples. The model's samples
and held-out images are scored against the same reference, so each score stands beside the score of the data themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import torch

from modkit.building.builder import Site
from modkit.building.session import Composed, Loaded, load_run
from modkit.data.splits import find_plain
from modkit.engines.processes import open_engine
from modkit.evaluation.evaluate import DEFAULT
from modkit.evaluation.extractors import choose_features, make_extractor
from modkit.evaluation.feed import Feed
from modkit.evaluation.needs import choose_num, explain_few, explain_unwatched
from modkit.evaluation.report import Report
from modkit.evaluation.scoring import (
    Chosen,
    check_needs,
    explain_short,
    find_missing,
    make_metrics,
    prepare_extractor,
    score,
)
from modkit.evaluation.sources import Source, draw_subset, from_data, from_model
from modkit.kinds import Data, Engine, FeatureExtractor, Metric, MetricExtras, read_extras
from modkit.metrics.cost import Cost
from modkit.metrics.memory import measure_peak_memory
from modkit.metrics.per_class import PerClass
from modkit.metrics.speed import measure_training_speed
from modkit.models.compiling import compile_networks
from modkit.models.model import Model
from modkit.precision import check_precision
from modkit.runs.files import hash_data
from modkit.runs.run import Run
from modkit.specs.overrides import normalize
from modkit.specs.settings import Watching
from modkit.specs.spec import Spec
from modkit.training.callbacks import Scorer
from modkit.training.changes import find_data_changes
from modkit.types import Precision, Score

__all__ = ["OF_MODELS", "OF_TRUTH", "evaluate_run", "explain_unsampled", "measure_run", "make_watch"]

_logger = logging.getLogger(__name__)

OF_MODELS = (*DEFAULT, "reconstruction", "reconstruction-fd", "codebook", "label-accuracy", "cost")
"""The default metrics of a run's model; those whose needs are not met are left out and, with a note, those that need
more samples."""

OF_TRUTH = ("modes", "sliced-wasserstein", "fd", "prdc", "cost")
"""The default metrics of a run on synthetic data whose true modes are known."""


def evaluate_run(
    run: Run | str | PathLike[str],
    *,
    overrides: Sequence[str] = (),
    model: Composed | None = None,
    data: Any = None,
    spec: Spec | None = None,
    features: str | FeatureExtractor | None = None,
    metrics: Chosen | None = None,
    num: int | None = None,
    k: int | None = None,
    seed: int = 0,
    raw: bool = False,
    per_class: bool = False,
    precision: Precision | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    locked: bool = False,
    compile: bool = False,
) -> Report:
    """Measures a run's model and, as a floor, held-out images in the same way.

    Both are scored against the same training images, as many as there are samples. Copying, likelihood and
    reconstruction are measured on held-out images. A warning and a note tell if the run was trained on other data. A
    conditional Model is given the fields of the held-out images. Processes share the work as in `evaluate`; costs are
    those that the first one measures.

    Args:
        run: The run, or its directory.
        overrides: Overrides of its spec, in the model of what only sampling reads: `model.prior.sampler=ddim`.
        model: A model composed like the run's, or a function that composes one, if the run has local parts, which
            cannot be loaded by name.
        data: The data that the run was trained on, as in `fit`, if its spec does not have them by name. Their hash must
            be the one in the run's lock.
        spec: A spec in place of the run's, for the same purpose.
        features: Features or their name; None is what the spec states, or else the data set's, or else a classifier for
            labelled images, none for codes, and the values themselves for other data.
        metrics: Metrics or their names; None is what the spec states, or else those of `OF_MODELS` that apply.
        num: Number of samples on each side; None is what the spec states, or else the size of the test split, up to
            10,000.
        k: Rank of the neighbour, for metrics of neighbours that are chosen by name.
        seed: Seed of the noise and of subsets.
        raw: Whether to leave values unchanged instead of rounding images to 8 bits.
        per_class: Whether to score each class as well, against as many training images of it, and their mean.
        precision: What the model samples in; None is what the spec's `evaluate` states, float32 by default.
        checkpoint: Name of the checkpoint, or `best`; None is the last.
        device: Where to sample and to compute features; `auto` is CUDA if available.
        locked: Whether to refuse parts and a torch that differ from those in the run's lock.
        compile: Whether to compile the model's networks, which pays when many samples are drawn.

    Raises:
        ValueError: If the run has no data or checkpoint, or fewer than two held-out images; `num` is more than there
            are images; or data without labels, or with too few samples of a class, are to be scored per class.

    Examples:
        >>> import tempfile
        >>> from modkit import Spec, evaluate_run, train, use
        >>> settings = {"steps": 1, "batch_size": 8, "device": "cpu"}
        >>> spec = Spec(model=use("gan"), data=use("ring", num=32, num_test=32), train=settings)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = evaluate_run(train(spec, f"{folder}/run"), metrics=["modes"], num=16)
        >>> report.scores["modes"].counts
        {'fake': 16}
    """
    run = run if isinstance(run, Run) else Run.open(run)
    given: dict[str, Any] = {"features": features, "metrics": metrics, "num": num, "k": k, "seed": seed, "raw": raw}
    given |= {"per_class": per_class, "precision": precision}
    needs = ("data", "evaluate")
    loaded = load_run(
        run, overrides, model=model, data=data, spec=spec, needs=needs, checkpoint=checkpoint, locked=locked
    )
    if compile:
        compile_networks(loaded.model)
    named = None if spec or model or data is not None else overrides
    with open_engine(device) as engine:
        report = measure_run(loaded, engine, named=named, **given)
    other = None if precision == _get_precision(loaded.site) else precision
    settings = _describe({**given, "precision": other, "checkpoint": checkpoint, "compile": compile})
    return replace(report, overrides=normalize(overrides), settings=settings)


def measure_run(
    loaded: Loaded,
    engine: Engine,
    *,
    features: str | FeatureExtractor | None = None,
    metrics: Chosen | None = None,
    num: int | None = None,
    k: int | None = None,
    seed: int = 0,
    raw: bool = False,
    per_class: bool = False,
    precision: Precision | None = None,
    named: Sequence[str] | None = (),
) -> Report:
    """Measures the model and data of an open run, as `evaluate_run` does.

    `named` are the overrides by which another process can load the model, or None if it cannot be loaded by name.

    Raises:
        ValueError: Under the conditions of `evaluate_run`.
    """
    run, site, data, where = loaded.run, loaded.site, loaded.data, engine.device
    if per_class and _count_classes(data) is None:
        known = ", ".join(data.fields) or "none"
        raise ValueError(f"evaluate expects data with labels for scores per class, got the fields: {known}")
    others = _explain_other_data(run, data) if engine.rank == 0 else ()
    plain, evaluation = find_plain(data), site.evaluation
    model = loaded.model.to(where).eval()
    precision = precision or _get_precision(site)
    check_precision(precision, where, model)
    feed = Feed(_make_features(site, plain, features), model, raw=raw, device=where)
    sources = _make_sources(plain, model, num or (evaluation.num if evaluation else None), seed, precision)
    if metrics is None and evaluation and evaluation.metrics:
        metrics = [make() for make in evaluation.metrics]
        site.check()
    notes = () if metrics else explain_unsampled(model)
    if notes:
        del sources["fake"]
    if metrics is None:
        usual = make_metrics(OF_MODELS if sources["held-out"].truth is None else OF_TRUTH, k)
        made = {name: one for name, one in usual.items() if not find_missing(feed, sources, one, _assign_sources(one))}
        short = {name: explain_short(sources, one, _assign_sources(one)) for name, one in made.items()}
        notes += tuple(f"{name} was left out: {reason}" for name, reason in short.items() if reason)
        made = {name: one for name, one in made.items() if not short[name]}
    else:
        made = make_metrics(metrics, k)
    if per_class:
        split = {name: one for name, one in made.items() if {"real", "fake"} == set(one.sets)}
        sources["of classes"] = _match_classes(plain, sources["held-out"], split)
        made |= {f"{name} per class": PerClass(one) for name, one in split.items()}
    places = {
        name: _assign_sources(one, "of classes" if isinstance(one, PerClass) else "reference")
        for name, one in made.items()
    }
    check_needs(feed, sources, made, places)
    floors = {name: {**at, "fake": "held-out"} for name, at in places.items() if _has_floor(made[name])}
    report = score(feed, sources, made, places, engine, floors=floors, seed=seed)
    scores = dict(report.scores)
    if engine.rank == 0 and any(isinstance(one, Cost) for one in made.values()):
        if named is not None and all(one.inherited for one in loaded.plan.entries):  # another process loads the run
            scores["peak memory (MiB)"] = measure_peak_memory(run.path, named, device=str(where), precision=precision)
        if speed := measure_training_speed(run):
            scores["training steps/s"] = speed
    origin: dict[str, Any] = {"checkpoint": loaded.checkpoint, "spec": hash_data(run.spec_text), "data": data.key}
    return replace(report, scores=scores, notes=(*report.notes, *notes, *others), **origin).drop_undefined()


def _explain_other_data(run: Run, data: Data) -> tuple[str, ...]:
    """Explains that a run was trained on other data, and logs it as a warning; returns nothing if it was not."""
    now = {"splits": dict(data.splits), "data": data.key}
    notes = tuple(
        f"the run was trained on other data than it is measured on: {change.before} in training, {change.now} here"
        for change in find_data_changes(run, now)
    )
    for note in notes:
        _logger.warning("%s: %s", run.path, note)
    return notes


def _get_precision(site: Site) -> Precision:
    """Returns the precision that the spec states for samples that are measured."""
    return site.evaluation.precision if site.evaluation else "float32"


def _describe(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments that differ from their defaults as plain data; objects become `<Class>`."""

    def plain(value: Any) -> Any:
        if isinstance(value, str | int):
            return value
        return [*map(plain, value)] if isinstance(value, Sequence) else f"<{type(value).__name__}>"

    return {name: plain(value) for name, value in arguments.items() if value}


def make_watch(site: Site, seed: int, precision: Precision = "float32") -> Scorer | None:
    """Makes the scorer of a model in training from the spec's `evaluate.watch`: samples against training images.

    `precision` is what the model samples in.

    Raises:
        ValueError: If there are too few training images, or a metric requires anything else.
    """
    settings = site.evaluation.watch if site.evaluation else Watching()
    if settings.every is None or site.data is None:
        return None
    data, chosen = find_plain(site.data), [make() for make in settings.metrics]
    site.check()
    metrics = make_metrics(chosen or DEFAULT[:1])
    for metric in metrics.values():
        if reason := explain_unwatched(metric):
            raise ValueError(f"evaluate.watch.metrics: {reason}")
    real = from_data(data, "train", "training images", _choose(data, "train", settings.num))
    return _Watch(settings.every, settings.num, seed, _make_features(site, data), metrics, real, precision)


@dataclass(frozen=True)
class _Watch:
    """Scores the samples of a model against training images."""

    every: int
    num: int
    seed: int
    features: FeatureExtractor | None
    metrics: Mapping[str, Metric]
    real: Source
    precision: Precision

    def __call__(self, model: Model, engine: Engine) -> Mapping[str, Score]:
        feed = Feed(self.features, device=engine.device)
        fake = from_model(model, "samples", self.num, self.seed, self.real, precision=self.precision)
        sources = {"real": self.real, "fake": fake}
        places = {name: {side: side for side in metric.sets} for name, metric in self.metrics.items()}
        check_needs(feed, sources, self.metrics, places)
        return score(feed, sources, self.metrics, places, engine, seed=self.seed).scores


def _make_sources(data: Data, model: Model, num: int | None, seed: int, precision: Precision) -> dict[str, Source]:
    """Makes the sources for a run's metrics: training images, held-out images, and the Model's samples."""
    if few := explain_few(data.splits):
        raise ValueError(f"evaluate: {few}")
    count = choose_num(num, data.splits)
    held = from_data(data, "test", "held-out images", _choose(data, "test", count))
    return {
        "reference": from_data(data, "train", "training images", _choose(data, "train", count)),
        "held-out": held,
        "train": from_data(data, "train", "training images"),
        "fake": from_model(model, "samples", count, seed, held, precision=precision),
    }


def _make_features(site: Site, data: Data, features: str | FeatureExtractor | None = None) -> FeatureExtractor | None:
    """Makes the features that are requested, or the spec's, or the default, ready to use."""
    parts, settings = site.plan.parts, site.evaluation
    if features is None and settings and settings.features:
        features = settings.features(x=data.x)
        site.check()
    name = parts["data"].name if "data" in parts else type(site.data).__name__
    extractor = make_extractor(features or choose_features(data), data.x, name=name, classes=_count_classes(data))
    return prepare_extractor(extractor, data)


def explain_unsampled(model: Model) -> tuple[str, ...]:
    """Explains why a Model cannot be sampled; returns nothing if it can."""
    try:
        model.sample(1, seed=0)
    except ValueError as error:
        return (f"samples were not measured: {error}",)
    return ()


def _assign_sources(metric: Metric, reference: str = "reference") -> Mapping[str, str]:
    """Assigns a source of samples to each set of a metric; samples are compared with a reference."""
    compares = "fake" in metric.sets and "train" not in metric.sets
    return {side: {"real": reference if compares else "held-out"}.get(side, side) for side in metric.sets}


def _has_floor(metric: Metric) -> bool:
    """Whether held-out images can replace the samples; they cannot for copying or for the cost of a Model."""
    return "fake" in metric.sets and "train" not in metric.sets and "model" not in metric.needs


def _choose(data: Data, split: str, count: int) -> Sequence[int] | None:
    """Chooses a fixed random subset of a split; returns its indices, or None for the whole split."""
    there = data.splits[split]
    if count > there:
        raise ValueError(f"evaluate expects at most the {there} images of the {split} split on each side, got {count}")
    return None if count == there else draw_subset(split, there, count)


def _match_classes(data: Data, held: Source, metrics: Mapping[str, Metric]) -> Source:
    """Makes the source of as many training images of each class as there are held-out images; reads the whole split.

    Raises:
        ValueError: If there are too few of a class for one of the metrics, or fewer training images.
    """
    wanted = torch.cat([batch.fields["labels"] for _, batch in held.number_batches()]).bincount()
    for name, metric in metrics.items():
        _check_classes(name, metric, wanted.tolist(), min(data.splits["train"], data.splits["test"]))
    size = data.splits["train"]
    order = draw_subset("train", size, size)
    passed = from_data(data, "train", "training images", order).number_batches()
    labels = torch.cat([batch.fields["labels"] for _, batch in passed])
    shuffled = torch.tensor(order)
    kept = [shuffled[(labels == label).nonzero()[: int(num), 0]] for label, num in enumerate(wanted)]
    if short := [label for label, num in enumerate(wanted) if len(kept[label]) < num]:
        raise ValueError(f"evaluate expects as many training as held-out images of each class, got fewer of {short}")
    return from_data(data, "train", "training images", torch.cat(kept).sort().values.tolist())


def _check_classes(name: str, metric: Metric, counts: Sequence[int], most: int) -> None:
    """Checks that a metric is given enough samples of each class that is among them."""
    fewest = read_extras(metric, MetricExtras).fewest or 1
    if few := [f"{count} of class {label}" for label, count in enumerate(counts) if 0 < count < fewest]:
        total = sum(counts)
        advice = f"compare more than {total} samples (num, -n)" if total < most else "leave it out: there are no more"
        expected = f"at least {fewest} samples of each class for {name} per class"
        raise ValueError(f"evaluate expects {expected}, got {', '.join(few)}; {advice}")


def _count_classes(data: Data) -> int | None:
    return data.fields["labels"].classes if "labels" in data.fields else None
