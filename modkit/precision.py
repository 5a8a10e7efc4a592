"""Precision: in what losses and samples are computed, and at least float32 where narrower types are too coarse.

    float32   products in float32, on GPUs too
    tf32      products of float32 by tensor cores, with 10 bits of mantissa in place of 23; only on NVIDIA GPUs
    bf16      torch's autocast to bfloat16: products in 8 bits of mantissa, with the range of float32
    fp16      torch's autocast to float16: products in 11 bits of mantissa, of values up to 65,504

Weights, optimizers' states and averages are float32 in all of them; what has to be exact (sums over many elements,
exponentials, distances, penalties on gradients) is computed in float32 at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Lock
from typing import Any, get_args

import torch
from torch import Tensor, nn

from modkit.types import Precision

__all__ = [
    "AUTOCAST",
    "check_precision",
    "disable_autocast",
    "find_widest",
    "use_precision",
    "use_tf32",
    "widen",
    "widen_fully",
]

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions that cast products to a narrower type, and the type."""

_AMPERE = (8, 0)  # the first generation of GPUs with TF32
_WITHOUT_FLOAT64 = {"mps"}


def check_precision(precision: str, device: torch.device, model: nn.Module) -> None:
    """Refuses a precision that a device or a model cannot compute in.

    Args:
        precision: Name of the precision.
        device: The device.
        model: The model.

    Raises:
        ValueError: If it is unknown, the device does not have it, or weights are float64, which no precision narrows.

    Examples:
        >>> check_precision("fp16", torch.device("cpu"), nn.Linear(1, 1))
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision expects one of {', '.join(get_args(Precision))}, got {precision!r}")
    if precision == "float32":
        return
    if any(parameter.dtype == torch.float64 for parameter in model.parameters()):
        raise ValueError(
            f"precision {precision} expects weights of float32, got float64, which are computed in float64: leave the "
            "precision at float32, or convert the model by `.float()`"
        )
    old = torch.cuda.is_available() and device.type == "cuda" and torch.cuda.get_device_capability(device) < _AMPERE
    if precision == "tf32" and (device.type != "cuda" or old):
        raise ValueError(
            "precision tf32 expects an NVIDIA GPU of the Ampere generation or later, whose tensor cores compute in it, "
            f"got {device.type}: choose float32"
        )
    if precision in AUTOCAST and not torch.amp.is_autocast_available(device.type):
        raise ValueError(f"precision {precision} expects a device with autocast, got {device.type}: choose float32")


@contextmanager
def use_precision(device: torch.device, precision: str) -> Iterator[None]:
    """Computes in a precision within the context; the backward pass of what is computed needs `use_tf32` too.

    Args:
        device: The device that is computed on.
        precision: Name of the precision.

    Examples:
        >>> with use_precision(torch.device("cpu"), "bf16"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    dtype = AUTOCAST.get(precision)
    casts = torch.autocast(device.type, dtype) if dtype else disable_autocast(device)
    with use_tf32(device, precision == "tf32"), casts:
        yield


@contextmanager
def use_tf32(device: torch.device, allowed: bool) -> Iterator[None]:
    """Lets products of float32 be computed in TF32, or not, within the context; torch's settings are restored.

    The settings are those of all threads: of several contexts, the one entered last decides, and the last to leave
    restores what was set before the first.

    Args:
        device: The device that is computed on; only CUDA has TF32.
        allowed: Whether they may be.

    Examples:
        >>> with use_tf32(torch.device("cuda"), True):
        ...     torch.get_float32_matmul_precision()
        'high'
        >>> torch.get_float32_matmul_precision()
        'highest'
    """
    if device.type != "cuda":
        yield
        return
    mine = _TF32.hold(allowed)
    try:
        yield
    finally:
        _TF32.release(mine)


def disable_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context in which nothing is cast to narrower types.

    Examples:
        >>> with torch.autocast("cpu", torch.bfloat16), disable_autocast(torch.device("cpu")):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.float32
    """
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def widen(value: Tensor) -> Tensor:
    """Converts `value` to float32 if its dtype is narrower; float64 stays float64.

    Examples:
        >>> widen(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return value.to(torch.promote_types(value.dtype, torch.float32))


def find_widest(device: torch.device) -> torch.dtype:
    """The widest type that a device has: float64, or float32 on those without it.

    Examples:
        >>> find_widest(torch.device("cpu")), find_widest(torch.device("mps"))
        (torch.float64, torch.float32)
    """
    return torch.float32 if device.type in _WITHOUT_FLOAT64 else torch.float64


def widen_fully(value: Tensor) -> Tensor:
    """Converts `value` to the widest type of its device.

    Examples:
        >>> widen_fully(torch.zeros(2)).dtype
        torch.float64
    """
    return value.to(find_widest(value.device))


class _Tf32:
    """Torch's settings of TF32, held by contexts in any threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside: dict[object, bool] = {}  # in the order in which they were entered
        self._restore: Callable[[], None] = lambda: None

    def hold(self, allowed: bool) -> object:
        mine = object()
        with self._lock:
            if not self._inside:
                self._restore = _keep_tf32()
            self._inside[mine] = allowed
            self._set(allowed)
        return mine

    def release(self, mine: object) -> None:
        with self._lock:
            del self._inside[mine]
            if self._inside:
                self._set(list(self._inside.values())[-1])
            else:
                self._restore()

    def _set(self, allowed: bool) -> None:
        _set_tf32("high" if allowed else "highest", allowed)


_TF32 = _Tf32()


def _keep_tf32() -> Callable[[], None]:
    """Returns a function that restores torch's present settings."""
    try:
        products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # they were set one by one by newer torch's `fp32_precision`, which this cannot read
        backends: Any = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)  # type: ignore[attr-defined]
        kept = [(backend, backend.fp32_precision) for backend in backends]
        return partial(_set_each, kept)
    return partial(_set_tf32, products, convolutions)


def _set_tf32(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


def _set_each(kept: Sequence[tuple[Any, str]]) -> None:
    for backend, value in kept:
        backend.fp32_precision = value
