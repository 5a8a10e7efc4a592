"""`modkit import`: an authors' checkpoint and its configuration as a run that loads and samples as any other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from modkit.publishing.import_weights import import_weights
from modkit.runs.run import Run
from modkit.specs.spec import Spec
from modkit.specs.yaml import MAX_BYTES, parse
from modkit_checkpoints.formats import converter
from modkit_checkpoints.pickled import read

__all__ = ["Imported", "import_checkpoint", "summary"]


class Imported(NamedTuple):
    """What an import made: the run, and the keys of the source that were set aside."""

    run: Run
    aside: tuple[str, ...]


def import_checkpoint(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    format: str,
    config: str | PathLike[str] | None = None,
    raw: bool = False,
    overwrite: bool = False,
) -> Imported:
    """Converts a checkpoint into a run.

    Args:
        source: The checkpoint: safetensors, a file of torch or a pickle; no code in it runs.
        out: The run's directory.
        format: Which of `formats.FORMATS` it is of.
        config: The authors' configuration, YAML or JSON, for the formats that need one.
        raw: Take the weights as they were trained, even where averaged ones are there.
        overwrite: Replace the run that is there.

    Raises:
        ValueError: If the file or the configuration is damaged, or does not fit the format; nothing has been written
            then.
        OSError: If a file cannot be read.
    """
    convert = converter(format)
    settings = None if config is None else _parsed(Path(config))
    content = read(source)
    try:
        conversion = convert(content, settings, raw)
        spec = Spec(**{**conversion.spec, "name": _name(Path(source))})
        notes = {"source": Path(source).name, "format": format, "raw": raw, "aside": list(conversion.aside)}
        run = import_weights(spec, conversion.weights, out, overwrite=overwrite, notes=notes)
    except ValueError as error:
        raise ValueError(f"{source} as {format}: {error}") from error
    return Imported(run, conversion.aside)


def summary(keys: Sequence[str]) -> str:
    """Keys in a few words: those that begin alike together, with their number."""
    groups = Counter(".".join(key.split(".")[:2]) if key.count(".") > 1 else key for key in keys)
    return ", ".join(f"{group}.* ({num})" if num > 1 else group for group, num in groups.items())


def _parsed(path: Path) -> Any:
    """A configuration's plain data; JSON is YAML."""
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path}: expected a configuration of at most {MAX_BYTES} bytes, got more")
    try:
        tree, _ = parse(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a configuration in UTF-8: {error}") from error
    return tree


def _name(source: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", source.stem).strip(".-")[:100] or "imported"
