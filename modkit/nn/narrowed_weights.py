"""Weights cast once for autocast, which casts those of each product at each call.

Autocast keeps what it has cast only of weights that are trained, and only until it ends. So a frozen network, and any
network that samples step by step, would cast all of its weights whenever it is called. Here copies in the narrow type
are made once and found by the layer in place of its weights where autocast to this type is on. State dicts, averages
and all that is computed without autocast have the weights themselves.

A weight that nothing trains may still be moved, as a teacher's is in a Model's `update`; afterwards, the copies are
made again. Until then, a weight that torch knows to have changed is used itself. Compiled code cannot ask, and torch
does not know of what is written through `.data`.

Several threads that sample share the copies of the first; the last of them drops the copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["narrow_weights"]

_LOCK = Lock()  # held while layers are held and released


@contextmanager
def narrow_weights(modules: Iterable[nn.Module], dtype: torch.dtype | None) -> Iterator[Callable[[], None]]:
    """Keeps copies of the weights of layers in a narrow type for autocast, within the context.

    Nothing may train these layers in it. What autocast computes stays the same to the bit.

    Args:
        modules: The layers, among other modules, which stay as they are.
        dtype: The type that autocast casts to; None does nothing.

    Returns:
        What makes the copies again, in place: to be called after weights may have been moved.

    Examples:
        >>> layer = nn.Linear(2, 2)
        >>> with narrow_weights([layer], torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        ...     layer.weight.dtype, next(layer.parameters()).dtype
        (torch.bfloat16, torch.float32)
    """
    chosen = [layer for layer in modules if _is_cast(layer)] if dtype else []
    with _LOCK:
        for layer in chosen:
            _hold(layer, dtype)
    try:
        yield partial(_renew, chosen)
    finally:
        with _LOCK:
            for layer in chosen:
                _release(layer)


def _hold(layer: Any, dtype: torch.dtype | None) -> None:
    """Makes the copies of a layer, unless another context has."""
    own = vars(layer)
    own["holders"] = own.get("holders", 0) + 1
    if own["holders"] > 1:
        return
    weights = {name: one for name, one in layer._parameters.items() if one is not None}
    own["narrowed"] = {name: one.detach().to(dtype) for name, one in weights.items()}
    own["narrowed_from"] = {name: (one, *_read_version(one)) for name, one in weights.items()}
    layer.__class__ = _NARROWED[type(layer)]


def _release(layer: Any) -> None:
    """Drops the copies of a layer, unless another context uses them."""
    own = vars(layer)
    own["holders"] -= 1
    if own["holders"]:
        return
    layer.__class__ = type(layer).__base__
    for name in ("holders", "narrowed", "narrowed_from"):
        del own[name]


@torch.no_grad()
def _renew(layers: Iterable[Any]) -> None:
    copies, weights = list[Tensor](), list[Tensor]()
    for layer in layers:
        for name, (weight, *_) in layer.narrowed_from.items():
            copies.append(layer.narrowed[name])
            weights.append(weight)
            layer.narrowed_from[name] = (weight, *_read_version(weight))
    if copies:
        torch._foreach_copy_(copies, weights)


def _is_cast(module: nn.Module) -> bool:
    """Whether autocast casts the parameters of a module; it leaves float64, and computed weights are no parameters."""
    weight = module._parameters.get("weight")
    return (
        (type(module) in _NARROWED or "narrowed" in vars(module))
        and weight is not None
        and weight.dtype == torch.float32
    )


def _find_weight(name: str) -> property:
    def find(layer: Any) -> Tensor | None:
        weight: Tensor | None = layer._parameters[name]
        narrowed: Tensor | None = layer.narrowed.get(name)
        if weight is None or narrowed is None:
            return weight
        kind = narrowed.device.type
        if not torch.is_autocast_enabled(kind) or torch.get_autocast_dtype(kind) != narrowed.dtype:
            return weight
        if torch.compiler.is_compiling():  # a version is no constant of a graph
            return narrowed
        source, *version = layer.narrowed_from[name]
        return narrowed if weight is source and version == _read_version(weight) else weight

    return property(find)


def _read_version(weight: Tensor) -> list[int]:
    """What changes when a weight is written to, and when its `data` are replaced."""
    return [-1 if weight.is_inference() else weight._version, weight.data_ptr()]


_LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
_NARROWED: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(kind.__name__, (kind,), {name: _find_weight(name) for name in ("weight", "bias")}) for kind in _LAYERS
}
"""Layers whose parameters autocast casts, all of them, and the classes of those that find narrowed ones."""
