"""The states of metrics from all processes: as tensors and JSON, since nothing is pickled.

A state consists of tensors, numbers, texts and None, in lists, tuples, dicts and objects whose attributes are such; the
Model that is measured may stand in it, and is not sent.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from modkit.kinds import Engine

__all__ = ["gather_states", "pack_state", "unpack_state"]

T = TypeVar("T")


def gather_states(state: T, engine: Engine, model: nn.Module | None = None) -> list[T]:
    """Gathers a state from each process, in the order of their ranks.

    Args:
        state: The state of this process.
        engine: The processes.
        model: The Model that is measured, which stands for itself in each process.

    Raises:
        ValueError: If the state holds anything else than what is listed above.

    Examples:
        >>> from modkit.engines import LocalEngine
        >>> gather_states({"real": [1.5]}, LocalEngine("cpu"))
        [{'real': [1.5]}]
    """
    if engine.world == 1:
        return [state]
    data = pack_state(state, model)
    length = torch.tensor([len(data)], device=engine.device)
    lengths = engine.gather(length).tolist()
    mine = torch.zeros(1, max(lengths), dtype=torch.uint8)
    mine[0, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    every = engine.gather(mine.to(engine.device)).cpu()
    return [unpack_state(row[:size].numpy().tobytes(), model) for row, size in zip(every, lengths, strict=True)]


def pack_state(state: Any, model: nn.Module | None = None) -> bytes:
    """Packs a state as another process is sent it.

    Raises:
        ValueError: As `gather_states`.
    """
    tensors: dict[str, Tensor] = {}
    form = _describe(state, tensors, model)
    return save(tensors, {"form": json.dumps(form)})


def unpack_state(data: bytes, model: nn.Module | None = None) -> Any:
    """Unpacks what `pack_state` has packed.

    Examples:
        >>> unpack_state(pack_state({"real": (1, torch.ones(2))}))
        {'real': (1, tensor([1., 1.]))}
    """
    size = int.from_bytes(data[:8], "little")  # of the header of safetensors, whose reader leaves out what is beside
    form = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["form"])
    return _restore(form, load(data), model)


def _describe(value: Any, tensors: dict[str, Tensor], model: nn.Module | None) -> Any:
    """Describes a value in JSON; its tensors are added to `tensors`."""
    if value is None or type(value) in (bool, int, float, str):
        return {"value": value}
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if value is model:
        return {"model": True}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_describe(one, tensors, model) for one in value]}
    if type(value) is dict:
        return {"dict": [[_describe(one, tensors, model) for one in pair] for pair in value.items()]}
    kind = type(value)
    name = f"{kind.__module__}:{kind.__qualname__}"
    known = _find_class(name) is kind and (isinstance(value, tuple) or hasattr(value, "__dict__"))
    if isinstance(value, nn.Module) or not known:
        raise ValueError(
            "processes exchange states of tensors, numbers, texts, lists, tuples, dicts and objects of these whose "
            f"class stands in a module; got {name}"
        )
    content = tuple(value) if isinstance(value, tuple) else vars(value)
    return {"class": name, "content": _describe(content, tensors, model)}


def _restore(form: Any, tensors: dict[str, Tensor], model: nn.Module | None) -> Any:
    """Restores a value from its description: an object of the same class, without its constructor."""
    if "class" in form:
        kind, content = _find_class(form["class"]), _restore(form["content"], tensors, model)
        if isinstance(content, tuple):
            return tuple.__new__(kind, content)
        made = object.__new__(kind)
        vars(made).update(content)
        return made
    ((name, content),) = form.items()
    if name == "dict":
        return {_restore(key, tensors, model): _restore(one, tensors, model) for key, one in content}
    if name in ("list", "tuple"):
        restored = [_restore(one, tensors, model) for one in content]
        return restored if name == "list" else tuple(restored)
    if name == "tensor":
        return tensors[content]
    return model if name == "model" else content


def _find_class(name: str) -> Any:
    """Finds a class that this process knows already; nothing is imported."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None
