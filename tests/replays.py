"""A stand-in for CUDA graphs on the CPU: the operations of a run are recorded, and run anew in the same memory."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["RecordedCapture"]


class RecordedCapture:
    """Captures as `modkit.nn.graphs.CudaCapture` does, and counts. As on a card, values cannot be read meanwhile."""

    def __init__(self) -> None:
        self.captured = 0
        self.replayed = 0

    def __call__(self, run: Any) -> Any:
        """Captures a run."""
        with _Recording() as recording:
            out = run()
        self.captured += 1
        return out, lambda: self._replay(recording.calls)

    def _replay(self, calls: list[Any]) -> None:
        self.replayed += 1
        for func, args, kwargs, kept in calls:
            made = func(*args, **kwargs)
            for old, new in zip(tree_leaves(kept), tree_leaves(made), strict=True):
                if isinstance(old, torch.Tensor) and old is not new:
                    old.copy_(new)


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.data_dependent_output in func.tags:
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
        if not is_view:
            self.calls.append((func, args, kwargs or {}, out))
        return out
