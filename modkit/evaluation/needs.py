"""What metrics need of samples, and what samples, features and a Model offer; known before any sample is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from modkit.data.splits import is_stream
from modkit.evaluation.extractors import choose_features, make_extractor
from modkit.kinds import Data, DataExtras, FeatureExtractor, Metric, MetricExtras, read_extras
from modkit.models.model import Model
from modkit.specs.settings import Evaluation
from modkit.types import Features, TensorType, split_levels

__all__ = [
    "Measures",
    "choose_num",
    "explain_few",
    "explain_unmeasured",
    "explain_unwatched",
    "extract",
    "find_codes",
    "find_continuous",
    "find_unmet",
    "has_logits",
    "list_offers",
    "name_needs",
]

_MOST = 10_000  # default limit of samples on each side


class Measures(NamedTuple):
    """The parts of an evaluation: its features, None for those that suit the data, and its metrics by their paths."""

    settings: Evaluation
    features: FeatureExtractor | None
    metrics: Mapping[str, Metric]
    watched: Mapping[str, Metric]


def list_offers(
    type: TensorType,
    fields: Collection[str],
    *,
    truth: bool,
    factors: bool,
    features: bool,
    logits: bool,
    model: Model | None,
) -> frozenset[str]:
    """Names the values that samples offer to metrics, see `modkit.kinds.Metric`.

    Args:
        type: The type of a sample.
        fields: Names of the samples' fields.
        truth: Whether their true modes are known.
        factors: Whether their factors of variation are known.
        features: Whether there are features of the samples.
        logits: Whether the features have logits.
        model: The Model that is measured, or None.
    """
    names, continuous = {"batch", "levels"}, type.classes is None
    has = {"features": features, "logits": logits, "labels": "labels" in fields}
    has |= {"points": continuous, "images": continuous and len(type.shape) > 1}
    has |= {"truth": truth, "factors": factors, "range": type.range is not None}
    names |= {name for name, there in has.items() if there}
    if model is not None:
        names |= {"model", "precision"}
        if (coder := model.coder) is not None and {*coder.reads, *coder.inputs} <= set(fields):
            names |= {"pairs"} | ({"feature-pairs"} if features else set())
            names |= {"codes"} if find_codes(coder) else set()
            names |= {"latents"} if find_continuous(coder) else set()
            names |= {"posterior"} if coder.diagonal else set()
    return frozenset(names)


def find_codes(coder: Model) -> str | None:
    """Finds the name of the first encoding whose levels are all codes; returns None if there is none."""
    return next(
        (name for name, event in coder.latents.items() if all(one.classes for one in split_levels(event))), None
    )


def find_continuous(coder: Model) -> str | None:
    """Finds the name of the first encoding that is one continuous tensor; returns None if there is none."""
    return next(
        (name for name, event in coder.latents.items() if isinstance(event, TensorType) and event.classes is None), None
    )


def extract(extractor: FeatureExtractor, x: Tensor) -> Features:
    """Computes the features of `x`, `b ...`, without gradients.

    Raises:
        ValueError: If the extractor returns anything else.
    """
    with torch.no_grad():
        made = extractor(x)
    if not isinstance(made, Features):
        name, received = extractor.__class__.__name__, made.__class__.__name__
        raise ValueError(f"evaluate expects features that return `modkit.types.Features`, got {received} of {name}")
    return made


def has_logits(extractor: FeatureExtractor, type: TensorType) -> bool:
    """Whether features have logits, which is tried on a blank sample, on the device of the extractor."""
    tensors = chain(extractor.parameters(), extractor.buffers()) if isinstance(extractor, nn.Module) else iter(())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    return extract(extractor, torch.zeros(1, *type.shape, device=device)).logits is not None


def choose_num(stated: int | None, splits: Mapping[str, int]) -> int:
    """Chooses how many samples an evaluation compares on each side, unless their number is stated.

    Examples:
        >>> choose_num(None, {"train": 60_000, "test": 9_000})
        9000
    """
    return stated or min(splits.get("test", 0), splits.get("train", 0), _MOST)


def explain_few(splits: Mapping[str, int]) -> str | None:
    """Returns why splits have too few held-out samples to measure a model, or None.

    Examples:
        >>> explain_few({"train": 60_000})
        'expected at least 2 samples in the test split to measure, got 0'
    """
    test = splits.get("test", 0)
    return f"expected at least 2 samples in the test split to measure, got {test}" if test < 2 else None


def name_needs(name: str, missing: Sequence[str]) -> str:
    """Says what a metric lacks."""
    return f"{name} requires {', '.join(missing)}, which these samples and features do not provide"


def explain_unmeasured(metric: Metric, model: Model | None, types: Iterable[TensorType]) -> str | None:
    """Returns why a metric refuses a Model or samples of one of the types, whose offers meet its needs, or None."""
    refuse = read_extras(metric, MetricExtras).refuse
    return None if refuse is None else next((reason for x in types if (reason := refuse(model, x))), None)


def explain_unwatched(metric: Metric) -> str | None:
    """Returns why a metric cannot be watched during training, where only samples and training images are there."""
    if set(metric.sets) <= {"real", "fake"} and "model" not in metric.needs:
        return None
    return f"expected metrics that compare samples with training images, got {type(metric).__name__}"


def find_unmet(measures: Measures, data: Data, x: TensorType, model: Model) -> dict[str, str]:
    """Finds what an evaluation at the end of training, or scores during it, would fail for.

    Args:
        measures: The parts of the evaluation.
        data: The data set.
        x: The type of its samples.
        model: The model that is to be trained, on any device.

    Returns:
        What is wrong, by path.
    """
    if is_stream(data):
        command = "modkit evaluate --real PATH --fake PATH"
        return {"evaluate": f"expected data that can be read by index, got a stream; measure samples by `{command}`"}
    settings, found = measures.settings, {}
    watches = settings.watch.every is not None
    metrics = {**measures.metrics, **(measures.watched if watches else {})}
    logits = (
        _may_have_logits(measures.features, data, x)
        if any("logits" in one.needs for one in metrics.values())
        else False
    )
    extras = read_extras(data, DataExtras)
    features = measures.features is not None or choose_features(data) is not None
    known = {"truth": extras.truth is not None, "features": features, "logits": logits}
    if watches and not measures.watched and not features:
        expected = "expected evaluate.features, or metrics that need none"
        found["evaluate.watch.metrics"] = f"{expected}, got the default, fd, which compares features; {x} have none"
    for path, metric in metrics.items():
        compared = None if path in measures.watched else model
        offers = {
            side: list_offers(x, fields, factors=bool(factors), model=compared, **known)
            for side, fields, factors in (
                *((one, data.fields, extras.factors) for one in ("real", "train")),
                ("fake", model.reads, ()),
            )
        }
        if missing := [need for need in metric.needs if any(need not in offers.get(side, ()) for side in metric.sets)]:
            found[path] = name_needs(type(metric).__name__, missing)
        elif path in measures.watched and (reason := explain_unwatched(metric)):
            found[path] = reason
        elif reason := explain_unmeasured(metric, compared, [x]):
            found[path] = reason
    found |= _find_repeated(measures.metrics) | (_find_repeated(measures.watched) if watches else {})
    return found | (_find_few(settings, data.splits, watches) or _find_unfit(measures, data.splits, watches))


def _find_repeated(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Finds metrics of the same name as one before them, whose scores could not be told apart."""
    names: dict[str, str] = {}
    first = {path: names.setdefault(type(metric).__name__, path) for path, metric in metrics.items()}
    return {
        path: f"expected each metric once, got {type(metrics[path]).__name__}, as in {before}"
        for path, before in first.items()
        if before != path
    }


