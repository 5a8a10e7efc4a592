"""Declarations: what a plug-in's hook `modkit_parts` may return.

A part that cannot be used is left out and reported; the others of its plug-in are registered nevertheless.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from modkit.errors import suggest
from modkit.kinds import KINDS
from modkit.part import Part

__all__ = ["select_valid"]

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def select_valid(answers: list[Any]) -> tuple[list[Part], list[str]]:
    """Returns the valid parts among what a plug-in's hook `modkit_parts` returned, and the problems of the others."""
    parts: list[Part] = []
    reasons: list[str] = []
    for answer in answers:
        if not isinstance(answer, list | tuple):
            reasons.append(f"modkit_parts expects to return a list of Part, got {type(answer).__name__}")
            continue
        for part in answer:
            if reason := _check(part):
                reasons.append(reason)
            else:
                parts.append(part)
    counts = Counter((part.kind, name) for part in parts for name in (part.name, *part.aliases))
    twice = {key for key, count in counts.items() if count > 1}
    reasons += [f"{kind} {name!r} is declared more than once" for kind, name in sorted(twice)]
    good = [part for part in parts if not any((part.kind, name) in twice for name in (part.name, *part.aliases))]
    return good, reasons


def _check(part: object) -> str | None:
    if not isinstance(part, Part):
        return f"modkit_parts expects to return a list of Part, got {type(part).__name__} in it"
    texts = (part.kind, part.name, part.target, part.summary)
    if not all(isinstance(text, str) for text in texts):
        return f"a part expects kind, name, target and summary to be text, got {texts}"
    if part.kind not in KINDS:
        return f"part {part}: unknown kind {part.kind!r}{suggest(part.kind, KINDS, '; ')}"
    if not isinstance(part.aliases, tuple) or not all(isinstance(alias, str) for alias in part.aliases):
        return f"part {part} expects aliases to be a tuple of names, got {part.aliases!r}"
    for name in (part.name, *part.aliases):
        if not re.fullmatch(r"[^\s/]+", name):
            return f"part {part} expects a name without blanks and slashes, got {name!r}"
    for what, target in (("a target", part.target), ("migrate", part.migrate)):
        if target is not None and not (isinstance(target, str) and _TARGET.fullmatch(target)):
            return f"part {part} expects {what} 'module.path:Name', got {target!r}"
    return None
