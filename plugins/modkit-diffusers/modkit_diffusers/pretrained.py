"""Pretrained folders: what diffusers' `save_pretrained` writes, read from the disk and nowhere else.

    config.json                                   the class, and what it was made with
    diffusion_pytorch_model.safetensors           its weights, or
    diffusion_pytorch_model.safetensors.index.json    the names of the files that hold them

A part with the keyword `folder` is written out when its spec is planned: the configuration becomes keywords of the
part's own, and `pretrained` names the folder of the weights, which only a new model reads. What a run resolves to needs
the folder no more.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from modkit.errors import did_you_mean
from modkit.features.weight_file import load_exactly, read_bytes, read_weights

__all__ = ["check_unread", "load", "written_out"]

_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_JSON_LIMIT = 2**24
_FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # before diffusers 0.17
_FORMER_KEY = re.compile(r"(.+\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")


def written_out(
    target: Callable[..., Any],
    classes: Sequence[str],
    params: Mapping[str, Any],
    *,
    beside: Sequence[Callable[..., Any]] = (),
    unread: Sequence[str] = (),
) -> dict[str, Any]:
    """The keywords that those of a spec stand for: in place of `folder` the configuration in it, and `pretrained`.

    What is written beside `folder` takes the place of what the configuration says, and what that leaves out is as the
    class has it.

    Args:
        target: The part's class.
        classes: The diffusers classes whose configuration it takes, by name.
        params: The keywords as written.
        beside: Parts that take what else such a configuration holds.
        unread: What only diffusers' pipelines read.

    Raises:
        ValueError: If there is no such folder, its configuration is missing, damaged or of another class, or it has a
            key that is unknown, or one that the part has no counterpart for.
    """
    folder = params.get("folder")
    if not isinstance(folder, str):
        return dict(params)
    owner = target.__name__
    config = _config(owner, folder, classes)
    own, others = _keywords(target), {name for part in beside for name in _keywords(part)}
    known = _defaults(config["_class_name"])
    taken = {key: _plain(value) for key, value in known.items() if key in own}  # older folders say less
    for key, value in config.items():
        if key in own:
            taken[key] = value
        elif key.startswith("_") or key in others or key in unread:
            continue
        elif key not in known:
            hint = did_you_mean(key, known)
            raise ValueError(
                f"{owner} expects keys of {config['_class_name']} in {folder}/{_CONFIG}, got {key!r}{hint}"
            )
        elif value != _plain(known[key]):
            expected = f"{key} to be {json.dumps(_plain(known[key]))}, since modkit has no counterpart"
            raise ValueError(f"{owner} expects {expected}, got {json.dumps(value)} in {folder}/{_CONFIG}")
    written = {name: value for name, value in params.items() if name != "folder"}
    return {**taken, "pretrained": folder, **written}


def check_unread(owner: str, folder: str | None) -> None:
    """Refuses a `folder` that no spec has written out.

    Raises:
        ValueError: If one is given.
    """
    if folder is not None:
        raise ValueError(
            f"{owner} expects `folder` in a spec, which writes it out, got {folder!r} in a call: "
            f"call it with **{owner}.expanded({{'folder': …}})"
        )


def load(owner: str, module: nn.Module, folder: str, *, pieces: Sequence[str] | None = None) -> None:
    """Gives a module the weights of a folder.

    Args:
        owner: Name of the class that asks, for messages.
        module: The module, with diffusers' own keys.
        folder: The folder.
        pieces: The first names of the keys that are the module's; all of them where not given.

    Raises:
        ValueError: If files are missing or damaged, or keys or shapes differ.
    """
    tensors = {_present(key): value for key, value in _tensors(owner, folder).items()}
    mine = tensors if pieces is None else {k: v for k, v in tensors.items() if k.partition(".")[0] in pieces}
    load_exactly(owner, module, mine, folder)


def _config(owner: str, folder: str, classes: Sequence[str]) -> dict[str, Any]:
    """The configuration of a folder, of one of these classes."""
    config = _json(owner, _there(owner, folder, _CONFIG))
    if config.get("_class_name") not in classes:
        expected = " or ".join(classes)
        raise ValueError(f"{owner} expects a folder of {expected}, got {config.get('_class_name')} in {folder}")
    return config


def _tensors(owner: str, folder: str) -> dict[str, Tensor]:
    path = _there(owner, folder, _WEIGHTS, _INDEX)
    if path.name == _WEIGHTS:
        return read_weights(owner, path)
    files = _json(owner, path).get("weight_map")
    if not isinstance(files, dict) or not all(_is_plain(name) for name in files.values()):
        raise ValueError(f"{owner} expects a `weight_map` of keys to plain file names in {path}, got {files!r:.100}")
    found: dict[str, Tensor] = {}
    for name in sorted(set(files.values())):
        found |= read_weights(owner, _there(owner, folder, name))
    if found.keys() != files.keys():
        odd = sorted(found.keys() ^ files.keys())
        raise ValueError(f"{owner} expects the files of {folder} to hold what {_INDEX} says, got others: {odd[:3]}")
    return found


def _there(owner: str, folder: str, *names: str) -> Path:
    """The first of some files that is in a folder."""
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"{owner} expects a local folder that diffusers saved, got {folder!r}: nothing is downloaded")
    for name in names:
        if (path / name).is_file():
            return path / name
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    hint = "; it is a pipeline's: name the folder of one model in it" if (path / "model_index.json").is_file() else ""
    raise ValueError(f"{owner} expects {' or '.join(names)} in {folder}, got {found}{hint}")


def _json(owner: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_bytes(owner, path, _JSON_LIMIT))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{owner} expects JSON in {path}, got a damaged file: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{owner} expects a JSON object in {path}, got {type(value).__name__}")
    return value


def _keywords(target: Callable[..., Any]) -> set[str]:
    """What a user sets on a part."""
    parameters = inspect.signature(target).parameters.values()
    return {one.name for one in parameters if one.kind is one.KEYWORD_ONLY} - {"folder", "pretrained", "train"}


def _defaults(name: str) -> dict[str, Any]:
    """The keywords of a diffusers class, with their defaults."""
    import diffusers

    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    return {key: one.default for key, one in parameters.items() if key != "self"}


def _plain(value: Any) -> Any:
    """A default as JSON gives it."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _present(key: str) -> str:
    """A key as diffusers has it today."""
    match = _FORMER_KEY.fullmatch(key)
    return f"{match[1]}.{_FORMER[match[2]]}.{match[3]}" if match else key


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name
