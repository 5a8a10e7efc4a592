"""Pages of the docs whose figures a study writes, between two marks, or between two of each part of a study."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from modkit.runs.files import replace_file

__all__ = ["fill", "insert", "page"]


def page(path: str, parts: Iterable[str] = ("",)) -> Path:
    """A page given on the command line, for the `type` of an argument: looked at before hours are spent.

    Raises:
        argparse.ArgumentTypeError: If it cannot be read, or has not both marks of each part.
    """
    try:
        for part in parts:
            insert(Path(path).read_text(), "", part)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from error
    return Path(path)


def insert(page: str, text: str, part: str = "") -> str:
    """A page with `text` between two marks, those of a part if it is named, in the place of what was there.

    Raises:
        ValueError: If the page has not both marks, in their order.
    """
    name = f"figures of {part}" if part else "figures"
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, start, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise ValueError(f"insert expects a page with the marks {first} and {last}, got {page[:40]!r}…")
    return f"{before}{start}\n\n{text.strip()}\n\n{end}{after}"


def fill(path: Path, text: str, part: str = "") -> None:
    """Puts `text` between the marks of a page, those of a part if it is named."""
    replace_file(path, insert(path.read_text(), text, part).encode())
