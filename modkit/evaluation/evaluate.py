"""Evaluation: samples against data, by any features and metrics, streaming.

    report = modkit.evaluate(real=images, fake=model, features="classifier:digits", seed=0)

Every score says what it depends on: the features in its name (`FD (classifier:digits)`; `FID` only with Inception's),
the counts, the seed, its standard error. Both sides have the same number of samples, always.

Shape letters: b batch, n samples, d features.
"""

from __future__ import annotations

from collections.abc import Mapping

from modkit.evaluation.feed import Feed
from modkit.evaluation.report import Report
from modkit.evaluation.scoring import Chosen, check_needs, make_extractor, make_metrics, score
from modkit.evaluation.sources import Samples, Source, source
from modkit.kinds import FeatureExtractor
from modkit.metrics.moments import Gaussian, Moments

__all__ = ["DEFAULT", "evaluate", "statistics"]

DEFAULT = ("fd", "kd", "prdc", "copying")
"""The metrics where none is named; `copying` where training data are given."""


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
    if train is not None:
        sources["train"] = source(train, "train", seed=seed, size=size)
    sources = _resize_folders(sources) if size is None else sources
    sources["fake"].key = ""  # samples are seen once: not worth a place in the cache
    seen = {name: one.type.shape for name, one in sources.items() if one.given is None}
    if len(set(seen.values())) > 1:
        shapes = ", ".join(f"{name} {shape}" for name, shape in seen.items())
        raise ValueError(f"evaluate expects samples of one shape, got {shapes}")
    alive = next((one for one in sources.values() if one.given is None), sources["real"])
    feed = Feed(make_extractor(features, alive.type), raw=raw)
    wanted = metrics if metrics is not None else [name for name in DEFAULT if name != "copying" or train is not None]
    made = make_metrics(wanted, k)
    places = {name: {side: side for side in metric.sets} for name, metric in made.items()}
    check_needs(feed, sources, made, places)
    return score(feed, sources, made, places, limit=_choose_limit(sources, num), seed=seed)


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
    feed = Feed(make_extractor(features, data.type), raw=raw)
    moments: Moments | None = None
    for _, batch in data.numbered(num):
        vectors = feed.values(data, batch, ["features"])["features"]
        moments = moments or Moments(vectors.shape[1])
        moments.update(vectors)
    if moments is None:
        raise ValueError(f"statistics expects samples, got none in {real}")
    return moments.gaussian()


def _resize_folders(sources: dict[str, Source]) -> dict[str, Source]:
    """Folders of images resized to the side of what cannot be resized, else to the least of theirs."""
    fixed = [one.type.shape[-1] for one in sources.values() if one.at is None and one.given is None]
    sides = [one.type.shape[-1] for one in sources.values() if one.at is not None]
    target = min(fixed or sides, default=0)
    return {name: one.at(target) if one.at and one.type.shape[-1] != target else one for name, one in sources.items()}


def _choose_limit(sources: Mapping[str, Source], num: int | None) -> int | None:
    """Samples on each side: as many as asked for, or as the smaller side is known to have."""
    known = {n: one.count for n, one in sources.items() if n != "train" and one.count is not None and not one.given}
    if num is not None and any(count < num for count in known.values()):
        raise ValueError(f"evaluate expects {num} samples on each side, got {known}")
    return min(known.values()) if num is None and known else num
