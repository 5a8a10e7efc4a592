"""The device of a process, by its name in a spec."""

from __future__ import annotations

import torch

from modkit.errors import Problem, SpecError

__all__ = ["find_device", "read_device"]


def find_device(name: str, rank: int = 0) -> torch.device:
    """Finds a device.

    Args:
        name: Its name; `auto` is CUDA if available, otherwise the CPU. CUDA without an index is the device number
            `rank`.
        rank: Number of the process on this machine.

    Raises:
        SpecError: If the device is unknown, not available, or does not compute.

    Examples:
        >>> find_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = read_device(name)
    try:
        if device.type == "cuda" and device.index is None and rank:
            device = torch.device("cuda", rank)
        device = torch.empty(0, device=device).device  # with its index, which torch.cuda.set_device demands
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise SpecError(Problem("train.device", f"expects an available device, got {name!r}: {error}")) from error
    return device


def read_device(name: str) -> torch.device:
    """Reads the name of a device, which need not be available here.

    Raises:
        SpecError: If torch does not know it, or it does not compute.

    Examples:
        >>> read_device("cuda:1")
        device(type='cuda', index=1)
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SpecError(Problem("train.device", f"expects an available device, got {name!r}: {error}")) from error
    if device.type == "meta":
        reason = "expects a device that computes, got 'meta', whose tensors have no values"
        raise SpecError(Problem("train.device", reason))
    return device
