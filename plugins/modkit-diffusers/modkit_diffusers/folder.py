"""Folders as diffusers' `save_pretrained` writes them, read from the disk and nowhere else.

config.json                                   the class and its arguments
diffusion_pytorch_model.safetensors           its weights, or
diffusion_pytorch_model.safetensors.index.json    the names of the files that hold them
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from modkit.features.weight_file import read_bytes, read_weights

__all__ = ["CONFIG", "read_config", "read_tensors"]

CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_JSON_LIMIT = 2**24
_FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # before diffusers 0.17
_FORMER_KEY = re.compile(r"^(.+\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$")


def read_config(owner: str, folder: str, classes: Sequence[str]) -> dict[str, Any]:
    """Reads the configuration in a folder, of one of these classes.

    Raises:
        ValueError: If it is missing, damaged or of another class.
    """
    config = _read_json(owner, _find_file(owner, folder, CONFIG))
    if config.get("_class_name") not in classes:
        expected = " or ".join(classes)
        raise ValueError(f"{owner} expects a folder of {expected}, got {config.get('_class_name')} in {folder}")
    return config


def read_tensors(owner: str, folder: str) -> dict[str, Tensor]:
    """Reads the weights in a folder, in shards or whole, by their current keys.

    Raises:
        ValueError: If files are missing or damaged, or hold other keys than the index says.
    """
    path = _find_file(owner, folder, _WEIGHTS, _INDEX)
    if path.name == _WEIGHTS:
        return _update_keys(read_weights(owner, path))
    files = _read_json(owner, path).get("weight_map")
    if not isinstance(files, dict) or not all(
        isinstance(name, str) and Path(name).name == name for name in files.values()
    ):
        raise ValueError(f"{owner} expects a `weight_map` of keys to plain file names in {path}, got {files!r:.100}")
    found: dict[str, Tensor] = {}
    for name in sorted(set(files.values())):
        found |= read_weights(owner, _find_file(owner, folder, name))
    if found.keys() != files.keys():
        odd = sorted(found.keys() ^ files.keys())
        raise ValueError(f"{owner} expects the files of {folder} to hold what {_INDEX} says, got others: {odd[:3]}")
    return _update_keys(found)


def _find_file(owner: str, folder: str, *names: str) -> Path:
    """Returns the first of some files that exists in a folder."""
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"{owner} expects a local folder that diffusers saved, got {folder!r}: nothing is downloaded")
    for name in names:
        if (path / name).is_file():
            return path / name
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    hint = "; it is a pipeline's: give the folder of one model in it" if (path / "model_index.json").is_file() else ""
    raise ValueError(f"{owner} expects {' or '.join(names)} in {folder}, got {found}{hint}")


def _read_json(owner: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_bytes(owner, path, _JSON_LIMIT))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{owner} expects JSON in {path}, got a damaged file: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{owner} expects a JSON object in {path}, got {type(value).__name__}")
    return value


def _update_keys(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames former keys of diffusers to the current ones."""

    def update(match: re.Match[str]) -> str:
        return f"{match[1]}.{_FORMER[match[2]]}.{match[3]}"

    return {_FORMER_KEY.sub(update, key): value for key, value in tensors.items()}
