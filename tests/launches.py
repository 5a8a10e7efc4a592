"""What a device is asked to do, counted on the meta device: its kernels, and the copies for which it is waited."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_READS = {"_local_scalar_dense", "_unique2", "equal", "masked_select", "nonzero"}


class Launches(TorchDispatchMode):
    """Counts the kernels on the meta device, by name; views and allocations are none.

    What would wait for a device raises: copies between it and the CPU that block, and values read from it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.copies = 0

    @property
    def num(self) -> int:
        """Number of kernels, copies to the device among them."""
        return self.kernels.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name in _READS and "meta" in _find_devices(args):
            raise AssertionError(f"expected a step that waits for nothing, got {func}")
        if name in ("_to_copy", "copy_"):
            self._check_copy(*_find_ends(name, args, kwargs))
        result = func(*args, **kwargs)
        is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
        if "meta" in _find_devices((result, args)) and not is_view and name not in _ALLOCATIONS:
            self.kernels[name] += 1
        return result

    def _check_copy(self, source: str, target: str, blocks: bool) -> None:
        if source == target:
            return
        if blocks or target == "cpu":
            raise AssertionError(f"expected a step that waits for nothing, got a copy from {source} to {target}")
        self.copies += 1


def _find_ends(name: str, args: Any, kwargs: Any) -> tuple[str, str, bool]:
    """The devices from and to which a copy goes, and whether it blocks."""
    if name == "copy_":
        blocks = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        return args[1].device.type, args[0].device.type, blocks
    target = kwargs.get("device") or args[0].device
    return args[0].device.type, target.type, not kwargs.get("non_blocking", False)


def _find_devices(values: Any) -> set[str]:
    return {value.device.type for value in tree_leaves(values) if isinstance(value, Tensor)}


class _Hidden(torch.autograd.Function):
    """Values of a shape that depend on some tensors, computed by no kernel in either direction."""

    @staticmethod
    def forward(ctx: Any, shape: tuple[int, ...], *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        return given[0].new_empty(shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, *(torch.empty_like(one) for one in ctx.saved_tensors)


class HiddenNetwork(torch.nn.Module):
    """A network, or a discriminator if `out` is None, whose own kernels are not counted."""

    def __init__(self, x: Any, out: Any = None, cond: Any = None) -> None:
        super().__init__()
        self.shape = () if out is None else out.shape
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, cond: Any) -> Tensor:
        """Depends on x, all conditions and a weight."""
        given = cond.list_entries().values()
        result: Tensor = _Hidden.apply((len(x), *self.shape), x, self.weight, *given)
        return result
