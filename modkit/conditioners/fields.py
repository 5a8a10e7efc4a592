"""A field as a conditioner reads it: there when it is built, and of its type when it runs.

Shape letters: b batch, and the field's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modkit.types import TensorType

__all__ = ["Field", "check_drop", "find_field"]


@dataclass(frozen=True)
class Field:
    """One of the data's fields, of which messages say who reads it.

    Args:
        owner: Class of the conditioner.
        name: Name of the field.
        type: Its type.
    """

    owner: str
    name: str
    type: TensorType

    def read(self, fields: Mapping[str, Tensor]) -> Tensor:
        """The field's values, `b ...`.

        Raises:
            ValueError: If it is missing, or has another shape or dtype.
        """
        if self.name not in fields:
            raise ValueError(f"{self.owner} expects field {self.name!r}, got fields {sorted(fields)}")
        values, classes = fields[self.name], self.type.classes
        fits = values.dtype == torch.int64 if classes is not None else values.is_floating_point()
        if not fits or tuple(values.shape[1:]) != self.type.shape or not values.ndim:
            dtype = "floats" if classes is None else "int64"
            shape = f"({', '.join(['b', *map(str, self.type.shape)])}{'' if self.type.shape else ','})"
            raise ValueError(
                f"{self.owner} expects field {self.name!r} as {dtype} of shape {shape}, "
                f"got {values.dtype} {tuple(values.shape)}"
            )
        return values

    def check_range(self, values: Tensor) -> None:
        """Checks that classes are in range.

        Raises:
            ValueError: If one is not.
        """
        classes = self.type.classes
        if classes is not None and values.numel() and not 0 <= int(values.min()) <= int(values.max()) < classes:
            received = f"{int(values.min())}..{int(values.max())}"
            raise ValueError(f"{self.owner} expects {self.name} in [0, {classes}), got {received}")

    def read_checked(self, fields: Mapping[str, Tensor], training: bool) -> Tensor:
        """What `read` gives, its range checked outside training on the CPU: elsewhere that would wait for the device.

        Raises:
            ValueError: If it is missing or not of its type.
        """
        values = self.read(fields)
        if values.device.type == "cpu" and not training:
            self.check_range(values)
        return values


def find_field(owner: nn.Module, fields: Mapping[str, TensorType], name: str) -> Field:
    """The data's field of that name.

    Raises:
        ValueError: If the data has none; it names the class of `owner`.
    """
    kind = type(owner).__name__
    if name not in fields:
        raise ValueError(f"{kind} expects the data's field {name!r}, got fields {sorted(fields)}")
    return Field(kind, name, fields[name])


def check_drop(owner: nn.Module, drop: float) -> None:
    """Checks a probability of dropping conditions.

    Raises:
        ValueError: If it is outside [0, 1]; it names the class of `owner`.
    """
    if not 0 <= drop <= 1:
        raise ValueError(f"{type(owner).__name__} expects drop in [0, 1], got {drop}")
