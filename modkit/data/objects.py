"""Data sets given as Python objects: tensors or arrays, a torch Dataset, the DataLoader around one, or a mapping of
splits to these.

Training reads a `Data` part, which reads the samples at given indices in any process; an IterableDataset is read as a
stream. Of a DataLoader only its Dataset is used; training sets the order, the batches and the workers.

    {"x": x, "labels": y}   (x, {"labels": y})   (x, y)   {"image": x, "label": y}

An item, or a whole data set, may have any of these forms. A mapping's sample is `x`, or the first key that is no field;
a field may be called by its singular. A tuple has the sample and then the fields in their order. The rest is not read.

Continuous values are read as float32 and classes as int64; other floats and integers are converted. Integers in place
of continuous values, such as pixels 0..255, are refused, since nothing tells how they are scaled. So are values that
are not finite, outside the range of their type by more than rounding, or of no class.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from modkit.data.bounds import find_bounds
from modkit.data.splits import check_split, hash_contents
from modkit.data.streamed import Streamed
from modkit.kinds import Data
from modkit.rng import Rng
from modkit.types import Batch, Event, TensorType

__all__ = ["Indexed", "Splits", "Tensors", "as_data"]

_ROUNDING = 1e-3  # of a range: what values scaled in 16 bits may exceed it by
_HASHED = 1024  # samples of a Dataset in its key: it may be large, and each may take milliseconds to read


def as_data(data: Any, x: Event, fields: Mapping[str, TensorType]) -> Data:
    """Returns an object as a data part.

    Args:
        data: A data part; a tensor or array `b …`, a pair of one and a mapping of fields, or a mapping of both; a torch
            Dataset or IterableDataset of such items, or a DataLoader of one; or a mapping of `train`, and other splits
            as `test`, to these.
        x: The type of one sample that the model was composed for.
        fields: The types of its fields.

    Raises:
        ValueError: If it is none of these, or its samples or fields have other types or values out of range.

    Examples:
        >>> import torch
        >>> from modkit import TensorType
        >>> as_data(torch.zeros(6, 2), TensorType((2,)), {}).splits
        {'train': 6}
    """
    if not isinstance(x, TensorType):
        raise ValueError(f"`data` must be for a model of single tensors, got a model of a hierarchy of {len(x)} levels")
    if isinstance(data, DataLoader):
        data = data.dataset
    named = _name_columns(data, fields) if isinstance(data, Tensor | np.ndarray | tuple | Mapping) else {}
    if isinstance(data, Mapping) and "train" in data:
        made: Data = Splits({split: as_data(one, x, fields) for split, one in data.items()})
    elif isinstance(named.get("x"), Tensor | np.ndarray):
        made = Tensors(named.pop("x"), named, x=x, fields=fields)
    elif isinstance(data, IterableDataset):
        made = Streamed(data, partial(_convert_item, x, fields), x=x, fields=fields)
    elif isinstance(data, Dataset) and not hasattr(data, "__len__"):
        raise ValueError(f"`data` must have a length, got {type(data).__name__} without `__len__`")
    elif isinstance(data, Dataset):
        made = Indexed(data, x=x, fields=fields)
    elif all(hasattr(data, member) for member in ("x", "fields", "splits", "key", "read")):
        made = data
    else:
        expected = (
            "a data part, a tensor, an array, a pair or a mapping of one and its fields, a torch Dataset, a DataLoader "
            "or a mapping of `train` and other splits to these"
        )
        raise ValueError(f"`data` must be {expected}, got {type(data).__name__}")
    missing = {name: type for name, type in fields.items() if made.fields.get(name) != type}
    if made.x != x or missing:
        wanted = "; ".join([f"samples of {x}", *(f"{name} of {type}" for name, type in missing.items())])
        found = "; ".join([f"samples of {made.x}", *(f"{name} of {type}" for name, type in made.fields.items())])
        raise ValueError(f"the model was composed for {wanted}; got data with {found}")
    return made


class Splits:
    """Data sets of one type as the splits of one: each is read in its split `train`.

    Args:
        parts: The data sets by split, `train` among them.
    """

    def __init__(self, parts: Mapping[str, Data]) -> None:
        self._parts = parts
        self.x, self.fields = parts["train"].x, parts["train"].fields
        self.splits = {split: part.splits["train"] for split, part in parts.items()}
        self.levels: int | None = None

    @property
    def key(self) -> str:
        """Hash of the splits and their data."""
        return hash_contents("splits", *(one for split, part in self._parts.items() for one in (split, part.key)))

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`, `b …`.

        Raises:
            ValueError: If there is no such split.
        """
        check_split(self, split)
        return self._parts[split].read("train", indices, rng)


