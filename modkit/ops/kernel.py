"""Kernel: decides whether an op runs its Triton kernel or its reference, and records what ran.

`MODKIT_OPS` chooses:

    auto         the kernel where it can run and is faster (the default); the reference elsewhere
    reference    always the reference
    triton       the kernel for CUDA tensors of any size, and an error where it cannot run

Other devices have no kernels, except where `triton` meets Triton's interpreter (`TRITON_INTERPRET=1`), which computes
kernels on the CPU, for tests. A tangent of forward-mode differentiation would silently be zero behind a custom op, and
`torch.func` may have no rule for one, so both are given the reference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple, TypeVar

import torch
from packaging.version import Version
from torch import Tensor
from torch.autograd import forward_ad

__all__ = [
    "DEVICES",
    "KERNELS",
    "Choice",
    "Kernel",
    "choose",
    "has_triton",
    "is_transformed",
    "list_ran",
    "read_mode",
    "use_device",
]

DEVICES = ("cuda", "cpu") if os.environ.get("TRITON_INTERPRET") == "1" else ("cuda",)
"""The kinds of devices that kernels may run on: asking for others' takes time that small networks on a CPU notice."""

_MODES = ("auto", "reference", "triton")
_FIRST = "3.3"  # Triton's version in which tuples grow
_OLDEST = (8, 0)  # compute capability: Triton compiles for no older card
_TRANSFORMED = "reference: forward-mode differentiation or torch.func"
_F = TypeVar("_F", bound=Callable[..., object])
_ran: dict[str, set[str]] = {}


def _mark_constant(function: _F) -> _F:
    """Does what `torch.compiler.assume_constant_result` does, without the second that importing the compiler takes."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class Choice(NamedTuple):
    """Whether a kernel can run on a device, the smallest size at which it does, and why."""

    kernel: bool
    smallest: int
    reason: str


class Kernel:
    """The Triton kernel of an op.

    Args:
        name: The op's name, unique among all ops.
        size: What the size of a call counts, for messages, as in "values".
        smallest: Size from which the kernel is faster than the reference.
        cards: The same for cards on which it was measured, by a part of their name, as in `{"H100": 2**16}`.

    Examples:
        >>> kernel = Kernel("example", size="values", smallest=2**16)
        >>> kernel.is_due(torch.zeros(2**20), 2**20)
        False
        >>> list_ran()["example"]
        ['reference: tensors on cpu']
        >>> del KERNELS["example"]
    """

    def __init__(self, name: str, *, size: str, smallest: int, cards: Mapping[str, int] | None = None) -> None:
        self.name, self.size, self.smallest, self.cards = name, size, smallest, dict(cards or {})
        KERNELS[name] = self

    def is_due(self, x: Tensor, size: int) -> bool:
        """Returns whether a call on tensors beside `x` runs the kernel, and records it.

        Args:
            x: A tensor of the call; all are on its device.
            size: The size of the call.

        Raises:
            ValueError: If `MODKIT_OPS` has no valid value, or is `triton` and the kernel cannot run.
        """
        if is_transformed():
            kernel, reason = False, _TRANSFORMED
        else:
            kernel, smallest, reason = choose(self.name, x.device)
            if kernel and size < smallest:
                kernel, reason = False, f"reference: fewer than {smallest} {self.size}"
        _record(self.name, reason)
        return kernel


KERNELS: dict[str, Kernel] = {}
"""The kernels of all ops that were imported, by name."""


def read_mode() -> str:
    """Reads `MODKIT_OPS`.

    Raises:
        ValueError: If it is none of `auto`, `reference` and `triton`.
    """
    mode = os.environ.get("MODKIT_OPS") or "auto"
    if mode not in _MODES:
        raise ValueError(f"MODKIT_OPS expects one of {', '.join(_MODES)}, got {mode!r}")
    return mode


@_mark_constant
def choose(name: str, device: torch.device) -> Choice:
    """Chooses between the kernel of an op and its reference, for all calls on a device.

    Raises:
        ValueError: If `MODKIT_OPS` has no valid value, or is `triton` and the kernel cannot run.
    """
    return _choose(name, device, read_mode(), has_triton(device))


def has_triton(device: torch.device) -> bool:
    """Returns whether Triton's kernels run on a device: a card, or the CPU where `triton` interprets them."""
    if device.type == "cuda":
        return _find_obstacle(device) is None
    return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1" and read_mode() == "triton"


def is_transformed() -> bool:
    """Returns whether a call is differentiated forward or transformed by `torch.func`, which few kernels know.

    Examples:
        >>> is_transformed(), torch.func.grad(lambda x: x * is_transformed())(torch.ones(())).item()
        (False, 1.0)
    """
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def use_device(x: Tensor) -> AbstractContextManager[object]:
    """Makes the card of a tensor the current one within the context, for Triton launches there; does nothing on a CPU.

    Examples:
        >>> with use_device(torch.zeros(1)):
        ...     pass
    """
    return torch.cuda.device_of(x)


def list_ran() -> dict[str, list[str]]:
    """Lists what has run in this process, by the name of the op: its kernel, its reference and why, or both."""
    return {name: sorted(_ran[name]) for name in sorted(_ran)}


@cache
def _choose(name: str, device: torch.device, mode: str, able: bool) -> Choice:
    if mode == "reference":
        return Choice(False, 0, "reference: MODKIT_OPS=reference")
    if not able:
        obstacle = _find_obstacle(device) if device.type == "cuda" else f"tensors on {device.type}"
        if mode == "triton" and device.type == "cuda":
            raise ValueError(
                f"MODKIT_OPS=triton expects the kernel of {name} to run on {device}, but {obstacle}; "
                "MODKIT_OPS=auto runs the reference instead"
            )
        return Choice(False, 0, f"reference: {obstacle}")
    if mode == "triton":
        return Choice(True, 0, "triton: MODKIT_OPS=triton")
    kernel, card = KERNELS[name], torch.cuda.get_device_name(device)
    smallest = next((size for part, size in kernel.cards.items() if part in card), kernel.smallest)
    return Choice(True, smallest, "triton")


def _find_version() -> str | None:
    if find_spec("triton") is None:
        return None
    import triton

    return str(triton.__version__)


@cache
def _find_obstacle(device: torch.device) -> str | None:
    """Finds what keeps Triton from a card."""
    if (version := _find_version()) is None:
        return "Triton is not installed"
    if Version(version) < Version(_FIRST):
        return f"Triton {version} is installed, and kernels need {_FIRST}"
    if torch.version.hip:
        return "kernels are written for NVIDIA's cards"
    if (found := torch.cuda.get_device_capability(device)) < _OLDEST:
        return f"the card's compute capability is {found[0]}.{found[1]}, below {_OLDEST[0]}.{_OLDEST[1]}"
    return None


@_mark_constant
def _record(name: str, what: str) -> None:
    """Records what a call runs, in compiled code when it is compiled."""
    _ran.setdefault(name, set()).add(what)
