"""Conversion of optimizer states to the contents of a checkpoint: tensors by name, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modkit.kinds import Optimizer
from modkit.optim.shards import copy_whole

__all__ = ["pack", "unpack"]


def pack(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Packs the state of an optimizer into tensors, named `INDEX.KEY` by the parameter's index, and JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                numbers[f"{index}.{key}"] = value
    groups = [
        {key: list(v) if isinstance(v, tuple) else v for key, v in group.items()} for group in state["param_groups"]
    ]
    return tensors, {"groups": groups, "numbers": numbers}


def unpack(optimizer: Optimizer, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Restores the state that `pack` returned, in the memory format of the parameters.

    The format matters: in another one, the next step would round differently.

    Raises:
        ValueError: If the state is of other parameters, or its settings are of other types.
    """
    _check_groups(optimizer.state_dict()["param_groups"], state["groups"])
    known = {index for group in state["groups"] for index in group["params"]}
    entries: dict[int, dict[str, Any]] = {}
    for name, value in {**state["numbers"], **tensors}.items():
        index, _, key = name.partition(".")
        if int(index) not in known:
            raise ValueError(f"expected the state of {len(known)} parameters, got {name}")
        entries.setdefault(int(index), {})[key] = value
    groups = [
        {key: tuple(v) if isinstance(v, list) and key != "params" else v for key, v in g.items()}
        for g in state["groups"]
    ]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    for parameter, kept in optimizer.state.items():
        for key, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                kept[key] = copy_whole(torch.empty_like(parameter, dtype=value.dtype, requires_grad=False), value)


def _check_groups(mine: Sequence[Mapping[str, Any]], stored: Sequence[Mapping[str, Any]]) -> None:
    """Compares the groups of an optimizer with stored ones: their parameters, and the types of their settings."""
    if len(mine) != len(stored):
        raise ValueError(f"expected {len(mine)} groups of parameters, got {len(stored)}")
    for new, old in zip(mine, stored):
        if new["params"] != old["params"]:
            raise ValueError(f"expected {len(new['params'])} parameters in order, got {old['params']}")
        for key in new.keys() & old.keys() - {"params"}:
            if _name_type(new[key]) != _name_type(old[key]):
                raise ValueError(f"expected {key} like {new[key]!r}, got {old[key]!r}")


def _name_type(value: Any) -> str:
    """Names the type of a setting as JSON knows it; a sequence has the types of its items."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_name_type, value))}]"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if number else type(value).__name__
