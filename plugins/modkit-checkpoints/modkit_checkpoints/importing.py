"""Converts an authors' checkpoint and its configuration to a run that loads and samples like any other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from modkit.publishing.import_weights import import_weights
from modkit.runs.files import open_regular
from modkit.runs.run import Run
from modkit.specs.spec import Spec
from modkit.specs.yaml import MAX_BYTES, parse
from modkit_checkpoints.formats import find_converter
from modkit_checkpoints.pickled import read

__all__ = ["Imported", "import_checkpoint", "summarize"]


class Imported(NamedTuple):
    """The run that was written, and the keys of the source that were set aside."""

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
    """Converts a checkpoint to a run.

    Args:
        source: The checkpoint: safetensors, a file of torch or a pickle. No code in it is executed.
        out: The run's directory.
        format: One of `formats.FORMATS`.
        config: The authors' configuration, YAML or JSON, for the formats that need one.
        raw: Take the weights as trained, even if averaged ones are present.
        overwrite: Replace an existing run.

    Raises:
        ValueError: If the file or the configuration cannot be read, is damaged, or does not fit the format; nothing is
            written then.
    """
    convert = find_converter(format)
    settings = None if config is None else _open(Path(config), _read_config)
    content = _open(Path(source), read)
    try:
        conversion = convert(content, settings, raw)
        spec = Spec(**{**conversion.spec, "name": _make_name(Path(source))})
        notes = {"source": Path(source).name, "format": format, "raw": raw, "aside": list(conversion.aside)}
        run = import_weights(spec, conversion.weights, out, overwrite=overwrite, notes=notes)
    except (OverflowError, RuntimeError, ValueError) as error:  # or what torch has to say on a file's sizes
        raise ValueError(f"{source} as {format}: {error}") from error
    return Imported(run, conversion.aside)


def summarize(keys: Sequence[str]) -> str:
    """Lists keys briefly: those with the same beginning are counted together."""
    groups = Counter(".".join(key.split(".")[:2]) if key.count(".") > 1 else key for key in keys)
    return ", ".join(f"{group}.* ({num})" if num > 1 else group for group, num in groups.items())


def _open(path: Path, read: Callable[[Path], Any]) -> Any:
    """Reads a file that the user named."""
    try:
        return read(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error


def _read_config(path: Path) -> Any:
    """Reads a configuration as plain data; JSON is YAML."""
    with open_regular(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path}: expected a configuration of at most {MAX_BYTES} bytes, got more")
    try:
        tree, _ = parse(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a configuration in UTF-8: {error}") from error
    return tree


def _make_name(source: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", source.stem).strip(".-")[:100] or "imported"
