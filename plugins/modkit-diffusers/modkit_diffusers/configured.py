"""Parts that are configured as a class of diffusers is: their keywords are its own, and a folder of its may give them.

A part's constructor is a signature; what it was called with is its `config`, a dictionary as diffusers keeps one, which
`_build` completes by what the neighbours tell. With the keyword `folder`, the configuration in that folder becomes
keywords when a spec is planned, and `pretrained` names the folder of the weights, which only a new model reads. What a
run resolves to needs the folder no more.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import nn

from modkit.errors import suggest
from modkit.features.weight_file import load_exactly
from modkit.types import TensorType
from modkit_diffusers.folder import CONFIG, read_config, read_tensors

__all__ = ["Configured", "check_agreement", "check_folder", "expand", "keywords", "make"]

_START = ("folder", "pretrained", "train")  # of weights, no configuration


def keywords(target: Callable[..., Any]) -> tuple[str, ...]:
    """The configuration's keys that a user sets on a part."""
    parameters = inspect.signature(target).parameters.values()
    return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.name not in _START)


def make(name: str, config: Mapping[str, Any], *, module: str = "diffusers") -> nn.Module:
    """Makes a network of diffusers, which is imported here.

    Args:
        name: Its class.
        config: What it is made with.
        module: Where the class is.
    """
    network: Callable[..., nn.Module] = getattr(importlib.import_module(module), name)
    return network(**{key: tuple(value) if isinstance(value, list) else value for key, value in config.items()})


