"""Markdown from docstrings, signatures and tables, for the pages that `generate.py` writes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, ForwardRef

from modkit.kinds import Default
from modkit.parts.annotation import render

__all__ = ["escape_cell", "join_lines", "link_addresses", "render_annotation", "render_example", "render_method"]
__all__ += ["render_page", "render_prose", "render_signature", "render_table", "split_paragraphs"]

_WRITTEN = "<!-- Written by docs/generate.py from the code; change the docstrings there. -->"
_SECTIONS = {"Args": "Arguments", "Raises": "Raises"}
_PARAGRAPHS = re.compile(r"\n\s*\n")
_TITLE = re.compile(r"([A-Z]\w+):")
_ADDRESS = re.compile(r"<(?:function|class|bound method)? ?'?([\w.]+).* at 0x[0-9a-f]+>")
_WIDTH = 100


def render_page(title: str, *blocks: str) -> str:
    """A page that says who wrote it."""
    return "\n\n".join((_WRITTEN, f"# {title}", *blocks)) + "\n"


def render_table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render_prose(docstring: str) -> Iterator[str]:
    """A docstring without its examples; indented paragraphs and tables stay, and `Args:` becomes a list."""
    for title, body in _split_sections(docstring):
        if title in ("Returns", "Yields"):
            yield f"{title}: {join_lines(body)}"
        elif title in _SECTIONS:
            items = re.split(r"\n(?=\S)", body)
            entries = [join_lines(item).partition(": ") for item in items]
            yield f"{_SECTIONS[title]}:"
            yield "\n".join(f"- `{name}`: {text}" if text else f"- {name}" for name, _, text in entries)
        elif title != "Examples":
            for paragraph in _PARAGRAPHS.split(f"{title}: {body}" if title else body):
                if paragraph.startswith(" "):
                    yield f"```text\n{inspect.cleandoc(chr(10) + paragraph)}\n```"
                elif paragraph:
                    yield paragraph if paragraph.startswith("|") else join_lines(paragraph)


def render_example(docstring: str) -> Iterator[str]:
    """The examples of a docstring."""
    yield from (f"```pycon\n{body}\n```" for title, body in _split_sections(docstring) if title == "Examples")


def split_paragraphs(docstring: str) -> list[str]:
    """The paragraphs of a docstring."""
    return _PARAGRAPHS.split(inspect.cleandoc(docstring))


def render_method(name: str, function: Callable[..., Any]) -> str:
    """The signature of a method, without `self`, on one line."""
    title = "part" if name == "__call__" else f".{name}"
    return f"{title}({', '.join(_list_parameters(function, 1))}){_render_return(function)}"


def render_signature(title: str, function: Callable[..., Any]) -> str:
    """The signature of a function or class, on one line if it fits."""
    parameters, returned = _list_parameters(function, 0), "" if isinstance(function, type) else _render_return(function)
    line = f"{title}({', '.join(parameters)}){returned}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{title}(", *(f"    {one}," for one in parameters), f"){returned}"])


def render_annotation(annotation: Any) -> str:
    """An annotation, as it is written."""
    annotation = annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else annotation
    return annotation if isinstance(annotation, str) else render(annotation)


def link_addresses(text: str) -> str:
    """A text with its addresses as links."""
    return re.sub(r"https?://[^\s,)]+", lambda link: f"<{link[0]}>", text)


def escape_cell(text: str) -> str:
    """A text for a table."""
    return text.replace("|", "\\|")


def join_lines(text: str | None) -> str:
    """A text on one line."""
    return " ".join((text or "").split())


def _list_parameters(function: Callable[..., Any], first: int) -> list[str]:
    shown = []
    keywords = False
    for one in list(inspect.signature(function).parameters.values())[first:]:
        if one.kind is one.KEYWORD_ONLY and not keywords:
            keywords = True
            shown.append("*")
        keywords = keywords or one.kind is one.VAR_POSITIONAL
        stars = "**" if one.kind is one.VAR_KEYWORD else "*" if one.kind is one.VAR_POSITIONAL else ""
        kind = "" if one.annotation is one.empty else f": {render_annotation(one.annotation)}"
        default = "" if one.default is one.empty else f" = {_render_default(one.default)}"
        shown.append(f"{stars}{one.name}{kind}{default}")
    return shown


def _render_default(value: Any) -> str:
    if isinstance(value, Default):
        return f"default({', '.join([repr(value.name), *(f'{key}={one!r}' for key, one in value.params.items())])})"
    return _ADDRESS.sub(r"\1", repr(value)).replace("<factory>", "...")


def _render_return(function: Callable[..., Any]) -> str:
    return f" -> {render_annotation(function.__annotations__.get('return'))}"


def _split_sections(docstring: str) -> list[tuple[str, str]]:
    """The sections of a docstring with their titles; what comes before them has none."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in inspect.cleandoc(docstring).splitlines():
        if match := _TITLE.fullmatch(line.rstrip()):
            found.append((match[1], []))
        elif found[-1][0] and line and not line.startswith(" "):
            found.append(("", [line]))
        else:
            found[-1][1].append(line)
    return [(title, inspect.cleandoc("\n".join(["", *lines])) if title else "\n".join(lines)) for title, lines in found]