class Tensors:
    """Samples and fields given as tensors or arrays, all in the split `train`.

    Args:
        samples: The samples, `b …`.
        values: Their fields by name, each with one row per sample.
        x: The type of one sample.
        fields: The types of the fields.

    Raises:
        ValueError: If a shape or a number of rows does not match, or values are no tensors, or out of range, or
            integers in place of continuous ones or the other way round.
    """

    def __init__(
        self,
        samples: Tensor | np.ndarray[Any, Any],
        values: Mapping[str, Tensor | np.ndarray[Any, Any]],
        *,
        x: TensorType,
        fields: Mapping[str, TensorType],
    ) -> None:
        made: dict[str, Tensor] = {}
        for name, value, type in [("samples", samples, x), *((n, values.get(n), t) for n, t in fields.items())]:
            expected = f"Tensors expects {name} with {len(samples)} rows of {type}"
            if value is None:
                raise ValueError(f"{expected}, got nothing")
            tensor = _read_tensor(value, expected, "give a tensor or an array")
            if tuple(tensor.shape) != (len(samples), *type.shape):
                got, last = tuple(tensor.shape[1:]), (*type.shape[1:], *type.shape[:1])
                advice = (
                    "; give `x.permute(0, 3, 1, 2)`, its channels come last" if got == last and len(got) == 3 else ""
                )
                raise ValueError(f"{expected}, got a tensor {'×'.join(map(str, tensor.shape))}{advice}")
            made[name] = _convert(tensor, type, f"Tensors expects {name}")
        self.x, self.fields = x, dict(fields)
        self.splits = {"train": len(samples)}
        self.levels: int | None = None
        self._samples, self._values = made.pop("samples"), made

    @property
    def key(self) -> str:
        """Hash of the samples and fields."""
        tensors = [self._samples, *self._values.values()]
        return hash_contents("tensors", *(tensor.contiguous().numpy().tobytes() for tensor in tensors))

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`, `b …`.

        Raises:
            ValueError: If there is no such split.
        """
        check_split(self, split)
        rows = torch.as_tensor(indices, dtype=torch.long)
        values = {name: value.index_select(0, rows) for name, value in self._values.items()}
        return Batch(self._samples.index_select(0, rows), values)


class Indexed:
    """A torch Dataset as the single split `train`.

    A Dataset that augments its samples draws from torch's global generator, which is seeded for each sample. So reading
    a sample again, in another process or after resuming, gives the same values.

    Args:
        dataset: The Dataset; it has a length, and `dataset[i]` is a tensor, a tuple or a mapping.
        x: The type of one sample.
        fields: The types of the fields.

    Raises:
        ValueError: If its first item has another form, shape or kind of values, or one out of range.
    """

    def __init__(self, dataset: Dataset[Any], *, x: TensorType, fields: Mapping[str, TensorType]) -> None:
        self.x, self.fields = x, dict(fields)
        self.splits = {"train": len(dataset)}  # type: ignore[arg-type]
        self.levels: int | None = None
        self._dataset = dataset
        if self.splits["train"]:
            _convert_item(x, fields, 0, dataset[0])

    @cached_property
    def key(self) -> str:
        """Hash of the Dataset's class, its length and at most 1,024 evenly spaced samples with their fields."""
        size, kind = self.splits["train"], type(self._dataset)
        taken = min(size, _HASHED)
        batches = (self.read("train", [index * size // taken], Rng(0, "key")) for index in range(taken))
        values = (value for batch in batches for value in (batch.tensor, *batch.fields.values()))
        pieces = (value.contiguous().numpy().tobytes() for value in values)
        return hash_contents("indexed", f"{kind.__module__}.{kind.__qualname__}", size, *pieces)

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`, `b …`.

        Raises:
            ValueError: If there is no such split, or a sample has another form, shape or kind of values, or one out of
                range.
        """
        check_split(self, split)
        items = []
        for index in indices:
            with rng.at(int(index)).seed_torch():
                items.append(_convert_item(self.x, self.fields, int(index), self._dataset[index]))
        columns = {name: torch.stack([item[name] for item in items]) for name in ("x", *self.fields)}
        return Batch(columns.pop("x"), columns)


def _name_columns(item: Any, fields: Mapping[str, TensorType]) -> dict[str, Any]:
    """Names what an item, or a whole data set, holds: the sample `x`, and the fields that are there."""
    if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[1], Mapping):
        item = {"x": item[0], **item[1]}
    if not isinstance(item, Mapping):
        return dict(zip(("x", *fields), item if isinstance(item, tuple | list) else (item,)))
    keys = {name: name if name in item else name.removesuffix("s") for name in fields}
    sample = next((key for key in ("x", *item) if key in item and key not in keys.values()), None)
    keys = {name: key for name, key in keys.items() if key in item} | ({} if sample is None else {"x": sample})
    return {name: item[key] for name, key in keys.items()}


def _convert_item(x: TensorType, fields: Mapping[str, TensorType], index: int, item: Any) -> dict[str, Tensor]:
    """Converts an item of a Dataset to tensors by name: `x` and the fields."""
    named, found = _name_columns(item, fields), {}
    for name, type in {"x": x, **fields}.items():
        expected = f"Indexed expects `{name}` of {type} in item {index}"
        if name not in named:
            raise ValueError(f"{expected}, got nothing")
        advice = "have the Dataset return a tensor, as torchvision's `ToTensor()` makes of pictures"
        value = _read_tensor(named[name], expected, advice)
        if tuple(value.shape) != type.shape:
            raise ValueError(f"{expected}, got a tensor {'×'.join(map(str, value.shape))}")
        found[name] = _convert(value, type, f"Indexed expects `{name}` in item {index}")
    return found


def _read_tensor(value: Any, expected: str, advice: str) -> Tensor:
    """Reads what torch can make a tensor of, without a copy where there need be none."""
    try:
        if isinstance(value, np.ndarray):  # torch takes no negative strides, and warns of arrays that are read-only
            value = np.require(value, requirements=("C", "W"))
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{expected}, got a value of {value.__class__.__name__}; {advice}") from error


def _convert(values: Tensor, type: TensorType, expected: str) -> Tensor:
    """Converts values to float32, those of classes to int64, on the CPU; the message of a refusal starts as given."""
    received = str(values.dtype).removeprefix("torch.")
    if type.classes is None and not values.is_floating_point():
        advice = "convert it with `x.float()`"
        if type.range:
            low, high = type.range
            advice = f"scale it to the range: pixels 0..255 by `x / 255 * {high - low:g} + ({low:g})`"
        raise ValueError(f"{expected} as floats, got {received}; {advice}")
    if type.classes is not None and (values.is_floating_point() or values.is_complex()):
        raise ValueError(
            f"{expected} as integers from 0 to {type.classes - 1}, got {received}; convert it with `x.long()`"
        )
    converted = values.detach().to("cpu", torch.float32 if type.classes is None else torch.int64)
    _check_values(converted, type, expected)
    return converted


def _check_values(values: Tensor, type: TensorType, expected: str) -> None:
    """Refuses values that are not finite, or out of range."""
    low, high = find_bounds(type)
    slack = _ROUNDING * (high - low) if type.range else 0.0
    least, most = map(float, values.aminmax()) if values.numel() else (low, low)
    if not low - slack <= least <= most <= high + slack:
        wanted = f"in [{low:g}, {high:g}]" if type.classes or type.range else "that are finite"
        raise ValueError(f"{expected} with values {wanted}, got {least:g} to {most:g}")