def _find_few(settings: Evaluation, splits: Mapping[str, int], watches: bool) -> dict[str, str]:
    """Finds splits that are too small for an evaluation."""
    train, test = splits.get("train", 0), splits.get("test", 0)
    if watches and settings.watch.num > train:
        return {"evaluate.watch.num": f"expected at most the {train} training samples, got {settings.watch.num}"}
    if few := explain_few(splits):  # what is watched needs only training samples, and no report follows
        return {} if watches else {"evaluate": few}
    if settings.num is not None and settings.num > min(train, test):
        there = f"{train} samples of the train and the {test} of the test split"
        return {"evaluate.num": f"expected at most the {there}, got {settings.num}"}
    return {}


def _find_unfit(measures: Measures, splits: Mapping[str, int], watches: bool) -> dict[str, str]:
    """Finds numbers of samples that are too large, or too small, for a metric."""
    settings, found = measures.settings, {}
    reported = {} if explain_few(splits) else measures.metrics
    counts = [("evaluate" if settings.num is None else "evaluate.num", choose_num(settings.num, splits), reported)]
    counts += [("evaluate.watch.num", settings.watch.num, measures.watched)] if watches else []
    for path, count, metrics in counts:
        for metric in metrics.values():
            extras, name = read_extras(metric, MetricExtras), type(metric).__name__
            if extras.most is not None and count > extras.most:
                expected = f"expected at most the {extras.most} samples that {name} compares"
            elif extras.fewest is not None and count < extras.fewest:
                expected = f"expected at least the {extras.fewest} samples that {name} needs of a set"
            else:
                continue
            found[path] = f"{expected}, got {count}" + ("; set evaluate.num" if path == "evaluate" else "")
    return found


def _may_have_logits(features: FeatureExtractor | None, data: Data, x: TensorType) -> bool:
    """Whether an evaluation's features have logits; True if that cannot be found out without weights."""
    try:
        if features is None:
            labels = data.fields.get("labels")
            with torch.device("meta"):
                features = make_extractor(
                    choose_features(data), x, name=type(data).__name__, classes=labels.classes if labels else None
                )
        return features is not None and has_logits(features, x)
    except Exception:  # a plug-in's features may not run without values
        return True
