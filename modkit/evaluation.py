"""Evaluation: samples against data, by any features and metrics, streaming.

    report = modkit.evaluate(real=images, fake=model, features="classifier", seed=0)

Every score says what it depends on: the features in its name (`FD (classifier:digits)`; `FID` only with Inception's),
the counts, the seed, its standard error. Both sides have the same number of samples, always.

Shape letters: b batch, n samples, d features.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modkit.kinds import FeatureExtractor, Metric
from modkit.registry import registry
from modkit.rng import Rng
from modkit.sources import Samples, Source, from_data, from_model, source
from modkit.types import Score, TensorType

if TYPE_CHECKING:
    from modkit.run import Run

__all__ = ["DEFAULT", "Report", "evaluate", "evaluate_run", "measure"]

DEFAULT = ("fd", "kd", "precision-recall", "density-coverage")
"""The metrics of an evaluation that names none."""

_INCEPTION = {"FD": "FID", "FD∞": "FID∞", "KD": "KID"}


@dataclass(frozen=True)
class Report:
    """The scores of one evaluation.

    Args:
        scores: Scores by name, the features in it.
        counts: Samples on each side.
        seed: Seed of what was drawn.
        notes: What a reader must know: resizing, warnings of metrics.
    """

    scores: Mapping[str, Score]
    counts: Mapping[str, int]
    seed: int
    notes: tuple[str, ...] = field(default=())

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(name, value, standard error, what is better) of each score."""
        return [
            (name, f"{score.value:.4g}", "" if score.error is None else f"{score.error:.2g}", score.better or "")
            for name, score in self.scores.items()
        ]

    def to_json(self) -> str:
        """All of it, as JSON."""
        return json.dumps({**asdict(self), "scores": {name: asdict(s) for name, s in self.scores.items()}}, indent=1)


def evaluate(
    *,
    real: Samples,
    fake: Samples,
    train: Samples | None = None,
    features: str | FeatureExtractor | None,
    metrics: Sequence[str | Metric] | None = None,
    num: int | None = None,
    seed: int = 0,
    raw: bool = False,
) -> Report:
    """Measures samples against data.

    Args:
        real: Data: a tensor or array `n c h w` in [−1, 1], a `.npy`, a folder of images, an iterable of batches.
        fake: Samples: the same, or a Model to sample.
        train: The training data, for the metrics that ask for them.
        features: A features part or its name (see `modkit list features`); None where `real` and `fake` are features
            already, `n d`.
        metrics: Metrics or their names; `DEFAULT` where not given.
        num: Samples on each side; as many as both have where not given.
        seed: Seed of a Model's noise and of subsets.
        raw: Leave values as they are instead of rounding images to 8 bits.

    Raises:
        ValueError: If a source cannot be read, the sides differ in shape or count, or a name is unknown.
    """
    sources = {"real": source(real, "real", num=num, seed=seed)}
    sources["fake"] = source(fake, "fake", num=num or sources["real"].count, seed=seed)
    if train is not None:
        sources["train"] = source(train, "train", num=num, seed=seed)
    if len({one.type.shape for one in sources.values()}) > 1:
        shapes = ", ".join(f"{name} {one.type.shape}" for name, one in sources.items())
        raise ValueError(f"evaluate expects samples of one shape, got {shapes}")
    extractor = _extractor(features, sources["real"].type)
    return measure(
        sources, extractor, _metrics(metrics, train is not None), num=num, seed=seed, raw=raw or extractor is None
    )


def evaluate_run(
    run: Run,
    *,
    features: str | None = None,
    metrics: Sequence[str | Metric] | None = None,
    num: int | None = None,
    seed: int = 0,
    raw: bool = False,
) -> tuple[Report, Report]:
    """Measures a run's model against the test split, and training images against the same: the floor.

    Args:
        run: The run.
        features: Name of the features; a classifier's for digits, else the values themselves, where not given.
        metrics: Metrics or their names; `DEFAULT` where not given.
        num: Samples on each side; as many as the test split has where not given.
        seed: Seed of the noise and of subsets.
        raw: Leave values as they are.

    Returns:
        (the model's report, the floor's).

    Raises:
        ValueError: If the run has no data or checkpoint, or `num` is more than there are test images.
    """
    from modkit.session import load, opened_data

    data, name = opened_data(run)
    model = load(run)
    chosen = features or ("classifier:digits" if name == "digits" else "pixels")
    extractor = _extractor(chosen, data.x)
    count = num or min(data.splits["test"], data.splits["train"])
    reports = []
    for fake in (from_model(model, "the model's samples", count, seed), from_data(data, "train", "training images")):
        sources = {"real": from_data(data, "test", "test images"), "fake": fake}
        wanted = _metrics(metrics, False)
        reports.append(measure(sources, extractor, wanted, num=count, seed=seed, raw=raw))
    return reports[0], reports[1]


