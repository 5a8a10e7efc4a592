"""What the wrapped networks share: types that they refuse, the map beside x, time, and class embeddings.

The time that modkit hands a network is what its parametrization says it embeds: a table's index t num - 1, which is
diffusers' timestep, or of a schedule without a table ln(sigma_t / alpha_t) / 4, which is what diffusers' EDM schedulers
hand theirs. So it is passed on as it is.

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from modkit.types import Cond, CondType, TensorType

__all__ = [
    "blocks",
    "check_channels",
    "check_conditions",
    "check_groups",
    "check_halvings",
    "check_heads",
    "check_maps",
    "class_embedding",
    "class_labels",
    "made",
    "required",
    "timestep",
]


def made(name: str, **config: Any) -> nn.Module:
    """A network of diffusers, which is imported here.

    Args:
        name: Its class.
        **config: What it is made with.
    """
    network: nn.Module = getattr(importlib.import_module("diffusers"), name)(**config)
    return network


def check_maps(owner: str, x: TensorType, out: TensorType) -> tuple[int, int]:
    """The size `(h, w)` of x and out.

    Raises:
        ValueError: If one is no continuous map of two sizes, or they differ in size.
    """
    for name, type in (("x", x), ("out", out)):
        if type.classes is not None or len(type.shape) != 3:
            raise ValueError(f"{owner} expects {name} as continuous maps (c, h, w), got {type}")
    if out.shape[1:] != x.shape[1:]:
        raise ValueError(f"{owner} expects out of x's size {x.shape[1:]}, got {out.shape[1:]}")
    return x.shape[1], x.shape[2]


def check_halvings(owner: str, size: Sequence[int], num: int) -> None:
    """Checks that sides can be halved so often.

    Raises:
        ValueError: If they cannot.
    """
    if any(side % 2**num for side in size):
        shown = "×".join(map(str, size))
        raise ValueError(f"{owner} expects sides that {2**num} divides, for {num} halvings, got {shown}")


def check_groups(owner: str, channels: Sequence[int], groups: int | None) -> None:
    """Checks that normalisation divides channels into groups.

    Raises:
        ValueError: If there is no level, or a level's channels are not divided.
    """
    if not channels or min(channels) < 1 or (groups is not None and groups < 1):
        raise ValueError(
            f"{owner} expects block_out_channels and norm_num_groups of at least 1, got {list(channels)} and {groups}"
        )
    if groups is not None and any(wide % groups for wide in channels):
        raise ValueError(
            f"{owner} expects block_out_channels that norm_num_groups {groups} divides, got {list(channels)}"
        )


def check_heads(owner: str, channels: Sequence[int], head: int | None) -> None:
    """Checks that attention divides channels into heads of `head` channels.

    Raises:
        ValueError: If it does not.
    """
    if head is not None and (head < 1 or any(wide % head for wide in channels)):
        raise ValueError(f"{owner} expects channels that attention_head_dim {head} divides, got {list(channels)}")


def blocks(
    owner: str, levels: int, down: Sequence[str] | None, up: Sequence[str] | None, *, attends: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The blocks of each level on the way down and up.

    Args:
        owner: Name of the class that asks, for messages.
        levels: Number of levels.
        down: As written; None: a plain one, then those that attend.
        up: As written; None: those of the way down, mirrored.
        attends: The block that attends, on the way down.

    Raises:
        ValueError: If there are not as many as levels.
    """
    down = ("DownBlock2D", *(attends,) * (levels - 1)) if down is None else tuple(down)
    up = tuple(kind.replace("Down", "Up") for kind in reversed(down)) if up is None else tuple(up)
    for name, kinds in (("down_block_types", down), ("up_block_types", up)):
        if len(kinds) != levels:
            raise ValueError(f"{owner} expects {name} of each of {levels} levels, got {list(kinds)}")
    return down, up


def check_channels(owner: str, name: str, told: int, given: int | None) -> int:
    """The number of channels that a neighbour tells, which a configuration may have to agree with.

    Raises:
        ValueError: If it does not.
    """
    if given is not None and given != told:
        raise ValueError(f"{owner} expects {name} {given}, as its configuration says, got {told} from its neighbours")
    return told


def check_conditions(owner: str, cond: CondType, takes: Sequence[str]) -> None:
    """Refuses a condition that a network has no input for.

    Raises:
        ValueError: If there is one.
    """
    odd = [name for name in ("vector", "noise", "labels", "context", "concat") if getattr(cond, name)]
    if odd := [name for name in odd if name not in takes]:
        raise ValueError(f"{owner} expects no conditions but time, {', '.join(takes)}, got {', '.join(odd)}: {cond}")


def class_embedding(
    owner: str, cond: CondType, kind: str | None, num: int | None, *, of_vectors: Sequence[str]
) -> dict[str, Any]:
    """`class_embed_type` and `num_class_embeds` for the vector or the labels that a network is told.

    Args:
        owner: Name of the class that asks, for messages.
        cond: The conditions.
        kind: The configuration's `class_embed_type`.
        num: The configuration's `num_class_embeds`.
        of_vectors: Types that embed vectors, the first being the default.

    Raises:
        ValueError: If there are a vector and labels, the configuration embeds something that there is not, or has too
            few embeddings.
    """
    if cond.vector and cond.labels:
        raise ValueError(f"{owner} expects a vector or labels, got both: {cond}")
    if kind is not None and not cond.vector:
        raise ValueError(f"{owner} expects a vector for class_embed_type {kind!r}, got the conditions {cond}")
    if num is not None and not cond.labels:
        raise ValueError(f"{owner} expects labels for its {num} num_class_embeds, got the conditions {cond}")
    if cond.labels and num is not None and num <= cond.labels:
        needed = f"num_class_embeds of at least {cond.labels + 1}, for {cond.labels} labels and none"
        raise ValueError(f"{owner} expects {needed}, got {num}")
    if cond.vector:
        return {"class_embed_type": kind or of_vectors[0], "num_class_embeds": None}
    return {"class_embed_type": None, "num_class_embeds": num or cond.labels and cond.labels + 1}


def class_labels(type: CondType, cond: Cond) -> Tensor | None:
    """What a network takes as `class_labels`: the vector, the labels or nothing.

    Raises:
        ValueError: If it is missing.
    """
    if type.vector:
        return required("vector", cond.vector)
    return required("labels", cond.labels) if type.labels else None


def timestep(type: CondType, cond: Cond, x: Tensor) -> Tensor:
    """The time, `b`; zeros where there is none.

    Raises:
        ValueError: If it is missing.
    """
    return required("time", cond.time) if type.time else x.new_zeros(len(x))


def required(name: str, value: Tensor | None) -> Tensor:
    """A condition that the type has.

    Raises:
        ValueError: If it is missing.
    """
    if value is None:
        raise ValueError(f"the network expects a Cond with `{name}`, as its type says, got None")
    return value
