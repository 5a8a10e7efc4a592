"""Labels: how many samples of each class a data set has, and what is odd about these numbers.

Shape letters: k classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from modkit.kinds import Data, DataExtras, Finding, read_extras
from modkit.types import TensorType

__all__ = ["add_splits", "count_labels", "list_names", "name_classes", "review_labels"]

_MOST = 2**24  # samples whose labels are counted
_BLOCK = 2**16
_LISTED = 10  # classes that a line lists


def count_labels(data: Data, layers: Sequence[Data]) -> dict[str, dict[str, Tensor]]:
    """Counts the samples of each class, `k`, by field and split, if fields can be read without samples.

    Args:
        data: The data set.
        layers: It and the data sets that it is made of.

    Examples:
        >>> from modkit.data import Digits
        >>> data = Digits(size=8)
        >>> count_labels(data, [data])["labels"]["test"].sum()
        tensor(360)
    """
    read = read_extras(data, DataExtras).read_fields
    apart = all(read_extras(layer, DataExtras).read_fields for layer in layers)
    types = {name: type.classes or 0 for name, type in data.fields.items() if _is_class(type)}
    if read is None or not apart or not types or sum(data.splits.values()) > _MOST:
        return {}
    counts = {name: {split: torch.zeros(num, dtype=torch.long) for split in data.splits} for name, num in types.items()}
    for split, size in data.splits.items():
        for start in range(0, size, _BLOCK):
            fields = read(split, range(start, min(start + _BLOCK, size)))
            for name, num in types.items():
                counts[name][split] += torch.bincount(fields[name], minlength=num)
    return counts


def add_splits(counts: Mapping[str, Tensor]) -> list[int]:
    """Adds the numbers of samples of each class, `k`, in all splits.

    Examples:
        >>> add_splits({"train": torch.tensor([3, 1]), "test": torch.tensor([1, 0])})
        [4, 1]
    """
    return torch.stack(list(counts.values())).sum(0).tolist()


def name_classes(layers: Sequence[Data], field: str, num: int) -> Sequence[str]:
    """Returns the names of the classes of a field: those that a data set gives, or their numbers.

    Examples:
        >>> from modkit.data import Digits
        >>> list(name_classes([Digits(size=8)], "labels", 2))
        ['0', '1']
    """
    given = (read_extras(layer, DataExtras).class_names.get(field, ()) for layer in layers)
    return next((names for names in given if len(names) == num), [str(number) for number in range(num)])


def list_names(names: Sequence[str], counts: Sequence[int] | None = None) -> str:
    """Lists names, with the number of samples of each; of more than ten the first three.

    Examples:
        >>> list_names(["cat", "dog"], [3, 1]), list_names([str(n) for n in range(12)])
        ('cat (3), dog (1)', '0, 1, 2 and 9 more')
    """
    shown = names if len(names) <= _LISTED else names[:3]
    listed = ", ".join(shown if counts is None else (f"{name} ({num:,})" for name, num in zip(shown, counts)))
    return listed if len(shown) == len(names) else f"{listed} and {len(names) - len(shown):,} more"


def review_labels(names: Sequence[str], counts: Mapping[str, Tensor], *, path: str = "") -> Iterator[Finding]:
    """Finds classes with one training sample or none, and numbers that are no class.

    Args:
        names: Names of the classes.
        counts: Number of samples of each class by split, `k`.
        path: The path of the labels, relative to the data set.

    Examples:
        >>> for finding in review_labels(["0", "1", "2"], {"train": torch.tensor([0, 4, 1])}):
        ...     print(finding.message)
        no sample has the label 0: labels are numbers from 0; subtract 1
        classes with one sample: 2
    """
    total = torch.tensor(add_splits(counts))
    unused = (total == 0).nonzero()[:, 0].tolist()
    if unused == [0]:
        yield Finding(path, "no sample has the label 0: labels are numbers from 0; subtract 1")
    elif unused:
        yield Finding(
            path,
            f"only {len(names) - len(unused):,} of {len(names):,} classes have samples, none has the label "
            f"{list_names([names[one] for one in unused])}: labels are numbers from 0 to the largest without gaps",
        )
    if len(names) - len(unused) == 1:
        yield Finding(path, "all samples are of one class")
    for least, said in ((1, "one sample"), (0, "samples for testing only")):
        found = (total == 1) if least else (total > 1) & (counts["train"] == 0)
        if few := [names[one] for one in found.nonzero()[:, 0].tolist()]:
            yield Finding(path, f"classes with {said}: {list_names(few)}")


def _is_class(type: TensorType) -> bool:
    """Whether a field is one class of each sample, rather than codes or tokens."""
    return not type.shape and type.classes is not None and type.classes <= _MOST
