"""Code blocks of Markdown pages, fenced or indented, in the order in which a reader meets them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "blocks", "pages"]

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"```(\w*)$")
_NAMED = re.compile(r"(?:#|//) ([\w./-]+\.\w+|[\w./-]*\.github/[\w./-]+)\n")


@dataclass(frozen=True)
class Block:
    """A code block: its page and first line, its language (empty where the page says none) and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The path that its first line, a comment, names: a block that is a file."""
        named = _NAMED.match(self.text)
        return named[1] if named and self.language not in ("", "sh", "text") else None


def pages() -> list[str]:
    """Every page of the documentation that git keeps and README.md, by its path from the top."""
    kept = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
    return ["README.md", *sorted(path.as_posix() for path in kept if path.parts[1] not in ("api", "notebooks"))]


def blocks(page: str) -> list[Block]:
    """The code blocks of a page."""
    found: list[Block] = []
    language: str | None = None
    start, held, before = 0, list[str](), ""
    for number, line in enumerate([*(ROOT / page).read_text().splitlines(), ""], 1):
        fence = _FENCE.match(line)
        if language is None and held and line and not line.startswith("    "):
            found.append(Block(page, start, "", "\n".join([*held, ""])))
            held = []
        if language is None and fence:
            language, start, held = fence[1], number + 1, []
        elif language is not None and line == "```":
            found.append(Block(page, start, language, "\n".join([*held, ""])))
            language, held = None, []
        elif language is not None:
            held.append(line)
        elif line.startswith("    ") and (held or not before):
            start = start if held else number
            held.append(line[4:])
        before = line if language is None else ""
    if language is not None:
        raise ValueError(f"{page}:{start}: expected a fence to close, got the end of the page")
    if held:
        found.append(Block(page, start, "", "\n".join([*held, ""])))
    return found
