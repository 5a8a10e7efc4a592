r"""The engine of several processes that each hold the whole model: gradients are averaged over them.

    g = 1/W sum_r g_r        g_r: gradient of the mean loss of rank r's rows, as many on each rank

Gradients are exchanged while they are computed (Li et al., 2020).

References:
    PyTorch Distributed: Experiences on Accelerating Data Parallel Training (Li et al., 2020), section 3,
    https://arxiv.org/abs/2006.15704
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from modkit.engines.group import Group

__all__ = ["DDPEngine"]

_SYNC = "forward_sync_buffers"  # the name in newer releases of torch
if _SYNC not in inspect.signature(DistributedDataParallel).parameters:
    _SYNC = "broadcast_buffers"


class DDPEngine(Group):
    """An engine of several processes, each with the whole model on a device of its own.

    On CUDA, rank r of a machine takes its device r and NCCL, elsewhere gloo.

    Args:
        device: Name of the device; `auto` is CUDA if available, otherwise the CPU.
        timeout: Seconds after which a process that waits for another gives up, at least 1 and at most a million.
        unused: Whether a player may have parameters that its losses do not reach, at the cost of a search at each step.
        sync_batch_norm: Whether batch normalization sees the rows of all processes, by torch's SyncBatchNorm, on CUDA.

    Raises:
        ValueError: If no launcher has told the number of this process, the device is unknown or not available,
            `timeout` is out of range, or batch normalization would be synchronized on the CPU.
    """

    def wrap(self, player: str, losses: nn.Module, own: Sequence[nn.Parameter]) -> nn.Module:
        """Returns a module whose backward pass averages the gradients of the player's own parameters."""
        losses = super().wrap(player, losses, own)
        if not own:
            return losses
        self.expect_gradients(player, losses)
        return DistributedDataParallel(
            losses,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            find_unused_parameters=self.unused,
            gradient_as_bucket_view=True,
            **{_SYNC: False},  # type: ignore[arg-type]
        )

    def release(self, player: str, losses: nn.Module) -> None:
        """Removes the hooks that exchange gradients."""
        if isinstance(losses, DistributedDataParallel):
            losses.reducer._remove_autograd_hooks()
        super().release(player, losses)

    def accumulate(self, module: nn.Module) -> AbstractContextManager[None]:
        """Returns a context in which gradients stay in this process."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def join_weights(self) -> AbstractContextManager[None]:
        """Gives all processes the same buffers; they have all weights at all times."""
        self.share_buffers()
        return nullcontext()
