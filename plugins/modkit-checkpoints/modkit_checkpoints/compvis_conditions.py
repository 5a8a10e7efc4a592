"""What conditions a diffusion model of CompVis's, as a conditioner of ours and the fields it reads.

    crossattn   a class embedder has a counterpart; tokens of a text encoder are given as a field
    concat      a map beside the latent, on its grid, is given as a field
    adm         the network embeds the class

What made tokens or maps is set aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modkit_checkpoints.arguments import Arguments
from modkit_checkpoints.compvis_config import target
from modkit_checkpoints.compvis_network import Network
from modkit_checkpoints.conversion import Rule, aside

__all__ = ["Condition", "condition", "unconditional"]

_THEIRS = r"cond_stage_model\."
_WHERE = "model.params.cond_stage_config"
_NONE_OF_IMAGENET = 1001  # classes in the authors' configuration that has one for no class
_TOKENS = {  # the number of tokens, as it is called, of each encoder that is no part of ours; 77 where not given
    "BERTEmbedder": "max_seq_len",
    "TransformerEmbedder": "max_seq_len",
    "FrozenCLIPTextEmbedder": "max_length",
    "FrozenCLIPEmbedder": "max_length",
}


@dataclass(frozen=True)
class Condition:
    """What conditions a network.

    Args:
        node: The conditioner's node.
        fields: The fields that it reads.
        rules: Where its keys go.
        weights: What the authors have no key of.
    """

    node: Mapping[str, Any]
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: Sequence[Rule] = (aside(rf"{_THEIRS}.*"),)
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def condition(given: Arguments, network: Network, *, channels: int, size: int, ours: str) -> Condition:
    """Reads how a network is conditioned, and on what.

    Args:
        given: The diffusion model's parameters.
        network: The network.
        channels: Channels of the latent.
        size: Size of its maps.
        ours: What precedes our keys.

    Raises:
        ValueError: If modkit has no counterpart for it, or it does not fit the network.
    """
    node, key = given.values["cond_stage_config"], given.values["conditioning_key"]
    given.only("num_timesteps_cond", [None, 1], why="modkit has no counterpart")
    key = key or ("concat" if given.flag("concat_mode") else "crossattn")
    key = None if node == "__is_unconditional__" else key
    if key not in (None, "concat", "crossattn", "adm"):
        raise given.error("conditioning_key", "concat, crossattn or adm (modkit has no counterpart)")
    beside = network.channels - channels
    _check(key, network, beside)
    if key is None:
        return Condition({"use": "none"})
    if key == "concat":
        return _map((beside, size, size), ours)
    if network.classes is not None:
        return _class_id(network.classes, ours)
    name, params = target(node, _WHERE)
    if name == "ClassEmbedder" and network.context is not None:
        return _class_token(params, network.context, ours)
    if name in _TOKENS and network.context is not None:
        return _given_tokens((_length(params, _TOKENS[name]), network.context), ours)
    known = ", ".join(("ClassEmbedder", *_TOKENS))
    raise ValueError(f"{_WHERE}.target is expected to be one of {known} under {key}, got {name!r}")


def unconditional(given: Arguments, network: Network, *, channels: int) -> Condition:
    """Nothing, checked.

    Raises:
        ValueError: If the network is conditioned.
    """
    given.only("conditioning_key", [None], why="modkit has no counterpart without a first stage")
    _check(None, network, network.channels - channels)
    return Condition({"use": "none"})


def _check(key: str | None, network: Network, beside: int) -> None:
    suits = {"concat": beside > 0, "crossattn": network.context is not None, "adm": network.classes is not None}
    if suits != {one: one == key for one in suits} or beside < 0:
        raise ValueError(
            f"model.params.conditioning_key {key!r} does not suit a network of {beside} channels beside x, "
            f"context_dim {network.context} and num_classes {network.classes}"
        )


def _map(shape: tuple[int, int, int], ours: str) -> Condition:
    return Condition(
        {"use": "map", "maps": ["map"], "keep": 0},
        {"map": {"shape": list(shape)}},
        weights=_examples(shape, ours),
    )


def _given_tokens(shape: tuple[int, int], ours: str) -> Condition:
    return Condition(
        {"use": "checkpoints/given-tokens", "keep": 0},
        {"tokens": {"shape": list(shape)}},
        weights=_examples(shape, ours),
    )


def _length(params: Mapping[str, Any], name: str) -> int:
    return Arguments(f"{_WHERE}.params", {name: params.get(name, 77)}, {name: 77}).integer(name)


def _class_token(params: Mapping[str, Any], context: int, ours: str) -> Condition:
    given = Arguments(f"{_WHERE}.params", params, {"embed_dim": None, "n_classes": 1000, "key": "class"})
    width, num = int(given.only("embed_dim", [context], why="the network's context_dim")), given.integer("n_classes")
    none = num == _NONE_OF_IMAGENET
    return Condition(
        {"use": "checkpoints/class-token", "width": width, "none": none, "drop": 0.1 if none else 0.0},
        {"labels": {"shape": [], "classes": num - none}},
        (Rule(rf"{_THEIRS}embedding\.weight", f"{ours}embedding.weight"),),
        _frequencies(num - none, ours),
    )


def _class_id(classes: int, ours: str) -> Condition:
    return Condition(
        {"use": "checkpoints/class-id", "drop": 0.0},
        {"labels": {"shape": [], "classes": classes}},
        weights=_frequencies(classes, ours),
    )


def _frequencies(classes: int, ours: str) -> dict[str, Tensor]:
    return {f"{ours}counted.frequencies": torch.full((classes,), 1 / classes)}


def _examples(shape: Sequence[int], ours: str) -> dict[str, Tensor]:
    return {
        f"{ours}examples.num": torch.zeros((), dtype=torch.int64),
        f"{ours}examples.examples_0": torch.zeros(0, *shape),
    }
