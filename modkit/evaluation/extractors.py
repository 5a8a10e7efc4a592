"""Extractors: the features by which samples are compared, made from their names or chosen to suit the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modkit.kinds import Data, DataExtras, FeatureExtractor, read_extras
from modkit.part import Part
from modkit.parts.registry import get_registry
from modkit.parts.signature import Parameter, read_parameters
from modkit.specs.overrides import split_values
from modkit.specs.yaml import parse
from modkit.types import TensorType

__all__ = ["choose_features", "find_features", "make_extractor"]


def choose_features(data: Data) -> str | None:
    """Chooses the features that compare a data set's samples when none are requested.

    Returns:
        The features that the data set names in its optional member `features`; otherwise None for codes; otherwise
        `classifier`, to be trained on the data, if they are images of 1 or 3 channels with a range and one label each,
        of two classes or more; otherwise `pixels`.
    """
    if named := read_extras(data, DataExtras).features:
        return named
    if data.x.classes is not None:  # the numbers of codes have no distances
        return None
    labels, shape = data.fields.get("labels"), data.x.shape
    labelled = labels is not None and not labels.shape and (labels.classes or 0) > 1
    return "classifier" if len(shape) == 3 and shape[0] in (1, 3) and data.x.range and labelled else "pixels"


def make_extractor(features: str | FeatureExtractor | None, x: TensorType, **offered: Any) -> FeatureExtractor | None:
    """Makes an extractor from the name of its part and its parameters: `classifier:digits`, `random-conv:0,dim=64`.

    What follows the colon is the value of the part's first parameter, `key=value` of any other, separated by commas.

    Args:
        features: The extractor, its name, or None.
        x: Type of the samples.
        **offered: Parameters of the part; those that it does not have and those that are None are ignored.

    Raises:
        ValueError: If the name or a parameter is unknown, the part does not fit `x`, or what is given is no extractor.

    Examples:
        >>> make_extractor("random-conv", TensorType((1, 8, 8), range=(-1, 1)), seed=3).label
        'random-conv:3'
        >>> make_extractor("random-conv:3,dim=32", TensorType((1, 8, 8), range=(-1, 1))).label
        'random-conv:3,dim=32'
    """
    if not isinstance(features, str):
        if features is not None and (isinstance(features, type) or not hasattr(features, "label")):
            received = f"the class {features.__name__}" if isinstance(features, type) else type(features).__name__
            expected = "a built part, which has a `label`, such as Pixels(x), the name of one, or None"
            raise ValueError(f"evaluate expects features: {expected}; got {received}")
        return features
    name, _, text = features.partition(":")
    part = find_features(features)
    declared = read_parameters(part)
    given = {key: value for key, value in offered.items() if key in declared and value is not None}
    return part.load()(x=x, **given | _read_values(text, declared, name))


def find_features(features: str) -> Part:
    """Finds the part that a name of features stands for: `classifier:digits`, `random-conv:0,dim=64`.

    Raises:
        ValueError: If there is none.

    Examples:
        >>> find_features("random-conv:0").name
        'random-conv'
    """
    return get_registry().find("features", features.partition(":")[0])


def _read_values(text: str, declared: Mapping[str, Parameter], name: str) -> dict[str, Any]:
    """Reads the parameters of features: `3,dim=64`."""
    values: dict[str, Any] = {}
    for number, word in enumerate(split_values(text) if text else ()):
        key, equals, written = word.partition("=")
        if number == 0 and key not in declared and declared:
            key, equals, written = next(iter(declared)), "=", word
        if not equals or key not in declared:
            known = ", ".join(declared) or "none"
            raise ValueError(f"the features {name} expect parameters as key=value, of {known}, got {word!r}")
        value = written if declared[key].validate(written) is None else parse(written, f"--features {name}")[0]
        if reason := declared[key].validate(value):
            raise ValueError(f"the features {name} got {key}={written}: {reason}")
        values[key] = value
    return values
