"""A network whose weights are divided among processes: joined while it computes, and divided at all other times.

Units, its repeated blocks, are joined one after the other, so that a process never holds all weights at once. Scalars,
frozen weights and the last layer, whose gradient losses may ask for, stay whole.

What is differentiated again (a penalty on a gradient) needs the same joined weights a second time. A network that is
seen to be differentiated so stays joined until `divide`.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import _composable_state
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from modkit.kinds import NetworkExtras, read_extras
from modkit.nn.arguments import find_tensors
from modkit.nn.units import list_units
from modkit.optim.shards import gather_whole, is_shard

__all__ = ["ShardedNetwork"]

_METHODS = ("step", "judge", "styles", "map_layers", "synthesis", "tap")
"""What assemblies call of a network besides `forward`."""


class ShardedNetwork:
    """Divides the weights of a network among processes.

    Args:
        network: The network.
        own: The parameters to divide; the others stay whole.
        mesh: The processes.
    """

    def __init__(self, network: nn.Module, own: Sequence[nn.Parameter], mesh: DeviceMesh) -> None:
        warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)  # nothing here writes into an output
        self._network, self._held = network, False
        before = [(module, type(module), _copy_changed(module), set(vars(module))) for module in network.modules()]
        last = read_extras(network, NetworkExtras).last_layer
        kept = {id(one) for one in own if one.ndim} - {id(network.get_parameter(last)) if last else 0}
        whole = {one for one in network.parameters() if id(one) not in kept}
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()
        for module in (*list_units(network), network):
            fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
        self._parts = [module for module in network.modules() if isinstance(module, FSDPModule)]
        for name in _METHODS:
            if callable(getattr(network, name, None)):
                register_fsdp_forward_method(network, name)
                setattr(network, name, self._watch(getattr(network, name)))
        network.register_forward_hook(lambda network, given, out: self._watch_tensors(out))
        self._before = [(module, kind, hooks, vars(module).keys() - names) for module, kind, hooks, names in before]

    def exchange(self, exchanges: bool) -> None:
        """Says whether a backward pass exchanges gradients or leaves them in this process."""
        self._root.set_requires_gradient_sync(exchanges)

    def join(self) -> None:
        """Makes the weights whole until `divide`."""
        self._hold(True)
        for part in self._parts:
            part.unshard()

    def divide(self) -> None:
        """Divides weights that have stayed joined."""
        if self._held:
            self._hold(False)
            for part in self._parts:
                part.reshard()

    def release(self) -> None:
        """Makes the weights whole again; nothing is left of the division."""
        self.divide()
        shards = [one for one in self._network.parameters() if is_shard(one)]
        made = {one: nn.Parameter(gather_whole(one), requires_grad=one.requires_grad) for one in shards}
        for module, kind, hooks, added in self._before:
            _composable_state._module_state_mapping.pop(module, None)  # else it could never be divided again
            module.__class__ = kind
            for name in added:
                delattr(module, name)
            vars(module).update(hooks)
            for name, one in module.named_parameters(recurse=False):
                setattr(module, name, made.get(one, one))

    @property
    def _root(self) -> FSDPModule:
        return self._parts[0]

    def _watch(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Watches what a method returns, as a hook does what `forward` returns."""

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            out = method(*args, **kwargs)
            self._watch_tensors(out)
            return out

        return call

    def _watch_tensors(self, out: Any) -> None:
        """Waits for a backward pass that will be differentiated itself, in which gradients are enabled."""
        for tensor in find_tensors(out):
            if tensor.requires_grad:
                tensor.register_hook(self._hold_if_differentiated)

    def _hold_if_differentiated(self, gradient: Tensor) -> None:
        if torch.is_grad_enabled():
            self._hold(True)

    def _hold(self, held: bool) -> None:
        self._held = held
        self._root.set_reshard_after_backward(not held)
        self._root.set_reshard_after_forward(not held)


def _copy_changed(module: nn.Module) -> dict[str, Any]:
    """Copies the attributes that division changes: hooks, and methods that the module holds itself."""
    return {n: copy.copy(value) for n, value in vars(module).items() if "hooks" in n or n in _METHODS}
