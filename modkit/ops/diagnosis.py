"""The diagnosis of ops: what each would run on this machine, and why."""

from __future__ import annotations

import torch

from modkit.ops import fir, group_norm, nearest, noise
from modkit.ops.kernel import KERNELS, choose

__all__ = ["diagnose_ops"]

_OPS = (fir, group_norm, nearest, noise)
"""Modules of ops, whose import lists their kernels."""


def diagnose_ops() -> list[dict[str, str]]:
    """Lists each op with the device that training would use, what runs there (`triton` or `reference`), and why.

    Raises:
        ValueError: If `MODKIT_OPS` has no valid value, or is `triton` and the kernel cannot run.

    Examples:
        >>> [row["op"] for row in diagnose_ops()]
        ['fir', 'group-norm-silu', 'nearest', 'noise']
    """
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    rows = []
    for name in sorted(KERNELS):
        kernel, smallest, reason = choose(name, device)
        runs, _, why = reason.partition(": ")
        if kernel and smallest:
            why = f"from {smallest} {KERNELS[name].size} on, the reference below"
        rows.append({"op": name, "device": str(device), "runs": runs, "reason": why})
    return rows
