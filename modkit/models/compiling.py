"""Compiling the networks of a model, unit by unit if they have any."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from modkit.kinds import NetworkExtras, read_extras
from modkit.losses.perceptual import Perceptual
from modkit.models.model import Model
from modkit.nn.compiled import compile_modules, restore_module
from modkit.nn.units import find_networks, list_units
from modkit.specs.settings import Compilation

__all__ = ["compile_networks", "restore_networks"]


def compile_networks(model: Model, how: Compilation = Compilation()) -> None:  # noqa: B008
    """Compiles the networks of a model and its perceptual distances in place; keys stay as they are.

    Each part of a network is compiled when it is first called, and anew for each mode, type and size of its inputs, but
    not for each size of a batch. A decoder's last layer is not compiled: a weight that asks for its gradient would
    differentiate the whole of what is compiled.

    Args:
        model: The model.
        how: How they are compiled.

    Raises:
        ValueError: If there is no such backend.

    Examples:
        >>> import modkit
        >>> from modkit.models import GAN
        >>> model = GAN(modkit.TensorType((2,)), generator="mlp", discriminator="mlp", z_dim=2)
        >>> before = model.sample(3, seed=0)
        >>> compile_networks(model, Compilation(backend="eager"))
        >>> bool((model.sample(3, seed=0) == before).all())
        True
    """
    restore_networks(model)
    names = {module: name for name, module in model.named_modules()}
    for network in find_networks(model):
        compile_modules(_list_compiled(network), names[network], how)
    for module, name in names.items():
        if isinstance(module, Perceptual):
            compile_modules([module], name, how)
    if any(player.last_layer and model.weights(player.name) for player in model.players()):
        _keep_buffers()


def restore_networks(model: Model) -> None:
    """Makes the networks of a model uncompiled again."""
    for module in model.modules():
        restore_module(module)


def _list_compiled(network: nn.Module) -> list[nn.Module]:
    """Lists what is compiled of a network: its units, or all of it, without the last layer."""
    last = read_extras(network, NetworkExtras).last_layer
    parameter = None if last is None else network.get_parameter(last)
    return [one for part in list_units(network) or [network] for one in _split(part, parameter)]


def _split(module: nn.Module, last: nn.Parameter | None) -> Iterator[nn.Module]:
    """Yields a module, or the parts of it beside the module of a parameter inside it."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict) or any(one is last for one in module.parameters()):
        for child in module.children() if all(one is not last for one in module.parameters(recurse=False)) else ():
            yield from _split(child, last)
    else:
        yield module


def _keep_buffers() -> None:
    """Lets the graphs of compiled code be differentiated again, as a weight does for its gradient at the last layer.

    By default their first backward pass overwrites what they have kept.
    """
    import torch._functorch.config as functorch

    functorch.donated_buffer = False
