"""The networks of a model and their units: the repeated blocks that are compiled, divided and recomputed one by one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from modkit.kinds import NetworkExtras, read_extras

__all__ = ["NETWORK_KINDS", "find_networks", "list_units"]

NETWORK_KINDS = ("encoder", "decoder", "generator", "discriminator", "network", "prior-network")
"""The kinds of parts that map tensors to tensors."""


def find_networks(model: nn.Module) -> list[nn.Module]:
    """Finds the networks of a built model: its parts of the kinds that map tensors to tensors, none inside another."""
    networks: dict[int, nn.Module] = {}
    inside: set[int] = set()
    for module in model.modules():
        if id(module) not in inside and getattr(getattr(module, "origin", None), "kind", None) in NETWORK_KINDS:
            networks[id(module)] = module
            inside |= {id(one) for one in module.modules()}
    return list(networks.values())


def list_units(network: nn.Module) -> Sequence[nn.Module]:
    """The units that a network names, without those that have no parameters.

    Examples:
        >>> from modkit.nn import UNet
        >>> from modkit.types import CondType, TensorType
        >>> x = TensorType((1, 8, 8))
        >>> len(list_units(UNet(x, x, CondType(), channels=[8], blocks=1)))
        5
    """
    return [unit for unit in read_extras(network, NetworkExtras).units if any(True for _ in unit.parameters())]
