"""Pages of the docs whose figures a study writes, between two marks."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["inserted", "page"]

_START, _END = "<!-- figures -->", "<!-- end of figures -->"


def page(path: str) -> Path:
    """A page given on the command line, for the `type` of an argument: looked at before hours are spent.

    Raises:
        argparse.ArgumentTypeError: If it cannot be read, or has not both marks.
    """
    try:
        inserted(Path(path).read_text(), "")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from error
    return Path(path)


def inserted(page: str, text: str) -> str:
    """A page with `text` between its two marks, in the place of what was there.

    Raises:
        ValueError: If the page has not both marks, in their order.
    """
    before, start, rest = page.partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        raise ValueError(f"inserted expects a page with the marks {_START} and {_END}, got {page[:40]!r}…")
    return f"{before}{start}\n\n{text.strip()}\n\n{end}{after}"
