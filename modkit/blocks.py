"""Blocks: lines of text and tables, of which results consist, as plain text and as HTML.

Names in them come from data, so everything is escaped: control characters in both forms, markup in HTML.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from modkit.escapes import escape_controls

__all__ = ["Block", "Rows", "format_html", "format_text"]

Rows: TypeAlias = tuple[Sequence[str], Iterable[Sequence[str]]]
"""A table: the names of its columns, and its rows."""

Block: TypeAlias = str | Rows

_CELL = 'style="text-align: left; white-space: pre-wrap"'


def format_text(blocks: Iterable[Block]) -> str:
    """Formats blocks as lines of text, without a last line feed.

    Examples:
        >>> print(format_text([(("score", "value"), [("FD (pixels)", "2.5"), ("x", "12")]), "seed 0"]))
        score        value
        FD (pixels)  2.5
        x            12
        seed 0
    """
    return "\n".join(line for block in blocks for line in _format_lines(block))


def format_html(blocks: Iterable[Block]) -> str:
    """Formats blocks as HTML, for a notebook.

    Examples:
        >>> print(format_html(["a < b"]))
        <div>
        <p>a &lt; b</p>
        </div>
    """
    return "\n".join(["<div>", *map(_format_element, blocks), "</div>"])


def _format_lines(block: Block) -> Iterator[str]:
    if isinstance(block, str):
        yield escape_controls(block)
        return
    columns, rows = block
    cells = [[escape_controls(cell).replace("\n", " ") for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    yield from ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def _format_element(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{_escape(block)}</p>"
    columns, rows = block
    head = "".join(f"<th {_CELL}>{_escape(name)}</th>" for name in columns)
    body = "\n".join(f"<tr>{''.join(f'<td {_CELL}>{_escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _escape(text: str) -> str:
    return html.escape(escape_controls(text))
