"""Operations: the FLOPs of a computation, and the operators that they leave out.

torch's counter covers products and convolutions, and counts a multiplication and an addition as 2. It covers neither
the CPU's fused attention nor operators inside compiled code, so attention is decomposed into products and nothing runs
compiled. Pointwise arithmetic is never counted; other operators that compute values and have no formula are named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, register_flop_formula
from torch.utils.module_tracker import ModuleTracker

from modkit.nn.compiled import run_uncompiled
from modkit.ops import fir as fir

__all__ = ["Operations", "count_operations"]

_OWN = ("aten", "prim")
_MOVES = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense _to_copy _unsafe_index _unsafe_view cat constant_pad_nd copy_ embedding fill_ flip gather "
        "index index_select masked_select new_empty new_empty_strided new_full new_ones new_zeros repeat resize_ roll "
        "slice_scatter stack take upsample_nearest1d upsample_nearest2d upsample_nearest3d zero_"
    ).split()
)
"""Operators that allocate, move or copy values without computing any."""


class Operations(NamedTuple):
    """The operations of a computation."""

    flops: int  # floating-point operations of all operators that have a formula
    uncounted: tuple[str, ...]  # sorted names of the operators that compute values and have no formula
    custom: tuple[str, ...]  # sorted names of the operators that torch does not define


def count_operations(work: Callable[[], object]) -> Operations:
    """Runs `work` and counts its operations.

    Examples:
        >>> count_operations(lambda: torch.ones(2, 3) @ torch.ones(3, 4)).flops
        48
    """
    seen = _Seen()
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Untracked()
    with run_uncompiled(), sdpa_kernel(SDPBackend.MATH):
        with seen, counter:  # in this order `seen` sees what the counter decomposes
            work()
    uncounted = sorted({_name(one) for one in seen.operators if _is_uncounted(one)})
    custom = sorted({_name(one) for one in seen.operators if one.namespace not in _OWN})
    return Operations(counter.get_total_flops(), tuple(uncounted), tuple(custom))


class _Untracked(ModuleTracker):
    """Tracks no modules, for only the total is read.

    torch's tracker fails on a module that is given a parameter's view, such as a learned start of a batch's size. Where
    gradients are off, such a view says that it requires them, but has no function whose backward pass can be tracked.
    """

    def __enter__(self) -> ModuleTracker:
        return self

    def __exit__(self, *_: object) -> None:
        """Removes nothing, for there are no hooks."""


class _Seen(TorchDispatchMode):
    """Records every operator that runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: set[Any] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.operators.add(func)
        return func(*args, **(kwargs or {}))


def _name(operator: Any) -> str:
    return str(operator._schema.name)


def _is_uncounted(operator: Any) -> bool:
    if operator._overloadpacket in flop_registry:
        return False
    if operator.namespace not in _OWN:
        return True
    makes = not any("Tensor" in str(argument.type) for argument in operator._schema.arguments)
    copies = operator.is_view or makes or _name(operator) in _MOVES or _name(operator).endswith("_like")
    return not copies and torch.Tag.pointwise not in operator.tags


@register_flop_formula(torch.ops.modkit.fir)
def _count_fir(x: Any, taps: Any, stride: int, padding: int, size: Any, transposed: bool, **_: Any) -> int:
    """Counts what torch counts for the convolution that computes the same."""
    num = math.prod(x if transposed else (*x[:2], *size))
    return int(2 * num * taps[0] ** len(size))
