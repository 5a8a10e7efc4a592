"""The review of a data set before training: what there is, and what looks like a mistake.

It reads what is known already (splits, labels, what a scan has found) and a few samples, never all of them.

Shape letters: c channels, h w spatial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from modkit.data.array import has_channels_last
from modkit.data.labels import add_splits, count_labels, list_names, name_classes
from modkit.data.moments import read_some
from modkit.data.splits import is_stream
from modkit.kinds import Data, DataExtras, Fact, Finding, Note, read_extras
from modkit.types import TensorType

__all__ = ["list_class_names", "list_layers", "review_data"]

_SAMPLES = 32  # that are looked at: each is among those whose deviation is measured
_DARK = 1 / 8  # of the range: what 12 bits are of 16 is half of it


def review_data(data: Data | None, batch_size: int | None = None) -> Iterator[Note]:
    """Reviews a data set, with the size of the batches that it is to be trained on.

    Examples:
        >>> from modkit.data import Digits
        >>> for note in review_data(Digits(size=8), 2000):
        ...     print(str(note)[:60])
        data: 1,437 train and 360 test samples
        data: labels of 10 classes: 0 (178), 1 (182), 2 (177), 3 (18
        train.batch_size: batches of 2,000 have each of the 1,437 tr
    """
    if data is None:
        return
    layers = list_layers(data)
    counted = [f"{count:,} {split}" for split, count in data.splits.items()]
    yield Fact("data", f"{' and '.join(counted)} samples")
    if is_stream(data):
        yield Fact(
            "data",
            "a stream, so that training is inexact: a resumed run goes on with other samples, and other numbers of "
            "processes or workers read other orders",
        )
    for field, counts in count_labels(data, layers).items():
        total = add_splits(counts)
        names = name_classes(layers, field, len(total))
        yield Fact("data", f"{field} of {len(total):,} classes: {list_names(names, total)}")
    for depth, layer in enumerate(layers):
        review = read_extras(layer, DataExtras).review
        yield from (note.move(".".join(["data"] * (depth + 1))) for note in (review() if review else ()))
    yield from _review_values(data, layers)
    num = data.splits.get("train", 0)
    if batch_size is not None and 0 < num < batch_size:
        reason = f"batches of {batch_size:,} have each of the {num:,} training samples more than once"
        yield Finding("train.batch_size", reason, (f"train.batch_size={num}",))


def list_layers(data: Data) -> list[Data]:
    """Lists a data set, the one that it is made of, and so on.

    Examples:
        >>> from modkit.data import Digits, Subset
        >>> [type(layer).__name__ for layer in list_layers(Subset(data=Digits))]
        ['Subset', 'Digits']
    """
    layers = [data]
    while hasattr(layers[-1], "data") and all(hasattr(layers[-1].data, name) for name in ("splits", "fields", "read")):
        layers.append(layers[-1].data)
    return layers


def list_class_names(data: Data | None) -> dict[str, list[str]]:
    """Lists the names of classes that a data set, or one that it is made of, gives, by field.

    Examples:
        >>> from modkit.data import Digits
        >>> list_class_names(Digits(size=8))
        {}
    """
    layers = [] if data is None else list_layers(data)
    named = {field for layer in layers for field in read_extras(layer, DataExtras).class_names}
    types = {field: data.fields[field].classes for field in sorted(named) if data and field in data.fields}
    found = {field: [*name_classes(layers, field, num)] for field, num in types.items() if num}
    return found


def _review_values(data: Data, layers: Sequence[Data]) -> Iterator[Finding]:
    """Looks at a few samples: all the same, dark, of another range or another order of axes than declared."""
    type, num = data.x, min(data.splits.get("train", 0), _SAMPLES)
    if type.classes is not None or is_stream(data):
        return
    if has_channels_last(type.shape):
        shape = "×".join(map(str, type.shape))
        yield Finding("data", f"samples {shape} have their channels last: order them as c h w, `x.permute(0, 3, 1, 2)`")
    if num < 2 or type.range is None:
        return
    values = torch.cat([batch.tensor for batch in read_some(data, num)]).flatten(1)
    from_bytes = any(read_extras(layer, DataExtras).finish for layer in layers)
    if reason := _explain_values(values, type, from_bytes=from_bytes):
        yield Finding("data", f"of {num} samples that were looked at, {reason}")


def _explain_values(values: Tensor, type: TensorType, *, from_bytes: bool) -> str | None:
    """Explains what is odd about the values of samples, `n d`, of a type with a range; None if nothing is."""
    assert type.range is not None
    (low, high), (least, most) = type.range, map(float, values.aminmax())
    if bool((values == values[0]).all()):
        return "all are the same"
    if type.numel > 1 and bool((values == values[:, :1]).all()):
        return "each has one value throughout"
    if low < 0 <= least and not from_bytes:
        hint = f": scale values from [0, 1] by `x * {high - low:g} + ({low:g})`" if most <= 1 else ""
        return f"no value is below 0, where values in [{low:g}, {high:g}] are expected{hint}"
    if (share := (most - low) / (high - low)) < _DARK and len(type.shape) > 1:
        hint = "; grey of 16 bits is divided by 257, so scale up values of fewer bits" if from_bytes else ""
        return f"the largest value is {most:.3g}, {share:.2g} of the range [{low:g}, {high:g}]: all are dark{hint}"
    return None
