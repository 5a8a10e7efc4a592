"""Batch normalization over the rows of all processes: torch's SyncBatchNorm, which computes on CUDA.

Torch's own conversion puts new modules in place of the old ones. Here a module changes only its class, so that what
refers to it (hooks, lists of modules, the names in a checkpoint) stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

__all__ = ["JOINABLE", "join_norms", "release_norms"]

JOINABLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""The layers that can see the rows of all processes; a subclass has a forward of its own, and cannot."""

_JOINED: dict[type, type] = {
    one: type(f"Joined{one.__name__}", (nn.SyncBatchNorm,), {"process_group": None}) for one in JOINABLE
}
_PLAIN = {joined: one for one, joined in _JOINED.items()}


def join_norms(module: nn.Module) -> None:
    """Lets the batch normalization in a module see the rows of all processes.

    Examples:
        >>> net = nn.Sequential(nn.BatchNorm2d(3))
        >>> join_norms(net)
        >>> isinstance(net[0], nn.SyncBatchNorm)
        True
        >>> release_norms(net)
        >>> net[0]
        BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    """
    _convert(module, _JOINED)


def release_norms(module: nn.Module) -> None:
    """Undoes `join_norms`."""
    _convert(module, _PLAIN)


def _convert(module: nn.Module, kinds: Mapping[type, type]) -> None:
    for one in module.modules():
        if kind := kinds.get(type(one)):
            one.__class__ = kind
