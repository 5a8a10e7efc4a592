"""A batch: samples with the data"s fields and conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modkit.types.conditions import Cond
from modkit.types.tensor_type import Value

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """Samples, the data's fields, and conditions.

    Args:
        x: The samples; condensed ones (`Model.condense`) are a tuple, even of one tensor.
        fields: The raw fields of the data by name: labels, captions, masks.
        cond: Conditions that an enclosing Model provides.

    Examples:
        >>> import torch
        >>> batch = Batch(torch.zeros(4, 2), {"labels": torch.tensor([0, 1, 2, 3])})
        >>> len(batch), batch.rows(slice(1, 3)).fields["labels"].tolist()
        (4, [1, 2])
    """

    x: Value
    fields: Mapping[str, Tensor]
    cond: Cond = Cond()

    def __len__(self) -> int:
        return len(self.x[0]) if isinstance(self.x, tuple) else len(self.x)

    @property
    def tensor(self) -> Tensor:
        """`x`, if it is a single tensor.

        Raises:
            ValueError: If `x` is a hierarchy.
        """
        if isinstance(self.x, tuple):
            raise ValueError(f"expected one tensor, got a hierarchy of {len(self.x)} levels")
        return self.x

    def rows(self, rows: slice) -> Batch:
        """Returns some of the samples with their fields; `cond` stays as it is."""
        x = tuple(level[rows] for level in self.x) if isinstance(self.x, tuple) else self.x[rows]
        return Batch(x, {name: value[rows] for name, value in self.fields.items()}, self.cond)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Returns the batch with each of its tensors changed by a function."""
        x = tuple(map(change, self.x)) if isinstance(self.x, tuple) else change(self.x)
        return Batch(x, {name: change(value) for name, value in self.fields.items()}, self.cond.map(change))

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch on another device; copies from pinned memory to CUDA do not wait."""
        import torch

        non_blocking = torch.device(device).type == "cuda"
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Returns the batch in pinned memory, but for what is on a device already; torch's loader calls this."""
        return self.map(lambda value: value.pin_memory() if value.device.type == "cpu" else value)
