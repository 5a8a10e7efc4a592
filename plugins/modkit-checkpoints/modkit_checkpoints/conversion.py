r"""The result of converting a checkpoint, and the rules by which keys are renamed.

    rules = [
        Rule(r"conv_in\.(weight|bias)", r"encoder.conv_in.\1"),                      # renamed
        Rule(r"attn\.q\.weight", "encoder.query.weight", change=linear),            # a 1x1 convolution as a matrix
        Rule(r"attn\.k\.weight", "encoder.key_value.weight", part=0, change=linear),  # joined along the first axis,
        Rule(r"attn\.v\.weight", "encoder.key_value.weight", part=1, change=linear),  # in the order of the parts
        Rule(r"qkv\.weight", ("query.weight", "key_value.weight"), sizes=(1, 2)),     # split along it, 1 : 2
        aside(r"loss\..*"),                                                          # not needed by the model
    ]
    weights, aside = rename(tensors, rules)

A format is a function `convert(source, config, raw) -> Conversion`. `source` is what `pickled.read` returned (nested
dicts and lists of tensors, plain values and placeholders), `config` is the parsed configuration or None, and `raw` says
whether to take the weights as trained even if averaged ones are present.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Conversion",
    "Rule",
    "aside",
    "attention",
    "join_keys",
    "linear",
    "matrices",
    "pairs",
    "rename",
    "tensors_of",
]

_SHOWN = 8


@dataclass(frozen=True)
class Conversion:
    """The result of converting a checkpoint.

    Args:
        spec: The spec as plain data, with `name`, `model` and `x: {shape, range}`; if parts read fields, with
            `x: {…, fields: {labels: {shape: [], classes: 10}}}`. It has neither `data` nor `train`.
        weights: Every tensor of the model's state dict, by key.
        aside: Keys of the source that were set aside: losses, optimizers, metrics, other copies of the weights.
    """

    spec: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    aside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    r"""Maps keys of the source to new ones.

    Args:
        pattern: A regular expression that the whole key matches.
        to: The new key, in which `\1` stands for the first group; several keys, to split the tensor along its first
            axis; or none, to set the tensor aside.
        part: The position of this tensor among those that are joined along the first axis under one new key.
        sizes: Proportions of the pieces of a split; equal by default.
        change: Applied to the tensor first.
    """

    pattern: str
    to: str | tuple[str, ...] = ()
    part: int | None = None
    sizes: tuple[int, ...] = ()
    change: Callable[[Tensor], Tensor] | None = None
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", re.compile(self.pattern))
        if self.sizes and (isinstance(self.to, str) or len(self.sizes) != len(self.to)):
            raise ValueError(f"Rule {self.pattern!r} expects a size for each new key, got {self.sizes} for {self.to}")


def aside(pattern: str) -> Rule:
    """Returns the rule that sets keys aside."""
    return Rule(pattern)


def pairs(theirs: str, ours: str, names: Mapping[str, str]) -> list[Rule]:
    """Maps the weight and bias of each layer, named by what follows `theirs` and `ours`."""
    return [Rule(rf"{re.escape(theirs + name)}\.(weight|bias)", rf"{ours}{to}.\1") for name, to in names.items()]


def matrices(theirs: str, ours: str, names: Mapping[str, str]) -> list[Rule]:
    """Maps 1x1 convolutions or linear layers to linear layers; those with the same new name are joined in order."""
    rules, targets = [], list(names.values())
    for name, to in names.items():
        same = [other for other, target in names.items() if target == to]
        part = same.index(name) if targets.count(to) > 1 else None
        rules.append(Rule(rf"{re.escape(theirs + name)}\.weight", f"{ours}{to}.weight", part=part, change=linear))
        rules.append(Rule(rf"{re.escape(theirs + name)}\.bias", f"{ours}{to}.bias", part=part))
    return rules


def attention(
    theirs: str, ours: str, reorder: Callable[[Tensor], Tensor], *, norm: str = "norm", out: str = "proj_out"
) -> list[Rule]:
    """Maps self-attention with a single layer for queries, keys and values, after `theirs`, to ours, after `ours`.

    Args:
        theirs: Prefix of their keys.
        ours: Prefix of ours.
        reorder: Puts the rows of that layer's weight and bias in the order queries, keys, values.
        norm: Their name of the norm before it.
        out: Their name of the layer after it.
    """
    targets = tuple(rf"{ours}{name}.\1" for name in ("query", "key_value"))
    qkv = Rule(rf"{re.escape(theirs)}qkv\.(weight|bias)", targets, sizes=(1, 2), change=reorder)
    return [*pairs(theirs, ours, {norm: "norm"}), qkv, *matrices(theirs, ours, {out: "out"})]


def rename(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the tensors by their new keys, and the keys that were set aside.

    Raises:
        ValueError: If a key matches no rule or more than one, two tensors get one key, or a tensor cannot be changed or
            split as its rule says.
    """
    weights: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    unknown, left = [], []
    for key, tensor in tensors.items():
        found = [(rule, match) for rule in rules if (match := rule.compiled.fullmatch(key))]
        if not found:
            unknown.append(key)
            continue
        if len(found) > 1:
            raise ValueError(f"the key {key!r} matches {len(found)} rules: {[rule.pattern for rule, _ in found]}")
        rule, match = found[0]
        if not rule.to:
            left.append(key)
            continue
        targets = [match.expand(to) for to in ((rule.to,) if isinstance(rule.to, str) else rule.to)]
        for target, piece in zip(targets, _split(key, tensor, rule, len(targets))):
            place = parts.setdefault(target, {})
            if target in weights or (bool(place) if rule.part is None else rule.part in place):
                raise ValueError(f"the key {key!r} and another both become {target!r}")
            if rule.part is None:
                weights[target] = piece
            else:
                place[rule.part] = piece
    if unknown:
        raise ValueError(f"unknown keys: {join_keys(unknown)}")
    for target, place in parts.items():
        if place:
            weights[target] = _join(target, place)
    return weights, tuple(left)


