"""Checkpoints as versions before format 2 wrote them: players and parameters have numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch

from modkit.runs import checkpoint as store
from modkit.runs.files import hash_data

__all__ = ["rewrite"]


def rewrite(path: Path) -> None:
    """Rewrites a training's checkpoint in format 1."""
    content = store.load(path)
    groups = {group: content.tensors[group] for group in ("model", "ema") if group in content.tensors}
    for number, (player, kept) in enumerate(content.state["players"].items()):
        state = kept["optimizer"]
        names = [name for group in state["groups"] for name in group["params"]]
        tensors = content.tensors[f"optimizer-{player.replace('/', '.')}"]
        groups[f"optimizer-{number}"] = _count(tensors, names)
        state["numbers"] = _count(state["numbers"], names)
        for group in state["groups"]:
            group["params"] = [names.index(name) for name in group["params"]]
    files = {f"{group}.safetensors": safetensors.torch.save(tensors) for group, tensors in groups.items()}
    files["state.json"] = _dump(content.state)
    manifest = {
        "format": 1,
        "files": {file: {"size": len(data), "sha256": hash_data(data)} for file, data in files.items()},
        "tensors": {group: {key: key for key in tensors} for group, tensors in groups.items()},
    }
    files["manifest.json"] = _dump({**manifest, "sha256": hash_data(_dump(manifest))})
    shutil.rmtree(path)
    path.mkdir()
    for file, data in files.items():
        (path / file).write_bytes(data)


def _count(entries: Any, names: list[str]) -> dict[str, Any]:
    split = [(label.rpartition("."), value) for label, value in entries.items()]
    return {f"{names.index(name)}.{key}": value for (name, _, key), value in split}


def _dump(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()
