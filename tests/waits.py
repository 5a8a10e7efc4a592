"""Where a computation waits for a device, for which meta tensors stand, seen in torch's dispatcher.

On CUDA a launch returns at once, unless the host asks for a value or copies without `non_blocking`: then it waits for
all that was launched before.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Waits", "find_place"]

_ROOT = Path(__file__).parents[1]
_ELSEWHERE = (__file__, "site-packages")
_DATA_DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_MADE = {torch.tensor, torch.as_tensor, torch.asarray}


class Waits(TorchDispatchMode):
    """Collects where the host waits for the device, as `file:function: operation`.

    It waits in what reads values (`item`, `nonzero`, a mask as an index), in a copy to the device without
    `non_blocking`, and in any copy from it. Tensors of the host's own may be read.

    Args:
        device: The type of the device.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.found: list[str] = []
        self._device = device
        self._made = _Made(self._note, device)

    def __enter__(self) -> Waits:
        self._made.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._made.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._reads(func, args, kwargs) or self._copies(func, args, kwargs):
            self._note(str(func))  # before it is run, which meta tensors may refuse
        return func(*args, **kwargs)

    def _reads(self, func: Any, args: Any, kwargs: Any) -> bool:
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor) and self._is_on(one)]
        if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_):
            return any(one.dtype == torch.bool for one in args[1] if one is not None)
        return bool(given) and bool(_DATA_DEPENDENT & set(func.tags))

    def _copies(self, func: Any, args: Any, kwargs: Any) -> bool:
        if func is torch.ops.aten._to_copy.default:
            source, target = args[0].device.type, (kwargs.get("device") or args[0].device).type
        elif func is torch.ops.aten.copy_.default:
            source, target = args[1].device.type, args[0].device.type
        else:
            return False
        free = target == self._device and (kwargs.get("non_blocking") or len(args) > 2 and args[2])
        return source != target and not free

    def _is_on(self, tensor: Tensor) -> bool:
        return tensor.device.type == self._device

    def _note(self, what: str) -> None:
        self.found.append(f"{find_place()}: {what}")


def find_place(*elsewhere: str) -> str:
    """The innermost function on the stack, as `file:function`, of those in this repository but not in some files."""
    frames = [one for one in traceback.extract_stack() if one.filename.startswith(str(_ROOT))]
    own = [one for one in frames if not any(part in one.filename for part in (*_ELSEWHERE, *elsewhere))]
    return f"{Path(own[-1].filename).relative_to(_ROOT)}:{own[-1].name}" if own else "outside"


class _Made(TorchFunctionMode):
    """Notes tensors that are made on the device from values of the host, in which no copy can be seen."""

    def __init__(self, note: Callable[[str], None], device: str) -> None:
        super().__init__()
        self._note, self._device = note, device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _MADE and out.device.type == self._device and not isinstance(args[0], Tensor):
            self._note(f"torch.{func.__name__} on the device")
        return out
