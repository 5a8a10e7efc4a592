"""Captions: what to look at in the picture of each example, by family, in the order of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modkit.specs.yaml import parse

__all__ = ["FOLDER", "list_examples", "read_captions"]

FOLDER = Path(__file__).parents[1]
"""The folder of the examples."""

_FILE = Path(__file__).parent / "captions.yaml"


def read_captions() -> dict[str, dict[str, str]]:
    """Reads the caption of each example by its name, of each family by its title.

    Raises:
        ValueError: If an example has no caption, or more than one, or a caption no example.
    """
    families: Any = parse(_FILE.read_text(encoding="utf-8"), _FILE.name)[0]
    names = sorted(name for captions in families.values() for name in captions)
    if names != (there := sorted(path.stem for path in FOLDER.glob("*.yaml"))):
        raise ValueError(f"expected {_FILE.name} to have each of {', '.join(there)} once, got {', '.join(names)}")
    return dict(families)


def list_examples() -> list[str]:
    """Lists the names of all examples, in the order of the page."""
    return [name for captions in read_captions().values() for name in captions]
