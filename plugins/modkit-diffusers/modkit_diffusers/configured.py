"""Parts configured like a class of diffusers: their keywords are its own, and a folder that it saved may give them.

A part's constructor is a signature; its arguments become `config`, a dictionary as diffusers keeps one, which `_build`
completes from the types of its neighbours. With the keyword `folder`, the configuration in that folder becomes keywords
when a spec is planned, and `pretrained` names the folder of the weights, which only a new model reads. The resolved
spec of a run no longer needs the folder.
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

__all__ = ["Configured", "check_agreement", "check_folder", "expand", "list_blocks", "list_keywords", "make"]

_START = ("folder", "pretrained", "train")  # about weights, not part of the configuration


def list_keywords(target: Callable[..., Any]) -> tuple[str, ...]:
    """Lists the keys of the configuration that a user can set on a part."""
    parameters = inspect.signature(target).parameters.values()
    return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.name not in _START)


def make(name: str, config: Mapping[str, Any], *, module: str = "diffusers") -> nn.Module:
    """Makes one of diffusers' networks, which is imported here.

    Args:
        name: Its class.
        config: Its arguments.
        module: The module of the class.
    """
    network: Callable[..., nn.Module] = getattr(importlib.import_module(module), name)
    return network(**{key: tuple(value) if isinstance(value, list) else value for key, value in config.items()})


def list_blocks(pyramid: nn.Module) -> list[nn.Module]:
    """Lists the blocks of one of diffusers' pyramids: those on the way down, the middle, those on the way up."""
    ways = [
        *getattr(pyramid, "down_blocks", ()),
        getattr(pyramid, "mid_block", None),
        *getattr(pyramid, "up_blocks", ()),
    ]
    return [block for block in ways if block is not None]


def expand(target: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces the keyword `folder` of a spec by the configuration in it and `pretrained`.

    Keywords given with `folder` override the configuration, and what that omits has the default of the class.

    Args:
        target: The part's class, with `origins` and `unread` as `Configured` has them.
        params: The keywords in the spec.

    Raises:
        ValueError: If there is no such folder, its configuration is missing, damaged or of another class, or a key in
            it is unknown or has no counterpart in the part.
    """
    folder = params.get("folder")
    if not isinstance(folder, str):
        return dict(params)
    owner, own = target.__name__, list_keywords(target)
    config = read_config(owner, folder, target.origins)
    source, where = config["_class_name"], f"{folder}/{CONFIG}"
    known = _list_defaults(source)
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
    """Refuses a `folder` in a call, since only a spec expands it."""
    if folder is not None:
        raise ValueError(
            f"{owner} expects `folder` in a spec, which expands it, got {folder!r} in a call: "
            f"call it with **{owner}.expand_params({{'folder': …}})"
        )


def check_agreement(owner: str, name: str, value: int, given: int | None) -> None:
    """Checks that a neighbour's value is that of the configuration, if it has one.

    Raises:
        ValueError: If it is not.
    """
    if given is not None and given != value:
        raise ValueError(f"{owner} expects {name} {given}, as its configuration says, got {value} from its neighbours")


class Configured(nn.Module):
    """A part configured like a class of diffusers: constructors pass their `locals()`, and `_build` gets the types.

    Args:
        given: The arguments of the constructor, by name.

    Attributes:
        origins: Names of the classes in diffusers whose folders it accepts, first the one that it wraps.
        unread: Keys of the configuration that only diffusers' pipelines or other parts read.
        pieces: The first names of its keys in a folder of weights; with None, all of them.
        owner: Name of its class, for error messages.
        config: Its configuration.
        frozen: Whether it starts from a folder's weights and does not train them.
    """

    origins: ClassVar[tuple[str, ...]]
    unread: ClassVar[tuple[str, ...]] = ()
    pieces: ClassVar[tuple[str, ...] | None] = None
    expand_params = classmethod(expand)
    _build: Callable[..., None]  # checks the configuration against the types, completes it and makes the modules

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.owner = type(self).__name__
        check_folder(self.owner, given["folder"])
        self.config: dict[str, Any] = {key: _copy_plain(given[key]) for key in list_keywords(type(self))}
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
        """Loads the weights of the folder, if one was given.

        Raises:
            ValueError: If files are missing or damaged, or keys or shapes differ.
        """
        if self._pretrained is not None:
            tensors = read_tensors(self.owner, self._pretrained)
            if self.pieces is not None:
                tensors = {key: value for key, value in tensors.items() if key.partition(".")[0] in self.pieces}
            load_exactly(self.owner, self.bare, tensors, self._pretrained)

    def agree(self, key: str, value: int) -> int:
        """Sets a key of the configuration to a neighbour's value.

        Raises:
            ValueError: If the configuration has another value.
        """
        check_agreement(self.owner, key, value, self.config[key])
        self.config[key] = value
        return value

    def check_maps(self, name: str, type: TensorType) -> tuple[int, tuple[int, int]]:
        """Returns the channels and size `(h, w)` of continuous maps.

        Raises:
            ValueError: If the type is another.
        """
        if type.classes is not None or len(type.shape) != 3:
            raise ValueError(f"{self.owner} expects {name} as continuous maps (c, h, w), got {type}")
        channels, height, width = type.shape
        return channels, (height, width)

    def check_halvings(self, size: tuple[int, int]) -> None:
        """Checks that sides can be halved between the levels; a `ValueError` says which number must divide them."""
        num = len(self.config["block_out_channels"]) - 1
        if any(side % 2**num for side in size):
            shown = "×".join(map(str, size))
            raise ValueError(f"{self.owner} expects sides that {2**num} divides, for {num} halvings, got {shown}")

    def check_groups(self) -> None:
        """Checks that there are levels and that each one's channels divide into the normalisation's groups."""
        channels, groups = self.config["block_out_channels"], self.config["norm_num_groups"]
        if not channels or min(channels) < 1 or (groups is not None and groups < 1):
            expected, got = "block_out_channels and norm_num_groups of at least 1", f"{channels} and {groups}"
            raise ValueError(f"{self.owner} expects {expected}, got {got}")
        if groups is not None and any(wide % groups for wide in channels):
            expected = f"block_out_channels that norm_num_groups {groups} divides"
            raise ValueError(f"{self.owner} expects {expected}, got {channels}")

    def set_blocks(self, key: str, kinds: list[str]) -> list[str]:
        """Sets the blocks of each level to `kinds`, if none are given.

        Raises:
            ValueError: If there are not as many as levels.
        """
        levels = len(self.config["block_out_channels"])
        blocks = self.config[key] = kinds if self.config[key] is None else self.config[key]
        if len(blocks) != levels:
            raise ValueError(f"{self.owner} expects {key} of each of {levels} levels, got {blocks}")
        return blocks


def _list_defaults(name: str) -> dict[str, Any]:
    """Lists the keywords of a diffusers class, with their defaults as in JSON."""
    import diffusers

    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    return {key: _copy_plain(one.default) for key, one in parameters.items() if key != "self"}


def _copy_plain(value: Any) -> Any:
    """Copies a value, with tuples as lists, as in JSON."""
    return [_copy_plain(item) for item in value] if isinstance(value, list | tuple) else value
