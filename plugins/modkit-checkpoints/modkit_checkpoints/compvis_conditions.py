"""The condition of one of CompVis's diffusion models, as a conditioner of modkit and the fields that it reads.

    crossattn   a class embedder has a counterpart; tokens of a text encoder are read from a field
    concat      a map on the latent's grid is read from a field
    adm         the network embeds the class

The modules that computed tokens or maps are set aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.compvis_config import read_target
from modkit_checkpoints.compvis_network import Network
from modkit_checkpoints.conversion import Rule, aside

__all__ = ["Condition", "check_unconditional", "read_condition"]

_THEIRS = r"cond_stage_model\."
_WHERE = "model.params.cond_stage_config"
_NONE_OF_IMAGENET = 1001  # classes in the authors' configuration that has one for no class
_TOKENS = {  # the name of the number of tokens, 77 by default, of each encoder without a counterpart
    "BERTEmbedder": "max_seq_len",
    "TransformerEmbedder": "max_seq_len",
    "FrozenCLIPTextEmbedder": "max_length",
    "FrozenCLIPEmbedder": "max_length",
}


@dataclass(frozen=True)
class Condition:
    """The condition of a network.

    Args:
        node: The conditioner's node.
        fields: The fields that it reads.
        rules: The rules for its keys.
        weights: Weights without a counterpart in the authors' checkpoint.
    """

    node: Mapping[str, Any]
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: Sequence[Rule] = (aside(rf"{_THEIRS}.*"),)
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def read_condition(given: Arguments, network: Network, *, ours: str) -> Condition:
    """Reads a latent diffusion model's condition.

    Args:
        given: The model's parameters.
        network: Its network.
        ours: Prefix of our keys.

    Raises:
        ValueError: If modkit has no counterpart for it, or it does not fit the network.
    """
    node, key = given.values["cond_stage_config"], given.values["conditioning_key"]
    given.only("num_timesteps_cond", [None, 1], why="modkit has no counterpart")
    key = key or ("concat" if given.flag("concat_mode") else "crossattn")
    key = None if node == "__is_unconditional__" else key
    if key not in (None, "concat", "crossattn", "adm"):
        raise given.error("conditioning_key", "concat, crossattn or adm (modkit has no counterpart)")
    _check(key, network)
    if key is None:
        return Condition({"use": "none"})
    if key == "concat":
        shape = (network.channels - network.out, network.size, network.size)
        return _given({"use": "map", "maps": ["map"]}, "map", shape, ours)
    if network.classes is not None:
        return _classes({"use": "checkpoints/class-id", "drop": 0.0}, network.classes, ours)
    name, params = read_target(node, _WHERE)
    if name == "ClassEmbedder" and network.context is not None:
        return _class_token(params, network.context, ours)
    if name in _TOKENS and network.context is not None:
        length = _TOKENS[name]
        num = Arguments(f"{_WHERE}.params", {length: params.get(length, 77)}, {length: 77}).integer(length)
        return _given({"use": "checkpoints/given-tokens"}, "tokens", (num, network.context), ours)
    known = ", ".join(("ClassEmbedder", *_TOKENS))
    raise ValueError(f"{_WHERE}.target is expected to be one of {known} under {key}, got {name!r}")


def check_unconditional(given: Arguments, network: Network) -> Condition:
    """Checks that a diffusion model without a first stage has no condition, and returns that.

    Raises:
        ValueError: If it has one.
    """
    given.only("conditioning_key", [None], why="modkit has no counterpart without a first stage")
    _check(None, network)
    return Condition({"use": "none"})


def _check(key: str | None, network: Network) -> None:
    beside = network.channels - network.out
    suits = {"concat": beside > 0, "crossattn": network.context is not None, "adm": network.classes is not None}
    if suits != {one: one == key for one in suits} or beside < 0:
        raise ValueError(
            f"model.params.conditioning_key {key!r} does not suit a network of {beside} channels beside x, "
            f"context_dim {network.context} and num_classes {network.classes}"
        )


def _given(node: Mapping[str, Any], name: str, shape: Sequence[int], ours: str) -> Condition:
    """Returns a condition that is a continuous field; no examples of it are kept."""
    nothing = {"num": torch.zeros((), dtype=torch.int64), "examples_0": torch.zeros(0, *shape)}
    weights = {f"{ours}examples.{key}": value for key, value in nothing.items()}
    return Condition({**node, "keep": 0}, {name: {"shape": list(shape)}}, weights=weights)


def _class_token(params: Mapping[str, Any], context: int, ours: str) -> Condition:
    given = Arguments(f"{_WHERE}.params", params, {"embed_dim": None, "n_classes": 1000, "key": "class"})
    width, num = int(given.only("embed_dim", [context], why="the network's context_dim")), given.integer("n_classes")
    none = num == _NONE_OF_IMAGENET
    node = {"use": "checkpoints/class-token", "width": width, "none": none, "drop": 0.1 if none else 0.0}
    rule = Rule(rf"{_THEIRS}embedding\.weight", f"{ours}embedding.weight")
    return _classes(node, num - none, ours, (rule,))


def _classes(node: Mapping[str, Any], num: int, ours: str, rules: Sequence[Rule] = Condition.rules) -> Condition:
    """Returns a condition that is one of `num` classes, all equally frequent."""
    frequencies = {f"{ours}counted.frequencies": torch.full((num,), 1 / num)}
    return Condition(node, {"labels": {"shape": [], "classes": num}}, rules, frequencies)
