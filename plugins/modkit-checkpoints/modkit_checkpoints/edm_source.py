"""Finds in an EDM file the name of the preconditioned network, its constructor's arguments and its tensors.

A snapshot is {ema: module, loss_fn, augment_pipe, dataset_kwargs}, a training state {net: module, optimizer_state}.
Each module was pickled whole, with its constructor's arguments and, for every class in it, source code, which is never
read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from modkit_checkpoints.conversion import tensors_of
from modkit_checkpoints.placeholder import Placeholder, attributes, module_state

__all__ = ["Located", "locate"]

_AVERAGED, _RAW = "ema", "net"


class Located(NamedTuple):
    """A network in a file.

    Args:
        name: Name of its class.
        arguments: Its constructor's arguments, by name.
        tensors: Its state dict.
        aside: The file's other keys.
    """

    name: str
    arguments: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    aside: tuple[str, ...]


def locate(source: Any, config: Any, raw: bool) -> Located:
    """Finds the network in a source.

    Args:
        source: A snapshot, a training state, a module, or a state dict, which needs a configuration.
        config: `class_name` and the constructor's arguments, or None.
        raw: Whether to take the weights as trained.

    Raises:
        ValueError: If there is none, or none with the requested weights.
    """
    if isinstance(source, Placeholder):
        return _read_module(source, "the source", config, ())
    if not isinstance(source, Mapping):
        raise ValueError(f"expected a snapshot of EDM's, got {type(source).__name__}")
    if _AVERAGED in source or _RAW in source:
        name = _RAW if raw else _AVERAGED
        if name not in source:
            held = "averaged weights only" if raw else "weights as trained only: take them with --raw"
            raise ValueError(f"expected the network {name!r} in the source, which holds {held}")
        return _read_module(source[name], repr(name), config, tuple(key for key in source if key != name))
    if not isinstance(config, Mapping) or not isinstance(config.get("class_name"), str):
        raise ValueError("expected a configuration with class_name, such as EDMPrecond, with a state dict of EDM's")
    arguments = {key: value for key, value in config.items() if key != "class_name"}
    return Located(config["class_name"].rpartition(".")[2], arguments, tensors_of(source, "the source"), ())


def _read_module(value: Any, where: str, config: Any, aside: tuple[str, ...]) -> Located:
    if config is not None:
        raise ValueError("expected no configuration: an EDM file holds its network's arguments itself")
    meta = attributes(value.args[0]) if isinstance(value, Placeholder) and len(value.args) == 1 else {}
    name, own = meta.get("class_name"), attributes(value)
    if not isinstance(name, str) or "_init_kwargs" not in own:
        raise ValueError(f"expected {where} to be a network of EDM's with its arguments, got {value!r:.100}")
    if own.get("_init_args"):
        raise ValueError(f"expected the arguments of {where} by name, got {own['_init_args']!r:.100}")
    return Located(name, attributes(own["_init_kwargs"]), module_state(value), aside)
