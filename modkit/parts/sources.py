"""The source of a part: the file that defines it, and the modules of its own distribution that it imports.

Imports are read, not carried out, and followed from module to module; those for type checkers do not count. A module is
the distribution's own if it lies in the same folder of modules, and in a folder which distributions share, such as
`site-packages`, if it has the same first name as well.
"""

from __future__ import annotations

import ast
import functools
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modkit.runs.files import hash_data

__all__ = ["find_module", "hash_source", "read_sources"]

_SHARED = ("site-packages", "dist-packages", Path(sysconfig.get_path("stdlib")).name)  # folders of many distributions


def find_module(target: Any) -> str | None:
    """Finds the name of the module that defines a class or function, following wrappers.

    Examples:
        >>> from modkit.features.pixels import Pixels
        >>> find_module(functools.partial(Pixels))
        'modkit.features.pixels'
    """
    while isinstance(target, functools.partial) or hasattr(target, "__wrapped__"):
        target = target.func if isinstance(target, functools.partial) else target.__wrapped__
    return getattr(target, "__module__", None)


def read_sources(target: Any) -> Mapping[str, str]:
    """Reads the SHA-256 of the module that defines a class or function, and of those that it imports, by name.

    Returns:
        Nothing if the module has no file, as in a notebook.
    """
    module = sys.modules.get(find_module(target) or "")
    file, name = getattr(module, "__file__", None), getattr(module, "__name__", "")
    return _read_module(name, Path(file)) if file and Path(file).is_file() else {}


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
    found = read_sources(target)
    return hash_data(repr(sorted(found.items()))) if found else None


@functools.cache  # what is imported stays as it was
def _read_module(name: str, path: Path) -> Mapping[str, str]:
    folder = path.parents[name.count(".") + (path.name == "__init__.py")]
    found, left = {name: hash_data(path.read_bytes())}, [(name, path)]
    while left:
        for other in _list_imports(*left.pop()):
            if other not in found and (there := _locate(folder, other, name)):
                found[other] = hash_data(there.read_bytes())
                left.append((other, there))
    return found


def _locate(folder: Path, name: str, own: str) -> Path | None:
    """Finds the file of a module of the same distribution; None if it has none there."""
    if folder.name in _SHARED and name.partition(".")[0] != own.partition(".")[0]:
        return None
    path = folder.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _list_imports(name: str, path: Path) -> Iterator[str]:
    """Lists the modules that a module imports; of `from a import b` both `a` and `a.b`, which may be none.

    The packages around it, which are imported before it, come first.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    yield from (".".join(package[:stop]) for stop in range(1, len(package) + 1))
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
