"""Origins: what a mean and covariance were computed of, so that they are not compared with features of another kind.

    features, weights    the extractor's label and key
    shape, range         the type of a sample
    values               `8 bits` or `raw`, of samples that can be pictures
    background           the colour that transparency of images of a folder was laid on

Statistics that `compute_statistics` made state it, and a `.npz` file keeps it; those of other programs are taken as
they are, with a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, product
from typing import Any

from modkit.errors import shorten
from modkit.evaluation.feed import Feed
from modkit.evaluation.sources import Source

__all__ = ["describe_origin", "match_origins"]

_HOW = "give the --features, --size, --channels, --background and --raw that they were saved with, or save them anew"


def describe_origin(feed: Feed, source: Source) -> dict[str, Any]:
    """Describes what the features of a source's samples are computed of, as plain data; what has no meaning is None."""
    x = source.type
    return {
        **_describe_features(feed),
        "shape": [*x.shape],
        "range": None if x.range is None else [*map(float, x.range)],
        "values": feed.name_values(x),
        "background": source.background,
    }


def match_origins(sources: Mapping[str, Source], feed: Feed) -> dict[str, Source]:
    """Checks that given statistics are of what they are compared with; a note says where that is unknown.

    Raises:
        ValueError: If they are of other features, or of samples that were made otherwise.
    """
    given = {name: one.given.origin for name, one in sources.items() if one.given is not None}
    if not given:
        return dict(sources)
    features = _describe_features(feed)
    others = {} if not features else {n: describe_origin(feed, sources[n]) for n in sources if n not in given}
    for name, origin in given.items():
        _check_same(name, origin, "--features", features)
    for a, b in [*combinations(given, 2), *product(given, others)]:
        _check_same(a, given[a], b, given[b] if b in given else others[b])
    if not features:  # none to take them for
        return dict(sources)
    note = f"mean and covariance of unknown features, taken for {features['features']} of samples that are read alike"
    unknown = [name for name, origin in given.items() if not origin]
    return {n: replace(one, notes=(*one.notes, f"{n}: {note}")) if n in unknown else one for n, one in sources.items()}


def _describe_features(feed: Feed) -> dict[str, Any]:
    extractor = feed.extractor
    return {"features": extractor.label, "weights": extractor.key()} if extractor else {}


def _check_same(a: str, of_a: Mapping[str, Any], b: str, of_b: Mapping[str, Any]) -> None:
    known = [key for key in of_a if of_a[key] is not None and of_b.get(key) is not None]
    differing = [key for key in known if of_a[key] != of_b[key]]
    if "features" in differing and "weights" in differing:
        differing.remove("weights")  # which says no more
    if differing:
        told = ", ".join(
            f"{key} {shorten(str(of_a[key]))} of {a} and {shorten(str(of_b[key]))} of {b}" for key in differing
        )
        raise ValueError(f"evaluate expects statistics of what they are compared with, got {told}; {_HOW}")
