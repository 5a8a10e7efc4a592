"""The pages of the API: a page for each public module, with every name of its `__all__`."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

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

__all__ = ["MODULES", "list_pages"]

MODULES = (
    *("modkit", "modkit.types", "modkit.kinds", "modkit.part", "modkit.rng", "modkit.errors", "modkit.precision"),
    *("modkit.models", "modkit.nn", "modkit.bijections", "modkit.bottlenecks", "modkit.judges", "modkit.coders"),
    *("modkit.conditioners", "modkit.decodings"),
    *(
        "modkit.grids",
        "modkit.samplers",
        "modkit.augmentations",
        "modkit.losses",
        "modkit.data",
        "modkit.features",
        "modkit.metrics",
        "modkit.engines",
    ),
    *(
        f"modkit.diffusion.{name}"
        for name in (
            *("gaussian", "schedules", "zero_snr", "log_snr", "parametrizations", "time_sampling", "low_discrepancy"),
            *("couplings", "alignments", "loss_weights", "uncertainty", "guidance"),
        )
    ),
    *("modkit.optim.optimizers", "modkit.optim.lr_schedules"),
    *("modkit.comparison", "modkit.latent_space", "modkit.testing"),
)
"""The modules, in the order in which a name that several have is described."""


def list_pages() -> Iterator[tuple[str, str]]:
    """The name and the text of each page."""
    homes: dict[int, tuple[str, str]] = {}
    for name in MODULES:
        yield _find_page(name), _describe_module(name, homes)


def _find_page(module: str) -> str:
    return "index" if module == "modkit" else module.rpartition(".")[2]


def _describe_module(name: str, homes: dict[int, tuple[str, str]]) -> str:
    module = importlib.import_module(name)
    blocks: list[str] = []
    for public in sorted((one for one in module.__all__ if not one.startswith("_")), key=str.lower):
        value = getattr(module, public)
        home, page = homes.setdefault(id(value), (f"{name}.{public}", _find_page(name)))
        blocks.append(f"## {public}")
        if home != f"{name}.{public}":
            blocks.append(f"[`{home}`]({page}.md#{home.rpartition('.')[2].lower()}).")
        else:
            blocks += _describe(f"{name}.{public}", public, value, module)
    about = list(render_prose(module.__doc__ or ""))
    if name == "modkit":
        rows = [[_link(one), escape_cell(_summarize(one))] for one in MODULES]
        about += [
            "Every public name of these modules is described, from its docstring. [What stays stable](../stability.md) "
            "is said apart; parts are also listed by [kind](../kinds/index.md), with the names that "
            "specs use.",
            render_table(("module", "what it holds"), rows),
        ]
    return render_page(name, *about, *blocks)


def _link(module: str) -> str:
    return f"[`{module}`]({_find_page(module)}.md)"


def _summarize(module: str) -> str:
    return join_lines(split_paragraphs(importlib.import_module(module).__doc__ or "")[0])


def _describe(path: str, name: str, value: Any, module: ModuleType) -> Iterator[str]:
    """An entry: signature, docstring, examples, members."""
    if not isinstance(value, type) and not inspect.isfunction(value):
        yield f"```text\n{path}\n```"
        yield from render_prose(_find_note(name, value, module))
        return
    yield f"```text\n{render_signature(path, value) if _is_called(value) else path}\n```"
    yield from render_prose(value.__doc__ or "")
    yield from render_example(value.__doc__ or "")
    if isinstance(value, type):
        yield from _describe_members(value)


def _is_called(value: Callable[..., Any]) -> bool:
    """Whether readers call it: no contract, and no error that modkit raises."""
    error = isinstance(value, type) and issubclass(value, BaseException)
    return not error and not getattr(value, "_is_protocol", False)


def _describe_members(cls: type[Any]) -> Iterator[str]:
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if isinstance(member, property) and member.fget and not name.startswith("_"):
            returned = render_annotation(member.fget.__annotations__.get("return"))
            yield f"**`.{name}: {returned}`**"
            yield from render_prose(member.fget.__doc__ or "")
        elif inspect.isfunction(function) and _is_own(name, function, cls):
            yield f"**`{render_method(name, function)}`**"
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
