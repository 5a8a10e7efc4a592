"""The formats, by the name that `modkit import --format` takes; a format's module is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from modkit_checkpoints.conversion import Conversion

__all__ = ["FORMATS", "find_converter"]

FORMATS = ("taming-vqgan", "taming-transformer", "compvis-kl", "compvis-unet", "ddgan", "edm")


def find_converter(name: str) -> Callable[[Any, Any, bool], Conversion]:
    """Finds the function `convert` of a format.

    Raises:
        ValueError: If there is no such format.
    """
    if name not in FORMATS:
        raise ValueError(f"--format expects one of {', '.join(FORMATS)}, got {name!r}")
    module = import_module(f"modkit_checkpoints.{name.replace('-', '_')}")
    return module.convert
