"""Pages of the docs whose figures a study writes, between two marks."""

from __future__ import annotations

__all__ = ["inserted"]

_START, _END = "<!-- figures -->", "<!-- end of figures -->"


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
