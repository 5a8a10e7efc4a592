"""Conversion of optimizer states to the contents of a checkpoint: tensors by name, and JSON.

A state's entries are named `NAME.KEY` by the parameter's name in the model, such as
`prior.network.conv.weight.exp_avg`, in a group of tensors named after the player. Checkpoints of format 1 number both,
`0.exp_avg` in `optimizer-0`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from torch import Tensor, nn

from modkit.engines.updates import list_parameters
from modkit.errors import join_names
from modkit.kinds import Optimizer
from modkit.runs.encoding import Checkpoint
from modkit.runs.files import make_safe_name
from modkit.runs.slices import place

__all__ = ["PackedState", "check_trained", "find_packed", "name_parameters", "name_group", "pack", "unpack"]

_LONGEST = 100  # characters of a player's name in the name of a file
_OWN = {"fused", "foreach", "capturable"}  # settings of a group that say how this process computes, and not what


class PackedState(NamedTuple):
    """The state of an optimizer: its tensors by name, and everything else as JSON."""

    tensors: Mapping[str, Tensor]
    state: dict[str, Any]


def name_parameters(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Names the parameters of an optimizer as a model does, in the optimizer's order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for parameter in list_parameters(optimizer)]


def name_group(player: str) -> str:
    """Names the group of tensors of a player's optimizer.

    Examples:
        >>> name_group("prior/denoiser")
        'optimizer-prior.denoiser'
    """
    return f"optimizer-{make_safe_name(player.replace('/', '.'), _LONGEST)}"


def pack(optimizer: Optimizer, names: Sequence[str]) -> PackedState:
    """Packs the state of an optimizer.

    Args:
        optimizer: The optimizer.
        names: Names of its parameters, see `name_parameters`.
    """
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"{names[index]}.{key}"] = value
    groups = [
        {key: list(value) if isinstance(value, tuple) else value for key, value in group.items()}
        for group in _name_groups(state["param_groups"], names)
    ]
    return PackedState(tensors, {"groups": groups, "numbers": numbers})


def find_packed(checkpoint: Checkpoint, player: str, names: Sequence[str]) -> PackedState:
    """Finds the state of a player's optimizer in a checkpoint, of format 1 too.

    Args:
        checkpoint: The content of the checkpoint.
        player: Name of the player.
        names: Names of the parameters, see `name_parameters`.

    Raises:
        KeyError: If there is none.
        IndexError: If it is of more parameters.
    """
    players = checkpoint.state["players"]
    state = players[player]["optimizer"]
    if name_group(player) in checkpoint.tensors:
        return PackedState(checkpoint.tensors[name_group(player)], state)
    tensors = checkpoint.tensors[f"optimizer-{list(players).index(player)}"]
    groups = _name_groups(state["groups"], names)
    return PackedState(
        _name_entries(tensors, names), {"groups": groups, "numbers": _name_entries(state["numbers"], names)}
    )


def check_trained(names: Iterable[str], players: Mapping[str, Any]) -> None:
    """Checks that the optimizers of a stage have the parameters that those in a checkpoint have.

    Args:
        names: Names of the parameters of all optimizers, see `name_parameters`.
        players: The players in the state of the checkpoint.

    Raises:
        ValueError: If they have others.
    """
    groups = [group for player in players.values() for group in player["optimizer"]["groups"]]
    now, then = set(names), {name for group in groups for name in group["params"]}
    if any(isinstance(name, int) for name in then):  # of format 1
        return
    for odd, before, after in ((now - then, "frozen", "trained"), (then - now, "trained", "frozen")):
        if odd:
            raise ValueError(
                f"expected parameters to require gradients as before, got some that were {before} and are {after} now: "
                f"{join_names(sorted(odd))}; set requires_grad_({before == 'trained'}) on them"
            )


def unpack(optimizer: Optimizer, names: Sequence[str], packed: PackedState) -> None:
    """Restores the state that `pack` returned, in the memory format of the parameters, and in their slices.

    The format matters: in another one, the next step would round differently. Which implementation computes is this
    optimizer's own choice: parameters that are divided among processes have fewer.

    Args:
        optimizer: The optimizer.
        names: Names of its parameters, see `name_parameters`.
        packed: The state.

    Raises:
        ValueError: If the state is of other parameters, or its settings are of other types.
    """
    _check_groups(_name_groups(optimizer.state_dict()["param_groups"], names), packed.state["groups"])
    numbers = {name: number for number, name in enumerate(names)}
    parameters = list_parameters(optimizer)
    entries: dict[int, dict[str, Any]] = {}
    for label, value in chain(packed.state["numbers"].items(), packed.tensors.items()):
        name, _, key = label.rpartition(".")
        if name not in numbers:
            raise ValueError(f"expected the state of {', '.join(names[:8])}, got {label}")
        like = parameters[numbers[name]]
        if isinstance(value, Tensor):  # which may lie in a file that will not stay
            value = place(value, like) if value.shape == like.shape else value.clone()
        entries.setdefault(numbers[name], {})[key] = value
    groups = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in group.items()}
        | {key: value for key, value in mine.items() if key in _OWN}
        | {"params": [numbers[name] for name in group["params"]]}
        for mine, group in zip(optimizer.param_groups, packed.state["groups"])
    ]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _name_groups(groups: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    return [{**group, "params": [names[index] for index in group["params"]]} for group in groups]


def _name_entries(entries: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Renames `INDEX.KEY` to `NAME.KEY`."""
    split = [(label.partition("."), value) for label, value in entries.items()]
    return {f"{names[int(index)]}.{key}": value for (index, _, key), value in split}


def _check_groups(mine: Sequence[Mapping[str, Any]], stored: Sequence[Mapping[str, Any]]) -> None:
    """Compares the groups of an optimizer with stored ones: their parameters, and the types of their settings."""
    if len(mine) != len(stored):
        raise ValueError(f"expected {len(mine)} groups of parameters, got {len(stored)}")
    for new, old in zip(mine, stored):
        if new["params"] != old["params"]:
            raise ValueError(f"expected {len(new['params'])} parameters in order, got {old['params']}")
        for key in new.keys() & old.keys() - {"params", *_OWN}:
            if _name_type(new[key]) != _name_type(old[key]):
                raise ValueError(f"expected {key} like {new[key]!r}, got {old[key]!r}")


def _name_type(value: Any) -> str:
    """Names the type of a setting as JSON knows it; a sequence has the types of its items."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_name_type, value))}]"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if number else type(value).__name__
