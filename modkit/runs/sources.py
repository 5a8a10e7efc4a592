"""Sources: hashes of the code of parts: the modules that define them, what these import, and the code of local parts.

    acme/net.py      from acme.layers import Block      ->   acme, acme.layers, and what these import of acme in turn

Imports are read, not carried out, and followed from module to module; those for type checkers do not count. A module is
the distribution's own if it lies in the same folder of modules, and in a folder which distributions share, such as
`site-packages`, if it has the same first name as well. modkit's own parts together import nearly all of modkit, which
its version stands for in locks.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from modkit.part import Part, Registered
from modkit.runs.files import hash_data, replace_file

__all__ = ["copy_sources", "find_file", "find_module", "hash_local", "hash_source", "hash_sources", "read_sources"]

_OWN = __name__.partition(".")[0]
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


def find_file(target: Any) -> Path | None:
    """Finds the file that defines a class or function, following wrappers; built-ins and notebooks have none."""
    file = getattr(sys.modules.get(find_module(target) or ""), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


def read_sources(target: Any) -> Mapping[str, str]:
    """Reads the SHA-256 of the module that defines a class or function, and of those that it imports, by name.

    Returns:
        Nothing if the module has no file, as in a notebook.
    """
    module = sys.modules.get(find_module(target) or "")
    file = find_file(target)
    return _read_module(module.__name__, file) if module and file else {}


def hash_source(target: Any) -> str | None:
    """Hashes the source of a class or function, following wrappers; None if it has no file, as in a notebook.

    Examples:
        >>> from modkit.features.pixels import Pixels
        >>> len(hash_source(Pixels))
        64
        >>> hash_source(len) is None
        True
    """
    found = read_sources(target)
    return hash_data(repr(sorted(found.items()))) if found else None


def hash_sources(parts: Iterable[Part]) -> dict[str, str]:
    """Hashes the modules that the parts of plug-ins import of their distributions, beside those that define the parts.

    Args:
        parts: Parts whose targets can be imported.

    Returns:
        The first half of the SHA-256 of each module, by its name.

    Examples:
        >>> list(hash_sources([Part("sampler", "acme/json", "json:loads", "…")]))
        ['json.decoder', 'json.encoder', 'json.scanner']
    """
    found: dict[str, str] = {}
    starts = {find_module(target): target for target in (part.load() for part in parts)}
    for start, target in starts.items():
        if start and start.partition(".")[0] != _OWN:
            found |= read_sources(target)
    return {name: found[name][:32] for name in sorted(found.keys() - starts)}


def hash_local(part: Any) -> str | None:
    """Hashes the code of a class or function that no package has registered, or of the classes of a built object.

    Bases in the same package count. What torch defines does not.

    Returns:
        The SHA-256; None if there is no code, or its text cannot be had, as in an interactive session.
    """
    while isinstance(part, functools.partial):
        part = part.func
    held = part.modules() if isinstance(part, nn.Module) else [part]
    made = {one if inspect.isclass(one) or inspect.isroutine(one) else type(one) for one in held}
    codes = {base for one in made for base in _list_bases(one) if base.__module__.partition(".")[0] != "torch"}
    try:
        texts = [f"{one.__module__}.{one.__qualname__}\n{inspect.getsource(one)}" for one in codes]
    except (OSError, TypeError):
        return None
    return hash_data("\n".join(sorted(texts))) if texts else None


def _list_bases(code: Callable[..., Any]) -> list[Any]:
    """Lists a class with its bases in the same package; a function is on its own."""
    root = code.__module__.partition(".")[0]
    return [one for one in getattr(code, "__mro__", (code,)) if one.__module__.partition(".")[0] == root]


def copy_sources(parts: Iterable[Part], folder: Path) -> None:
    """Copies the files of local parts and of those that the process has registered itself into a new folder.

    A notebook has none. Files of distributions, which may define local parts, are left out.
    """
    targets = [part.load() for part in parts if isinstance(part, Registered)]
    for file, module in {find_file(target): find_module(target) for target in targets}.items():
        if file and not (set(_SHARED).intersection(file.parts) or str(module).partition(".")[0] == _OWN):
            folder.mkdir(exist_ok=True)
            copy = folder / file.name
            replace_file(folder / f"{module}.py" if copy.exists() else copy, file.read_bytes())


def _read_module(name: str, path: Path) -> dict[str, str]:
    folder = path.parents[name.count(".") + (path.name == "__init__.py")]
    found: dict[str, str] = {}
    left = {name: path}
    while left:
        other, there = left.popitem()
        status = there.stat()
        found[other], imported = _read_file(other, there, status.st_mtime_ns, status.st_size)
        left |= {one: place for one in imported if one not in found and (place := _locate(folder, one, name))}
    return found


@functools.lru_cache(maxsize=4096)
def _read_file(name: str, path: Path, changed: int, size: int) -> tuple[str, tuple[str, ...]]:
    """Reads the SHA-256 of a module's file, and the names of what it imports."""
    return hash_data(path.read_bytes()), tuple(_list_imports(name, path))


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
