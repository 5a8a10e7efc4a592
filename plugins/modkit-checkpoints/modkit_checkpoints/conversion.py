r"""What a format makes of a source: a spec, weights by modkit's names, and what was set aside; and how keys are mapped.

    rules = [
        Rule(r"conv_in\.(weight|bias)", r"encoder.conv_in.\1"),                      # renamed
        Rule(r"attn\.q\.weight", "encoder.query.weight", change=linear),            # a 1x1 convolution as a matrix
        Rule(r"attn\.k\.weight", "encoder.key_value.weight", part=0, change=linear),  # joined along the first axis,
        Rule(r"attn\.v\.weight", "encoder.key_value.weight", part=1, change=linear),  # in the order of the parts
        Rule(r"qkv\.weight", ("query.weight", "key_value.weight"), sizes=(1, 2)),     # split along it, 1 : 2
        aside(r"loss\..*"),                                                          # of no use to a model
    ]
    weights, aside = renamed(tensors, rules)

A format is a function `convert(source, config, raw) -> Conversion`: `source` is what `pickled.read` gave (nested dicts
and lists of tensors, plain values and placeholders), `config` the parsed configuration or None, `raw` whether to take
the weights as they were trained even where averaged ones are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "Conversion",
    "Rule",
    "aside",
    "attention",
    "convolution",
    "linear",
    "matrix",
    "pair",
    "renamed",
    "tensors_of",
]

_SHOWN = 8


@dataclass(frozen=True)
class Conversion:
    """What a format makes of a source.

    Args:
        spec: The spec as plain data, with `name`, `model` and `x: {shape, range}`; where parts read fields, with
            `x: {…, fields: {labels: {shape: [], classes: 10}}}`. No `data`, no `train`.
        weights: Every tensor of the model's state dict, by its key.
        aside: Keys of the source that were set aside: losses, optimizers, metrics, other copies of the weights.
    """

    spec: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    aside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    r"""Where keys of the source go.

    Args:
        pattern: A regular expression that the whole key matches.
        to: The new key, in which `\1` stands for the first group; several, for pieces along the first axis; none, to
            set the tensor aside.
        part: The place of this tensor among those that are joined, along the first axis, under one new key.
        sizes: The pieces' sizes in proportion; equal where not given.
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
    """The rule that sets keys aside."""
    return Rule(pattern)


def pair(theirs: str, ours: str) -> list[Rule]:
    """Weight and bias of one layer."""
    return [Rule(rf"{re.escape(theirs)}\.(weight|bias)", rf"{ours}.\1")]


def matrix(theirs: str, ours: str, part: int | None = None) -> list[Rule]:
    """A convolution one wide, or a linear layer, as a linear layer; `part`: its place among those joined."""
    return [
        Rule(rf"{re.escape(theirs)}\.weight", f"{ours}.weight", part=part, change=linear),
        Rule(rf"{re.escape(theirs)}\.bias", f"{ours}.bias", part=part),
    ]


def attention(
    theirs: str, ours: str, in_turn: Callable[[Tensor], Tensor], *, norm: str = "norm", out: str = "proj_out"
) -> list[Rule]:
    """Self-attention with one layer for queries, keys and values; `in_turn` brings its outputs into this order.

    Args:
        theirs: What precedes their keys.
        ours: What precedes ours.
        in_turn: Applied to the layer's weight and bias.
        norm: Their name of the norm before it.
        out: Their name of the layer after it.
    """
    targets = tuple(rf"{ours}.{name}.\1" for name in ("query", "key_value"))
    return [
        *pair(f"{theirs}.{norm}", f"{ours}.norm"),
        Rule(rf"{re.escape(theirs)}\.qkv\.(weight|bias)", targets, sizes=(1, 2), change=in_turn),
        *matrix(f"{theirs}.{out}", f"{ours}.out"),
    ]


def renamed(tensors: Mapping[str, Tensor], rules: Sequence[Rule]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors by their new keys, and the keys that were set aside.

    Raises:
        ValueError: If a key matches no rule, or two rules, so that one could never act; if two tensors get one key; or
            a tensor cannot be changed or split as its rule says.
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
        for target, piece in zip(targets, _pieces(key, tensor, rule, len(targets))):
            place = parts.setdefault(target, {})
            if target in weights or (bool(place) if rule.part is None else rule.part in place):
                raise ValueError(f"the key {key!r} and another both become {target!r}")
            if rule.part is None:
                weights[target] = piece
            else:
                place[rule.part] = piece
    if unknown:
        raise ValueError(f"unknown keys: {_listed(unknown)}")
    for target, place in parts.items():
        if place:
            weights[target] = _joined(target, place)
    return weights, tuple(left)


def tensors_of(state: Any, what: str) -> dict[str, Tensor]:
    """A state dict: a mapping of strings to tensors.

    Args:
        state: What should be one.
        what: Its name in errors.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"expected {what} to be a state dict, got {type(state).__name__}")
    odd = [key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if odd:
        raise ValueError(f"expected {what} to hold tensors by name, got something else at {_listed(odd)}")
    return dict(state)


def linear(weight: Tensor) -> Tensor:
    """The matrix `o i` of a convolution one wide, `o i 1 …`.

    Raises:
        ValueError: If it is wider.
    """
    if any(size != 1 for size in weight.shape[2:]):
        raise ValueError(f"expected a convolution one wide, got {tuple(weight.shape)}")
    return weight.flatten(1)


def convolution(rank: int) -> Callable[[Tensor], Tensor]:
    """Makes of a matrix `o i` a convolution one wide over `rank` sizes."""
    return lambda weight: weight.reshape(*weight.shape, *(1,) * rank)


def _pieces(key: str, tensor: Tensor, rule: Rule, num: int) -> tuple[Tensor, ...]:
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


def _joined(target: str, place: Mapping[int, Tensor]) -> Tensor:
    if sorted(place) != list(range(len(place))):
        raise ValueError(f"missing a part of {target!r}: got parts {sorted(place)}")
    try:
        return torch.cat([place[part] for part in sorted(place)])
    except RuntimeError as error:
        raise ValueError(f"the parts of {target!r} do not join: {error}") from error


def _listed(keys: Iterable[object]) -> str:
    every = list(keys)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(map(str, every[:_SHOWN])) + more
