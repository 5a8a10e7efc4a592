"""The pages of the API: a page for each public module, with every name of its `__all__`."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from navigation import FOLDER, read_groups
from rendering import (
    escape_cell,
    join_lines,
    render_annotation,
    render_example,
    render_method,
    render_page,
    render_prose,
    render_signature,
    render_table,
    split_paragraphs,
)

from modkit import kinds

__all__ = ["MODULES", "find_home", "list_pages"]

SOURCE = "https://github.com/modkit-generative/modkit/blob/main"
"""Where the repository's files are shown."""

GROUPS = read_groups("The API")
MODULES = ("modkit", *(name for names in GROUPS.values() for name in names))
"""The modules, in the order in which a name that several have is described."""

_CLASS = re.compile(r"\b[A-Z]\w+")


class Home(NamedTuple):
    """Where a public name is described."""

    path: str  # from its module on
    page: str
    anchor: str


@cache
def _list_homes() -> dict[int, Home]:
    """The home of each public value, by its id: the first module that has it."""
    homes: dict[int, Home] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for public in (one for one in module.__all__ if not one.startswith("_")):
            home = Home(f"{name}.{public}", _find_page(name), public.lower())
            homes.setdefault(id(getattr(module, public)), home)
    return homes


def find_home(value: Any) -> Home | None:
    """Finds where a value is described, or None."""
    return _list_homes().get(id(value))


def list_pages() -> Iterator[tuple[str, str]]:
    """The name and the text of each page."""
    for name in MODULES:
        yield _find_page(name), _describe_module(name)


def _find_page(module: str) -> str:
    return "index" if module == "modkit" else module.rpartition(".")[2]


def _describe_module(name: str) -> str:
    module = importlib.import_module(name)
    blocks: list[str] = []
    for public in sorted((one for one in module.__all__ if not one.startswith("_")), key=str.lower):
        value = getattr(module, public)
        home = find_home(value)
        assert home is not None
        blocks.append(f"## {public}")
        if home.path != f"{name}.{public}":
            blocks.append(f"[`{home.path}`]({home.page}.md#{home.anchor}).")
        else:
            blocks += _describe(f"{name}.{public}", public, value, module)
    about = list(render_prose(module.__doc__ or ""))
    if name == "modkit":
        about.append(
            "Every public name of these modules is described, from its docstring. [What stays stable](../stability.md) "
            "is said apart; parts are also listed by [kind](../kinds/index.md), with the names that specs use."
        )
        for title, names in GROUPS.items():
            about.append(f"**{title}**")
            about.append(render_table(("module", "what it holds"), [[_link(one), _summarize(one)] for one in names]))
    return render_page(name, *about, *blocks)


def _link(module: str) -> str:
    return f"[`{module}`]({_find_page(module)}.md)"


def _summarize(module: str) -> str:
    return escape_cell(join_lines(split_paragraphs(importlib.import_module(module).__doc__ or "")[0]))


def _describe(path: str, name: str, value: Any, module: ModuleType) -> Iterator[str]:
    """An entry: signature, docstring, examples, members."""
    if not isinstance(value, type) and not inspect.isfunction(value):
        yield f"```text\n{path}\n```"
        yield from render_prose(_find_note(name, value, module))
        return
    signature = render_signature(path, value) if _is_called(value) else path
    yield f"```text\n{signature}\n```"
    links = [*_link_types(signature, value), f"[source]({_find_source(value)})"]
    yield f"{', '.join(links)}"
    yield from render_prose(value.__doc__ or "")
    yield from render_example(value.__doc__ or "")
    if isinstance(value, type):
        yield from _describe_members(value)


def _link_types(signature: str, value: Any) -> Iterator[str]:
    """Links to the public types that a signature names, each once."""
    known = vars(kinds) | vars(sys.modules[value.__module__])
    for name in dict.fromkeys(_CLASS.findall(signature)):
        home = find_home(known.get(name))
        if home is not None and known[name] is not value:
            yield f"[`{name}`]({home.page}.md#{home.anchor})"


def _find_source(value: Any) -> str:
    value = inspect.unwrap(value)
    file = Path(inspect.getfile(value))
    defined = re.search(rf"^(?:class|def|async def) {value.__name__}\b", file.read_text("utf-8"), re.M)
    line = f"#L{file.read_text('utf-8')[: defined.start()].count(chr(10)) + 1}" if defined else ""
    return f"{SOURCE}/{file.relative_to(FOLDER.parent).as_posix()}{line}"


def _is_called(value: Callable[..., Any]) -> bool:
    """Whether readers call it: no contract, and no error that modkit raises."""
    error = isinstance(value, type) and issubclass(value, BaseException)
    return not error and not getattr(value, "_is_protocol", False)


def _describe_members(cls: type[Any]) -> Iterator[str]:
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if isinstance(member, property) and member.fget and not name.startswith("_"):
            returned = render_annotation(member.fget.__annotations__.get("return"))
            yield f"### {cls.__name__}.{name}"
            yield f"```text\n.{name}: {returned}\n```"
            yield from render_prose(member.fget.__doc__ or "")
        elif inspect.isfunction(function) and _is_own(name, function, cls):
            yield f"### {cls.__name__}.{name}"
            yield f"```text\n{render_method(name, function)}\n```"
            if links := list(_link_types(render_method(name, function), function)):
                yield ", ".join(links)
            yield from render_prose(function.__doc__ or "")
            yield from render_example(function.__doc__ or "")


def _is_own(name: str, function: Callable[..., Any], cls: type[Any]) -> bool:
    """Whether a method is public, written in the class, and described."""
    public = not name.startswith("_") or name == "__call__"
    return public and function.__module__ == cls.__module__ and bool(function.__doc__)


def _find_note(name: str, value: Any, module: ModuleType) -> str:
    """The string below an assignment, in the module or in one of its package."""
    for one in [module, *(found for key, found in sys.modules.items() if key.startswith(f"{module.__name__}."))]:
        if vars(one).get(name) is not value or not getattr(one, "__file__", None):
            continue
        body = ast.parse(inspect.getsource(one)).body
        for statement, after in zip(body, [*body[1:], None], strict=True):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    return inspect.cleandoc(str(after.value.value))
                assert isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None
                return f"`{ast.unparse(statement.value)}`"
    return ""