def measure(
    sources: Mapping[str, Source],
    extractor: FeatureExtractor | None,
    metrics: Mapping[str, Metric],
    *,
    num: int | None = None,
    seed: int = 0,
    raw: bool = False,
) -> Report:
    """Feeds sources to metrics, batch by batch.

    Args:
        sources: Samples by set: `real`, `fake`, perhaps `train`.
        extractor: Makes features, or None where the samples are features.
        metrics: Metrics by name.
        num: Samples of `real` and of `fake`; as many as both have where not given.
        seed: Seed of subsets.
        raw: Leave values as they are.

    Raises:
        ValueError: If the sides have different counts, or a metric cannot be computed of what there is.
    """
    limit = _limit(sources, num)
    states = {name: metric.init() for name, metric in metrics.items()}
    counts: dict[str, int] = {}
    for set, one in sources.items():
        counts[set] = 0
        for indices, x in one.numbered(None if set == "train" else limit, raw=raw):
            counts[set] += len(x)
            values = _values(extractor, x)
            for name, metric in metrics.items():
                if set in metric.sets and (fed := _fed(metric, values)):
                    states[name] = metric.update(states[name], set, fed, indices)
    if counts["real"] != counts["fake"]:
        raise ValueError(f"evaluate expects equal counts, got {counts['real']} real and {counts['fake']} fake samples")
    label = extractor.label if extractor else "features as given"
    scores: dict[str, Score] = {}
    for name, metric in metrics.items():
        for score_name, score in metric.result(states[name], Rng(seed, "evaluate", name)).items():
            scores[_named(score_name, label)] = score
    notes = [note for one in sources.values() for note in one.notes]
    notes += [warning for score in scores.values() for warning in score.warnings]
    return Report(scores, counts, seed, tuple(dict.fromkeys(notes)))


def _limit(sources: Mapping[str, Source], num: int | None) -> int | None:
    known = {name: one.count for name, one in sources.items() if name != "train" and one.count is not None}
    if num is not None and any(count < num for count in known.values()):
        raise ValueError(f"evaluate expects {num} samples on each side, got {known}")
    return min(known.values()) if num is None and known else num


@torch.no_grad()
def _values(extractor: FeatureExtractor | None, x: Tensor) -> dict[str, Tensor]:
    if extractor is None:
        return {"features": x, "points": x}
    made = extractor(x)
    values = {"features": made.vector, "images": x, "points": x}
    return values if made.logits is None else {**values, "logits": made.logits}


def _fed(metric: Metric, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if missing := [need for need in metric.needs if need not in values]:
        raise ValueError(f"{type(metric).__name__} needs {', '.join(missing)}, which these features do not give")
    return {need: values[need] for need in metric.needs}


def _named(score: str, label: str) -> str:
    return _INCEPTION.get(score, score) if label == "inception" else f"{score} ({label})"


def _extractor(features: str | FeatureExtractor | None, x: TensorType) -> FeatureExtractor | None:
    if not isinstance(features, str):
        return features
    name, _, weights = features.partition(":")
    keywords: dict[str, Any] = {"weights": weights} if weights else {}
    made: FeatureExtractor = registry().find("features", name).load()(x=x, **keywords)
    return made


def _metrics(chosen: Sequence[str | Metric] | None, train: bool) -> dict[str, Metric]:
    wanted = chosen if chosen is not None else (*DEFAULT, *(("copying",) if train else ()))
    return dict(_each(wanted))


def _each(chosen: Iterable[str | Metric]) -> Iterator[tuple[str, Metric]]:
    for one in chosen:
        if isinstance(one, str):
            yield one, registry().find("metric", one).load()()
        else:
            yield type(one).__name__, one
