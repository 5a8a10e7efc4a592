"""The source of a part: the file that defines it, and the modules of its own distribution that it imports.

Imports are read, not carried out, and followed from module to module; those for type checkers do not count. A module is
the distribution's own if it lies in the same folder of modules, and in `site-packages`, which distributions share, if
it has the same first name as well.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modkit.runs.files import hash_data

__all__ = ["hash_source"]

_SHARED = ("site-packages", "dist-packages")  # folders of many distributions


def hash_source(target: Any) -> str | None:
    """Hashes the source of a class or function, following wrappers; None if it has no file, as in a notebook.

    It is read once in a process, with the files as they are then.

    Examples:
        >>> from modkit.features.pixels import Pixels
        >>> len(hash_source(Pixels))
        64
        >>> hash_source(len) is None
        True
    """
    while isinstance(target, functools.partial) or hasattr(target, "__wrapped__"):
        target = target.func if isinstance(target, functools.partial) else target.__wrapped__
    module = sys.modules.get(getattr(target, "__module__", None) or "")
    file, name = getattr(module, "__file__", None), getattr(module, "__name__", "")
    if not file or not Path(file).is_file():
        return None
    return _hash_module(name, Path(file))


@functools.cache  # what is imported stays as it was
def _hash_module(name: str, path: Path) -> str:
    """Hashes a module with those of its distribution that it imports."""
    folder = path.parents[name.count(".") + (path.name == "__init__.py")]
    found, left = {name: path.read_bytes()}, [(name, path)]
    while left:
        for other in _list_imports(*left.pop()):
            if other not in found and (there := _locate(folder, other, name)):
                found[other] = there.read_bytes()
                left.append((other, there))
    return hash_data(repr(sorted((other, hash_data(data)) for other, data in found.items())))


def _locate(folder: Path, name: str, own: str) -> Path | None:
    """Finds the file of a module of the same distribution; None if it has none there."""
    if folder.name in _SHARED and name.partition(".")[0] != own.partition(".")[0]:
        return None
    path = folder.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _list_imports(name: str, path: Path) -> Iterator[str]:
    """Lists the modules that a module imports; of `from a import b` both `a` and `a.b`, which may be none."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # compiled, or edited since it was imported: its bytes count without its imports
        return
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (origin, *(f"{origin}.{one.name}" for one in node.names))


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Walks a tree without what only type checkers read."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        yield from (one for item in node.orelse for one in _walk(item))
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)
