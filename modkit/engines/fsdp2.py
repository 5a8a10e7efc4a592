r"""The engine of several processes that divide the weights of networks: Fully Sharded Data Parallel, by torch's FSDP2.

    rank r keeps 1/W of each weight, of its gradient and of the optimizer's state

A network's weights are joined unit by unit while it computes, and its gradients are averaged and divided as they are
computed (Zhao et al., 2023). All else that is trained (conditioners, codebooks, likelihoods) is small, stays whole, and
has its gradients averaged before the step.

References:
    PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel (Zhao et al., 2023),
    https://arxiv.org/abs/2304.11277
    ZeRO: Memory Optimizations Toward Training Trillion Parameter Models (Rajbhandari et al., 2020), section 5,
    https://arxiv.org/abs/1910.02054
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.experimental import implicit_replication

from modkit.engines.group import Group
from modkit.engines.sharded import ShardedNetwork
from modkit.engines.updates import list_parameters
from modkit.kinds import Optimizer
from modkit.nn.units import find_networks
from modkit.optim.shards import is_shard
from modkit.types import Range

__all__ = ["FSDP2Engine"]


class FSDP2Engine(Group):
    """An engine of several processes that divide the weights, gradients and optimizer states of networks.

    On CUDA, rank r of a machine takes its device r and NCCL, elsewhere gloo. Pictures and scores are made with whole
    weights.

    Args:
        device: Name of the device; `auto` is CUDA if available, otherwise the CPU.
        timeout: Seconds after which a process that waits for another gives up.
        unused: Whether a player may have parameters that its losses do not reach.
        sync_batch_norm: Whether batch normalization sees the rows of all processes, by torch's SyncBatchNorm, on CUDA.

    Raises:
        ValueError: If no launcher has told the number of this process, the device is unknown or not available,
            this torch cannot leave weights whole, or batch normalization would be synchronized on the CPU.
    """

    def __init__(
        self,
        device: str,
        *,
        timeout: Annotated[float, Range(1, 1e6, note="seconds")] = 1800.0,
        unused: bool = False,
        sync_batch_norm: bool = False,
    ) -> None:
        if "ignored_params" not in inspect.signature(fully_shard).parameters:
            raise ValueError(
                "FSDP2Engine expects a torch whose fully_shard takes `ignored_params`, "
                f"got {torch.__version__}: install a newer one"
            )
        super().__init__(device, timeout=timeout, unused=unused, sync_batch_norm=sync_batch_norm)
        self._mesh = init_device_mesh(self.device.type, (self.world,))
        self._networks: dict[nn.Module, list[ShardedNetwork]] = {}

    def wrap(self, player: str, losses: nn.Module, own: Sequence[nn.Parameter]) -> nn.Module:
        """Divides the weights of the networks that the player trains; returns the module itself."""
        losses, mine = super().wrap(player, losses, own), {id(one) for one in own}
        self._networks[losses] = [
            ShardedNetwork(network, own, self._mesh)
            for network in find_networks(losses)
            if any(id(one) in mine for one in network.parameters())
        ]
        self.expect_gradients(player, losses)
        return losses

    def release(self, player: str, losses: nn.Module) -> None:
        """Makes the weights of the player's networks whole."""
        for network in self._networks.pop(losses):
            network.release()
        super().release(player, losses)

    def step(self, optimizer: Optimizer) -> None:
        """Takes a step of the optimizer and clears the gradients.

        Raises:
            ValueError: If the losses of a player's first turn do not reach a parameter.
        """
        parameters = [one for one in list_parameters(optimizer) if one.grad is not None and not is_shard(one)]
        means = self.reduce({str(index): one.grad for index, one in enumerate(parameters) if one.grad is not None})
        for parameter, mean in zip(parameters, means.values()):
            parameter.grad = mean
        with implicit_replication():  # an optimizer updates shards and whole parameters in one call
            super().step(optimizer)
        self._divide()

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        """Returns a context in which gradients stay in this process."""
        for network in self._networks[module]:
            network.exchange(False)
        try:
            yield
        finally:
            for network in self._networks[module]:
                network.exchange(True)

    @contextmanager
    def join_weights(self) -> Iterator[None]:
        """Returns a context in which the weights of all networks are whole, and buffers are the same everywhere."""
        self.share_buffers()
        for network in self._list_networks():
            network.join()
        try:
            yield
        finally:
            self._divide()

    def _divide(self) -> None:
        for network in self._list_networks():
            network.divide()

    def _list_networks(self) -> list[ShardedNetwork]:
        return [network for networks in self._networks.values() for network in networks]
