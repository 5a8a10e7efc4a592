"""A stand-in for devices without float64, such as MPS: the meta device, on which no float64 tensor may arise."""

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
