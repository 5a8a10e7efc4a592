"""Stand-ins for devices without float64, such as MPS: the meta device, on which no float64 tensor may arise, and
tensors that have values, of which float64 may be computed only once they are on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NoFloat64(TorchDispatchMode):
    """Raises where an operation returns float64 on a device other than the CPU, and counts the tensors on these."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.device.type != "cpu":
                self.elsewhere += 1
                if value.dtype == torch.float64:
                    raise TypeError(f"{func} returns float64 on {value.device}")
        return result


class Narrow(torch.Tensor):
    """Raises where float64 is computed of it; its copy on the CPU is a plain tensor."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        result = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(result, Narrow) and result.dtype == torch.float64:
            raise TypeError(f"{func} returns float64")
        return result