def expand(target: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that those of a spec stand for: in place of `folder` the configuration in it, and `pretrained`.

    What is written beside `folder` takes the place of what the configuration says, and what that leaves out is as the
    class has it.

    Args:
        target: The part's class, with `sources` and `unread` as `Configured` has them.
        params: The keywords as written.

    Raises:
        ValueError: If the folder does not exist, its configuration is missing, damaged or of another class, or it has a
            key that is unknown, or one that the part has no counterpart for.
    """
    folder = params.get("folder")
    if not isinstance(folder, str):
        return dict(params)
    owner, own = target.__name__, keywords(target)
    config = read_config(owner, folder, target.sources)
    source, where = config["_class_name"], f"{folder}/{CONFIG}"
    known = _defaults(source)
    taken = {key: value for key, value in known.items() if key in own}  # older folders say less
    for key, value in config.items():
        if key in own:
            taken[key] = value
        elif key.startswith("_") or key in target.unread:
            continue
        elif key not in known:
            raise ValueError(f"{owner} expects keys of {source} in {where}, got {key!r}{suggest(key, known, '; ')}")
        elif value != known[key]:
            expected = f"{key} to be {json.dumps(known[key])}, since modkit has no counterpart"
            raise ValueError(f"{owner} expects {expected}, got {json.dumps(value)} in {where}")
    return {**taken, "pretrained": folder, **{name: value for name, value in params.items() if name != "folder"}}


def check_folder(owner: str, folder: str | None) -> None:
    """Refuses a `folder` that no spec has written out.

    Raises:
        ValueError: If one is given.
    """
    if folder is not None:
        raise ValueError(
            f"{owner} expects `folder` in a spec, which writes it out, got {folder!r} in a call: "
            f"call it with **{owner}.expand_params({{'folder': …}})"
        )


def check_agreement(owner: str, name: str, told: int, given: int | None) -> None:
    """Checks that a neighbour tells what the configuration says, if it says anything.

    Raises:
        ValueError: If it does not.
    """
    if given is not None and given != told:
        raise ValueError(f"{owner} expects {name} {given}, as its configuration says, got {told} from its neighbours")


class Configured(nn.Module):
    """A part configured as a class of diffusers: constructors pass on their `locals()`, and `_build` takes the types.

    Args:
        given: What the constructor was called with, by name.

    Attributes:
        sources: The classes of diffusers whose folders it takes, by name, the one that it is made of first.
        unread: Keys of the configuration that only diffusers' pipelines read, or the parts beside this one.
        pieces: The first names of its keys in a folder of weights; None: all of them.
        owner: Its class's name, for messages.
        config: Its configuration.
        frozen: Whether it starts from a folder's weights and does not train them.
    """

    sources: ClassVar[tuple[str, ...]]
    unread: ClassVar[tuple[str, ...]] = ()
    pieces: ClassVar[tuple[str, ...] | None] = None
    expand_params = classmethod(expand)
    _build: Callable[..., None]  # checks the configuration against the types, completes it and makes the modules

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.owner = type(self).__name__
        check_folder(self.owner, given["folder"])
        self.config: dict[str, Any] = {key: _plain(given[key]) for key in keywords(type(self))}
        self._pretrained: str | None = given["pretrained"]
        self.frozen = self._pretrained is not None and not given["train"]
        types = inspect.signature(type(self)).parameters.values()
        self._build(**{one.name: given[one.name] for one in types if one.kind is not one.KEYWORD_ONLY})
        if self.frozen:
            self.requires_grad_(False)

    @property
    def bare(self) -> nn.Module:
        """The module with diffusers' own keys."""
        return self

    def load_pretrained(self) -> None:
        """Takes the weights of the folder, where one was given.

        Raises:
            ValueError: If files are missing or damaged, or keys or shapes differ.
        """
        if self._pretrained is not None:
            tensors = read_tensors(self.owner, self._pretrained)
            if self.pieces is not None:
                tensors = {key: value for key, value in tensors.items() if key.partition(".")[0] in self.pieces}
            load_exactly(self.owner, self.bare, tensors, self._pretrained)

    def agree(self, key: str, told: int) -> int:
        """Sets a key of the configuration to what a neighbour tells.

        Raises:
            ValueError: If it says something else.
        """
        check_agreement(self.owner, key, told, self.config[key])
        self.config[key] = told
        return told

    def check_maps(self, name: str, type: TensorType) -> tuple[int, tuple[int, int]]:
        """The channels and size `(h, w)` of continuous maps.

        Raises:
            ValueError: If the type is of anything else.
        """
        if type.classes is not None or len(type.shape) != 3:
            raise ValueError(f"{self.owner} expects {name} as continuous maps (c, h, w), got {type}")
        channels, height, width = type.shape
        return channels, (height, width)

    def check_halvings(self, size: tuple[int, int]) -> None:
        """Checks that sides can be halved between the levels.

        Raises:
            ValueError: If they cannot.
        """
        num = len(self.config["block_out_channels"]) - 1
        if any(side % 2**num for side in size):
            shown = "×".join(map(str, size))
            raise ValueError(f"{self.owner} expects sides that {2**num} divides, for {num} halvings, got {shown}")

    def check_groups(self) -> None:
        """Checks that normalisation divides channels into groups.

        Raises:
            ValueError: If there is no level, or a level's channels are not divided.
        """
        channels, groups = self.config["block_out_channels"], self.config["norm_num_groups"]
        if not channels or min(channels) < 1 or (groups is not None and groups < 1):
            expected, got = "block_out_channels and norm_num_groups of at least 1", f"{channels} and {groups}"
            raise ValueError(f"{self.owner} expects {expected}, got {got}")
        if groups is not None and any(wide % groups for wide in channels):
            expected = f"block_out_channels that norm_num_groups {groups} divides"
            raise ValueError(f"{self.owner} expects {expected}, got {channels}")

    def set_blocks(self, key: str, kinds: list[str]) -> list[str]:
        """Sets the blocks of each level, where none are given.

        Args:
            key: `down_block_types` or `up_block_types`.
            kinds: Those to set.

        Raises:
            ValueError: If there are not as many as levels.
        """
        levels = len(self.config["block_out_channels"])
        blocks = self.config[key] = kinds if self.config[key] is None else self.config[key]
        if len(blocks) != levels:
            raise ValueError(f"{self.owner} expects {key} of each of {levels} levels, got {blocks}")
        return blocks


def _defaults(name: str) -> dict[str, Any]:
    """The keywords of a diffusers class, with their defaults as JSON has them."""
    import diffusers

    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    return {key: _plain(one.default) for key, one in parameters.items() if key != "self"}


def _plain(value: Any) -> Any:
    """A copy, of lists as JSON has them."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
