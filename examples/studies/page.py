"""Pages of the docs whose figures a study writes, between two marks."""

from __future__ import annotations

import argparse
from pathlib import Path

from modkit.runs.files import replace_file

__all__ = ["fill", "insert", "page"]

_START, _END = "<!-- figures -->", "<!-- end of figures -->"


def page(path: str) -> Path:
    """A page given on the command line, for the `type` of an argument: looked at before hours are spent.

    Raises:
        argparse.ArgumentTypeError: If it cannot be read, or has not both marks.
    """
    try:
        insert(Path(path).read_text(), "")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from error
    return Path(path)


def insert(page: str, text: str) -> str:
    """A page with `text` between its two marks, in the place of what was there.

    Raises:
        ValueError: If the page has not both marks, in their order.
    """
    before, start, rest = page.partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        raise ValueError(f"insert expects a page with the marks {_START} and {_END}, got {page[:40]!r}…")
    return f"{before}{start}\n\n{text.strip()}\n\n{end}{after}"


def fill(path: Path, text: str) -> None:
    """Puts `text` between the marks of a page."""
    replace_file(path, insert(path.read_text(), text).encode())
