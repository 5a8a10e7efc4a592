"""What a part declares, read from its source: parameters without importing the part, and so without torch.

`signature` is the authority, and needs the part itself. This is for what must answer at once, a shell's completion: it
follows a target through re-exports and base classes, and knows annotations and defaults as they are written.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modkit.kinds import KINDS

__all__ = ["Declared", "declared"]

_MOST = 8  # re-exports and base classes that are followed
_SLOT = re.compile(r"\bSlot\[(?:\w+\.)*(\w+)\]")
_CHOICE = re.compile(r"\bLiteral\[(.*?)\]")
_MAPPING = re.compile(r"dict\[str, (.*)\](?: \| None)?$")
_DEFAULT = re.compile(r"""\bdefault\(["']([^"']+)["']\)""")
_KINDS = {kind.protocol: kind.name for kind in KINDS.values()}

_Found = tuple[str, "ast.ClassDef | ast.FunctionDef | ast.Assign"]


@dataclass(frozen=True)
class Declared:
    """A parameter as its source has it.

    Args:
        annotation: Its annotation; empty where there is none.
        default: Its default; empty where there is none.
        module: The module that it is written in.
    """

    annotation: str
    default: str
    module: str

    @property
    def kind(self) -> str | None:
        """The kind of part that belongs there, if it is a slot."""
        match = _SLOT.search(self.annotation)
        return _KINDS.get(match[1]) if match else None

    @property
    def part(self) -> str | None:
        """The name of the slot's default part, if it has one."""
        match = _DEFAULT.search(self.default)
        return match[1] if match else None

    @property
    def several(self) -> bool:
        """Whether it holds a list or a mapping."""
        return self.annotation.startswith(("list[", "dict["))

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that a spec may say, where they can be listed."""
        annotation = self.annotation
        if annotation.isidentifier() and (found := _found(self.module, annotation)):
            annotation = _text(found[1].value) if isinstance(found[1], ast.Assign) else annotation
        if match := _CHOICE.search(annotation):
            return tuple(str(one) for one in ast.literal_eval(f"({match[1]},)"))
        return ("true", "false") if re.search(r"\bbool\b", annotation) else ()

    @property
    def each(self) -> Declared | None:
        """What a mapping holds under each name, if it is one."""
        match = _MAPPING.match(self.annotation)
        return Declared(match[1], "", self.module) if match else None

    @property
    def record(self) -> str | None:
        """The target of the dataclass that it holds, if it may hold one."""
        name = self.annotation.removesuffix(" | None")
        return f"{self.module}:{name}" if name.isidentifier() and name[0].isupper() else None


def declared(target: str) -> Mapping[str, Declared]:
    """The parameters of the class or function at `"module:name"`, in order; none where they cannot be read.

    A class without an `__init__` has its fields, or its first base's parameters.
    """
    module, _, name = target.partition(":")
    found = _found(module, name)
    return _parameters(*found, _MOST) if found else {}


def _found(module: str, name: str, most: int = _MOST) -> _Found | None:
    """Where a name of a module is defined, if its source can be read: what it does not tell, the part itself will."""
    try:
        return _definition(module, name, most)
    except (OSError, SyntaxError, ValueError):
        return None


def _definition(module: str, name: str, most: int) -> _Found | None:
    """Where a name of a module is defined, followed through re-exports."""
    path = _file(module)
    if path is None or not most:
        return None
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return module, node
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                    source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                    return _definition(source, alias.name, most - 1)
    return None


def _file(module: str) -> Path | None:
    """The file of a module; only finding its outermost package, which imports nothing."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not spec.submodule_search_locations:
        return Path(spec.origin) if spec.origin and not rest else None
    for location in spec.submodule_search_locations:
        base = Path(location, *rest)
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.is_file():
                return path
    return None


def _parameters(module: str, node: ast.AST, most: int) -> dict[str, Declared]:
    if not isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {}
    if isinstance(node, ast.FunctionDef):
        return _arguments(module, node)
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            found = _arguments(module, one)
            found.pop(next(iter(found)), None)  # self
            return found
    fields = {
        one.target.id: Declared(_text(one.annotation), _text(one.value), module)
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    if any("dataclass" in ast.unparse(one) for one in node.decorator_list):
        return fields
    base = next((one.id for one in node.bases if isinstance(one, ast.Name)), None)
    found_base = _found(module, base, most - 1) if base else None
    return _parameters(*found_base, most - 1) if found_base else {}


def _arguments(module: str, node: ast.FunctionDef) -> dict[str, Declared]:
    given = [*node.args.posonlyargs, *node.args.args]
    defaults: list[ast.expr | None] = [None] * (len(given) - len(node.args.defaults)) + list(node.args.defaults)
    every = [*zip(given, defaults), *zip(node.args.kwonlyargs, node.args.kw_defaults)]
    return {one.arg: Declared(_text(one.annotation), _text(value), module) for one, value in every}


def _text(node: ast.expr | None) -> str:
    if node is None:
        return ""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
