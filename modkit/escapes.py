r"""Text from data (names in specs and runs, file names, messages of other programs), made safe to show.

A terminal obeys control characters: they recolour, erase and retitle, and some answer as if the user had typed.
Markdown obeys its punctuation and HTML. Shown here, both are plain text.
"""

from __future__ import annotations

import re

__all__ = ["escape_controls", "escape_markdown", "quote_code"]

_CONTROLS = re.compile(  # but tab and line feed; also what reorders a line, and halves of characters
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MARKUP = re.compile(r"[\\`*_\[\]<>&|~$]")
_BLOCK = re.compile(r"^(\s*)(#|[-+=>]|\d+[.)])")
# What GitHub and others make links from, where it is not broken by an empty comment. An escape or a character reference
# would not do: they look for links in the text that it stands for.
_LINK = re.compile(r":(?=//)|www(?=\.)|@", re.IGNORECASE)


def escape_controls(text: str) -> str:
    r"""Replaces control characters, except tabs and line feeds, by their escapes.

    So is what reorders a line (marks and overrides of direction), and halves of characters, which cannot be encoded.

    Examples:
        >>> escape_controls("\x1b[2J caf\xe9")
        '\\x1b[2J café'
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def escape_markdown(text: str) -> str:
    r"""Makes one line of Markdown that shows a text as it is, without markup, links, HTML or formulas.

    Examples:
        >>> escape_markdown("# a_b <img src=x>")
        '\\# a\\_b &lt;img src=x&gt;'
        >>> escape_markdown("http://a.b")  # an empty comment, which is not shown, keeps it from becoming a link
        'http:<!---->//a.b'
    """
    line = escape_controls(" ".join(text.split()))
    line = _MARKUP.sub(lambda found: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(found[0], f"\\{found[0]}"), line)
    line = _LINK.sub(lambda found: f"{found[0]}<!---->", line)
    return _BLOCK.sub(lambda found: f"{found[1]}{found[2][:-1]}\\{found[2][-1]}", line)


def quote_code(text: str) -> str:
    r"""Makes Markdown that shows a text as code on one line, whatever backticks it holds.

    Examples:
        >>> quote_code("a_b"), quote_code("a`b")
        ('`a_b`', '`` a`b ``')
    """
    line = escape_controls(" ".join(text.split()))
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if longest else f"{fence}{line}{fence}"
