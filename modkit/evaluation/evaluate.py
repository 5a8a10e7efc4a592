"""Evaluation: compares samples with data, by any features and metrics, in one pass.

    report = modkit.evaluate(real=images, fake=model, features="classifier:digits", seed=0)

Every score states what it depends on: the features are in its name (`FD (classifier:digits)`; it is `FID` only with
Inception's), beside the numbers of samples, the seed and its standard error. Both sides always have the same number of
samples.

Shape letters: b batch, n samples, d features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any, Literal

from modkit.engines.processes import open_engine
from modkit.evaluation.extractors import make_extractor
from modkit.evaluation.feed import Feed
from modkit.evaluation.origins import describe_origin, match_origins
from modkit.evaluation.report import Report
from modkit.evaluation.scoring import Chosen, check_needs, make_metrics, score
from modkit.evaluation.sources import BYTES, Reading, Samples, Source, make_source
from modkit.evaluation.states import gather_states
from modkit.kinds import FeatureExtractor
from modkit.metrics.moments import Gaussian, Moments
from modkit.precision import use_precision
from modkit.types import Precision

__all__ = ["DEFAULT", "evaluate", "compute_statistics"]

DEFAULT = ("fd", "kd", "prdc", "copying")
"""The default metrics; `copying` is among them if training data are given."""


def evaluate(
    *,
    real: Samples,
    fake: Samples,
    train: Samples | None = None,
    features: str | FeatureExtractor | None,
    metrics: Chosen | None = None,
    num: int | None = None,
    size: int | None = None,
    channels: Literal[1, 3, 4] | None = None,
    background: str = "white",
    k: int | None = None,
    seed: int = 0,
    raw: bool = False,
    precision: Precision = "float32",
) -> Report:
    """Compares samples with data.

    Processes that a launcher has started share the work: all of them call it, and each gets the report.

    Args:
        real: The data: a tensor or array `n c h w`, a `.npy` file, a folder of images, or an iterable of batches; for
            the Fréchet distance also a `.npz` file with `mu` and `sigma`; one that `--save-statistics` wrote says of
            which features and images, and must be of those that are compared. Floating-point images must be in [−1, 1]
            or, beside a Model, in its range; folders and uint8 images are mapped to it.
        fake: The samples, in any of these forms, or a run or Model to sample.
        train: The training data, for metrics that require them.
        features: A features part or its name (see `modkit list features`); None if `real` and `fake` are features
            already, `n d`.
        metrics: Metrics or their names; None is `DEFAULT`.
        num: Number of samples on each side; None is as many as both have, where iterables must have equally many. Of
            a side that has more it is a fixed random subset, of an iterable the first ones.
        size: Height and width that images of folders are resized to; None is the smallest side of any image.
        channels: Channels that images of folders are converted to, 4 with opacity; None is 1 for grey and 3 for colour
            images, and refuses folders that mix both.
        background: The colour that transparency of images of folders is laid on.
        k: Rank of the neighbour, for metrics of neighbours that are chosen by name.
        seed: Seed of a Model's noise and of subsets.
        raw: Whether to leave values unchanged instead of rounding images to 8 bits.
        precision: What a Model samples in; features and metrics are computed in float32 at least.

    Raises:
        ValueError: If a source cannot be read, the sides differ in shape or number, statistics are of other features or
            images, or a name is unknown.

    Examples:
        >>> import torch
        >>> x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> report = evaluate(real=x, fake=x, features="pixels", metrics=["prdc"])
        >>> report.scores["precision (pixels)"].value
        1.0
    """
    reading = Reading(size, channels, background)
    wanted = metrics if metrics is not None else [name for name in DEFAULT if name != "copying" or train is not None]
    made = make_metrics(wanted, k)
    places = {name: {side: side for side in metric.sets} for name, metric in made.items()}
    with open_engine("auto") as engine:
        how: dict[str, Any] = {"seed": seed, "reading": reading, "device": engine.device}
        sources = {"real": make_source(real, "real", num=num, **how)}
        count = num or sources["real"].count
        sources["fake"] = make_source(fake, "fake", num=count, precision=precision, **how)
        if train is not None:
            sources["train"] = make_source(train, "train", **how)
        sources = _match_types(sources, size)
        if (limit := _choose_limit(sources, num)) is not None:
            sources |= {side: sources[side].choose(limit) for side in ("real", "fake")}
        sources["fake"].key = ""  # samples are used once, so caching is not worthwhile
        alive = next((one for one in sources.values() if one.given is None), sources["real"])
        feed = Feed(make_extractor(features, alive.type), raw=raw, device=engine.device)
        sources = match_origins(sources, feed)
        check_needs(feed, sources, made, places)
        found = score(feed, sources, made, places, engine, limit=limit, seed=seed)
        return found.drop_undefined()


def compute_statistics(
    real: Samples,
    *,
    features: str | FeatureExtractor,
    num: int | None = None,
    size: int | None = None,
    channels: Literal[1, 3, 4] | None = None,
    background: str = "white",
    raw: bool = False,
) -> Gaussian:
    """Computes the mean and covariance of the features of data, which can replace the data in a Fréchet distance.

    Processes share the work as in `evaluate`. If there are more than `num` samples, a fixed random subset is used, the
    same as in `evaluate`, and of an iterable the first ones.

    Raises:
        ValueError: If the data cannot be read, are empty, or are fewer than `num`.
    """
    moments: Moments | None = None
    with open_engine("auto") as engine:
        data = make_source(real, "real", num=num, reading=Reading(size, channels, background), device=engine.device)
        if num is not None and data.count is not None and data.count < num:
            raise ValueError(f"compute_statistics expects {num} samples, got {data.count}")
        data = data if num is None else data.choose(num)
        feed = Feed(make_extractor(features, data.type), raw=raw, device=engine.device)
        with use_precision(engine.device, "float32"):
            for _, batch in data.number_batches(num, engine.rank, engine.world):
                vectors = feed.compute_values(data, batch, ["features"])["features"]
                moments = moments or Moments(vectors.shape[1])
                moments.update(vectors)
        parts = [one for one in gather_states(moments, engine) if one is not None]
    if not parts:
        raise ValueError(f"compute_statistics expects samples, got none in {real}")
    whole = reduce(Moments.merge, parts)
    if num is not None and whole.count < num:  # an iterable, whose number is known now
        raise ValueError(f"compute_statistics expects {num} samples, got {whole.count}")
    return replace(whole.to_gaussian(), origin=describe_origin(feed, data))


def _match_types(sources: Mapping[str, Source], size: int | None) -> dict[str, Source]:
    """Brings samples to one size, unless it is given, and to one range.

    Raises:
        ValueError: If their shapes differ all the same.
    """
    sized = dict(sources) if size else _resize_folders(sources)
    seen = {name: one.type.shape for name, one in sized.items() if one.given is None}
    if len(set(seen.values())) > 1:
        shapes = ", ".join(f"{name} {shape}" for name, shape in seen.items())
        raise ValueError(f"evaluate expects samples of one shape, got {shapes}")
    return _match_ranges(sized)


def _resize_folders(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Resizes folders of images to the side of sources that cannot be resized, or else to their smallest side."""
    fixed = [one.type.shape[-1] for one in sources.values() if one.at is None and one.given is None]
    sides = [one.type.shape[-1] for one in sources.values() if one.at is not None]
    target = min(fixed or sides, default=0)
    return {name: one.at(target) if one.at and one.type.shape[-1] != target else one for name, one in sources.items()}


def _match_ranges(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Brings samples to one range: that of given statistics, else of a Model or data set, else of images of 8 bits."""
    fixed = [one.type.range for one in sources.values() if one.type.range and one.given]  # statistics cannot be mapped
    known = fixed or [one.type.range for one in sources.values() if one.type.range and not one.assumed]
    target = next((range for range in known if range != BYTES), BYTES if known else None)
    return {name: one if one.given else one.match_range(target) for name, one in sources.items()}


def _choose_limit(sources: Mapping[str, Source], num: int | None) -> int | None:
    """Returns the number of samples on each side: as requested, or as many as the smaller side is known to have."""
    known = {n: one.count for n, one in sources.items() if n != "train" and one.count is not None and not one.given}
    if num is not None and any(count < num for count in known.values()):
        raise ValueError(f"evaluate expects {num} samples on each side, got {known}")
    return min(known.values()) if num is None and known else num
