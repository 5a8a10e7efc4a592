"""Sources: where the code of parts is, and its hashes: modules that a plug-in's parts import, and local parts.

    acme/net.py      from acme.layers import Block      ->   acme, acme.layers, and what these import of acme in turn

What a module imports is read from its text, also inside functions. So nothing is imported to find it; modules that are
named only while the program runs are missed. modkit's own parts together import nearly all of modkit, which its version
stands for.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from modkit.part import Part
from modkit.runs.files import hash_data

__all__ = ["find_module", "hash_local", "hash_sources"]

_OWN = __name__.partition(".")[0]
_FROM = re.compile(r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+import[ \t]+(\([^)]*\)|.*)", re.MULTILINE)
_IMPORT = re.compile(r"^[ \t]*import[ \t]+([\w. \t,]+)", re.MULTILINE)
_COMMENT = re.compile(r"#.*")
_NAME = re.compile(r"^\s*([\w.]+)")


def hash_sources(parts: Iterable[tuple[Part, str]]) -> dict[str, str]:
    """Hashes the modules that the parts of plug-ins import of their distributions, beside those that define the parts.

    Args:
        parts: Parts whose targets can be imported, each with the name of its distribution.

    Returns:
        The first half of the SHA-256 of each module, by its name.

    Examples:
        >>> list(hash_sources([(Part("sampler", "acme/json", "json:loads", "…"), "acme")]))
        ['json.decoder', 'json.encoder', 'json.scanner']
    """
    found: dict[str, str] = {}
    starts = {find_module(part): distribution for part, distribution in parts}
    for start, distribution in starts.items():
        roots = {start.partition(".")[0], *_list_roots(distribution)} - {_OWN}
        trail = [start]
        while trail:
            name = trail.pop()
            if name in found or name.partition(".")[0] not in roots or (path := _find_file(name)) is None:
                continue
            status = path.stat()
            found[name], imported = _read_module(path, name, status.st_mtime_ns, status.st_size)
            trail += imported
    return {name: found[name] for name in sorted(found.keys() - starts)}


def find_module(part: Part) -> str:
    """Finds the name of the module that defines a part's target, following wrappers."""
    target: Any = part.load()
    while isinstance(target, functools.partial) or hasattr(target, "__wrapped__"):
        target = target.func if isinstance(target, functools.partial) else target.__wrapped__
    return getattr(target, "__module__", None) or part.target.partition(":")[0]


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


@functools.lru_cache(maxsize=4096)
def _read_module(path: Path, name: str, changed: int, size: int) -> tuple[str, tuple[str, ...]]:
    """Reads the hash of a module's file, and the names of what it imports, with the packages around itself."""
    data = path.read_bytes()
    around = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    own = [".".join(around[:stop]) for stop in range(1, len(around) + 1)]
    return hash_data(data)[:32], tuple(dict.fromkeys([*own, *_list_imports(data.decode(errors="replace"), around)]))


def _list_imports(text: str, around: list[str]) -> Iterator[str]:
    """Lists what a text imports: modules, and names that may be modules."""
    for names in _IMPORT.findall(text):
        yield from (found[1] for name in names.split(",") if (found := _NAME.match(name)))
    for dots, base, names in _FROM.findall(text):
        above = around[: len(around) + 1 - len(dots)] if dots else []
        package = ".".join([*above, *([base] if base else [])])
        yield package
        listed = _COMMENT.sub("", names).strip("() \t\n")
        yield from (f"{package}.{found[1]}" for name in listed.split(",") if (found := _NAME.match(name)))


def _find_file(name: str) -> Path | None:
    """Finds the file of a module by the place of its outermost package, which is imported; None if it has none."""
    root, *rest = name.split(".")
    module = sys.modules.get(root)
    if not rest or not hasattr(module, "__path__"):
        file = getattr(module, "__file__", None) if not rest else None
        return Path(file) if file and file.endswith(".py") and Path(file).is_file() else None
    for folder in module.__path__:
        place = Path(folder, *rest)
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if path.is_file():
                return path
    return None


@functools.cache
def _list_roots(distribution: str) -> tuple[str, ...]:
    """Lists the outermost packages of a distribution, if it says which they are."""
    try:
        return tuple((metadata.distribution(distribution).read_text("top_level.txt") or "").split())
    except (metadata.PackageNotFoundError, ValueError):
        return ()
