"""The example specs, which the wheel carries: `example:ldm` stands for the file of the one named `ldm`.

Each says on its first line what it is and how long it trains: `name: ldm  # 1 min: latent diffusion of digits`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from modkit.errors import Problem, SpecError, suggest

__all__ = ["ExampleSpec", "find_spec_file", "list_examples"]

_PREFIX = "example:"
_PACKAGE = Path(__file__).parents[1]


class ExampleSpec(NamedTuple):
    """An example spec.

    Args:
        spec: What `modkit train` and `load_spec` take, such as `example:ldm`.
        minutes: Minutes of training on one CPU core, rounded.
        summary: What it is, and what it needs beside modkit.
        path: Its file.
    """

    spec: str
    minutes: int
    summary: str
    path: Path


def list_examples() -> list[ExampleSpec]:
    """Lists the example specs by name.

    Examples:
        >>> [one.summary for one in list_examples() if one.spec == "example:ldm"]
        ['latent diffusion of digits']
    """
    found = []
    for name, path in _find_files().items():
        with path.open(encoding="utf-8") as file:
            minutes, _, summary = file.readline().partition("# ")[2].partition(" min: ")
        found.append(ExampleSpec(_PREFIX + name, int(minutes), summary.rstrip(), path))
    return found


def find_spec_file(path: str) -> str:
    """Finds the file of an example; any other path is returned as it is.

    Examples:
        >>> find_spec_file("runs/ldm/spec.yaml")
        'runs/ldm/spec.yaml'

    Raises:
        SpecError: If no example has the name.
    """
    if not path.startswith(_PREFIX):
        return path
    files, name = _find_files(), path.removeprefix(_PREFIX)
    if name not in files:
        hint = suggest(name, files) or "`modkit examples` lists them"
        raise SpecError(Problem("", f"{_PREFIX} expects the name of an example, got {name!r}", hint=hint))
    return str(files[name])


def _find_files() -> dict[str, Path]:
    """Finds the files by name: in the package or, in a clone, beside it."""
    folder = next((one for one in (_PACKAGE / "examples", _PACKAGE.parent / "examples") if one.is_dir()), _PACKAGE)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
