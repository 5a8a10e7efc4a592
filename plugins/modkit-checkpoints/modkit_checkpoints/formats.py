"""The formats, by the name that `modkit import --format` takes; each module is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from modkit_checkpoints.conversion import Conversion

__all__ = ["FORMATS", "converter"]

FORMATS = {
    "taming-vqgan": "modkit_checkpoints.taming_vqgan:convert",
    "taming-transformer": "modkit_checkpoints.taming_transformer:convert",
    "compvis-kl": "modkit_checkpoints.compvis_kl:convert",
    "compvis-unet": "modkit_checkpoints.compvis_unet:convert",
    "ddgan": "modkit_checkpoints.ddgan:convert",
    "edm": "modkit_checkpoints.edm:convert",
}


def converter(name: str) -> Callable[[Any, Any, bool], Conversion]:
    """The function of a format.

    Raises:
        ValueError: If there is no such format.
    """
    if name not in FORMATS:
        raise ValueError(f"--format expects one of {', '.join(FORMATS)}, got {name!r}")
    module, _, function = FORMATS[name].partition(":")
    convert: Callable[[Any, Any, bool], Conversion] = getattr(import_module(module), function)
    return convert