def tensors_of(state: Any, what: str) -> dict[str, Tensor]:
    """Returns a state dict, a mapping of strings to tensors.

    Raises:
        ValueError: If `state` is not one. The message calls it `what`.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"expected {what} to be a state dict, got {type(state).__name__}")
    odd = [key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"expected {what} to hold tensors by name, got something else at {join_keys(odd)}")
    return dict(state)


def linear(weight: Tensor) -> Tensor:
    """Returns a 1x1 convolution, `o i 1 …`, as a matrix `o i`.

    Raises:
        ValueError: If the kernel is wider.
    """
    if any(size != 1 for size in weight.shape[2:]):
        raise ValueError(f"expected a 1x1 convolution, got {tuple(weight.shape)}")
    return weight.flatten(1)


def join_keys(keys: Collection[object]) -> str:
    """Lists the first keys and the number of others."""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(map(str, list(keys)[:_SHOWN])) + more


def _split(key: str, tensor: Tensor, rule: Rule, num: int) -> tuple[Tensor, ...]:
    try:
        changed = rule.change(tensor) if rule.change else tensor
    except (ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"the key {key!r}: {error}") from error
    if num == 1:
        return (changed,)
    sizes = rule.sizes or (1,) * num
    unit, rest = divmod(len(changed) if changed.ndim else 1, sum(sizes))
    if rest:
        raise ValueError(f"the key {key!r} expects a first size that {sum(sizes)} divides, got {tuple(changed.shape)}")
    return torch.split(changed, [unit * size for size in sizes])


def _join(target: str, place: Mapping[int, Tensor]) -> Tensor:
    if sorted(place) != list(range(len(place))):
        raise ValueError(f"missing a part of {target!r}: got parts {sorted(place)}")
    try:
        return torch.cat([place[part] for part in sorted(place)])
    except RuntimeError as error:
        raise ValueError(f"the parts of {target!r} do not join: {error}") from error
