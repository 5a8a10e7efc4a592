"""Fields as conditioners read them: checked to exist when a part is built, and to have their type when it runs.

Shape letters: b batch, and the field's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modkit.types import TensorType

__all__ = ["Field", "find_field"]


@dataclass(frozen=True)
class Field:
    """One of the data's fields, as read by a conditioner.

    Args:
        owner: Class of the conditioner, for error messages.
        name: Name of the field.
        type: Its type.
    """

    owner: str
    name: str
    type: TensorType

    def read(self, fields: Mapping[str, Tensor]) -> Tensor:
        """Returns the field's values, `b ...`.

        Raises:
            ValueError: If the field is missing, or has another shape or dtype.
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
            ValueError: If one is out of range.
        """
        classes = self.type.classes
        if classes is not None and values.numel() and not 0 <= int(values.min()) <= int(values.max()) < classes:
            received = f"{int(values.min())}..{int(values.max())}"
            raise ValueError(f"{self.owner} expects {self.name} in [0, {classes}), got {received}")

    def read_checked(self, fields: Mapping[str, Tensor], training: bool) -> Tensor:
        """Returns the field's values and, outside training on the CPU, checks their range.

        On other devices the check would have to wait for the device.

        Raises:
            ValueError: If the field is missing or has another type, or if a checked value is out of range.
        """
        values = self.read(fields)
        if values.device.type == "cpu" and not training:
            self.check_range(values)
        return values


def find_field(owner: nn.Module, fields: Mapping[str, TensorType], name: str) -> Field:
    """Finds the data's field of that name.

    Raises:
        ValueError: If the data has no such field. The message names the class of `owner`.
    """
    kind = type(owner).__name__
    if name not in fields:
        raise ValueError(f"{kind} expects the data's field {name!r}, got fields {sorted(fields)}")
    return Field(kind, name, fields[name])
