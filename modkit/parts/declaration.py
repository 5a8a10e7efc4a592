"""Declarations: what a plug-in's hooks `modkit_kinds` and `modkit_parts` may return.

A kind or part that cannot be used is left out and reported; the others of its plug-in are registered nevertheless.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from modkit.errors import suggest
from modkit.kinds import Kind
from modkit.part import Part

__all__ = ["select_kinds", "select_parts"]

_Row = TypeVar("_Row", Kind, Part)
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_TARGET = re.compile(f"{_MODULE.pattern}:{_MODULE.pattern}")
_PHASES = ("always", "training", "sampling")


def select_kinds(answers: list[Any]) -> tuple[list[Kind], list[str]]:
    """Returns the valid kinds among what a plug-in's hook `modkit_kinds` returned, and the problems of the others."""
    return _select(answers, "modkit_kinds", Kind, _check_kind, lambda kind: [("kind", kind.name)])


def select_parts(answers: list[Any], kinds: Collection[str]) -> tuple[list[Part], list[str]]:
    """Returns the valid parts among what a plug-in's hook `modkit_parts` returned, and the problems of the others.

    Args:
        answers: What it returned.
        kinds: Names of all kinds.
    """
    return _select(
        answers,
        "modkit_parts",
        Part,
        lambda part: _check_part(part, kinds),
        lambda part: [(part.kind, name) for name in (part.name, *part.aliases)],
    )


def _select(
    answers: list[Any],
    hook: str,
    type_: type[_Row],
    check: Callable[[_Row], str | None],
    list_names: Callable[[_Row], list[tuple[str, str]]],
) -> tuple[list[_Row], list[str]]:
    rows: list[_Row] = []
    reasons: list[str] = []
    for answer in answers:
        if not isinstance(answer, list | tuple):
            reasons.append(f"{hook} expects to return a list of {type_.__name__}, got {type(answer).__name__}")
            continue
        for row in answer:
            if not isinstance(row, type_):
                reasons.append(f"{hook} expects to return a list of {type_.__name__}, got {type(row).__name__} in it")
            elif reason := check(row):
                reasons.append(reason)
            else:
                rows.append(row)
    counts = Counter(name for row in rows for name in list_names(row))
    twice = {key for key, count in counts.items() if count > 1}
    reasons += [f"{kind} {name!r} is declared more than once" for kind, name in sorted(twice)]
    return [row for row in rows if not twice.intersection(list_names(row))], reasons


def _check_kind(kind: Kind) -> str | None:
    texts = {"name": kind.name, "protocol": kind.protocol, "summary": kind.summary}
    if not all(isinstance(text, str) for text in texts.values()):
        return f"a kind expects name, protocol and summary to be text, got {tuple(texts.values())}"
    for what, names in (("given", kind.given), ("optional", kind.optional)):
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            return f"kind {kind.name} expects {what} to be a tuple of names, got {names!r}"
    if kind.phase not in _PHASES:
        return f"kind {kind.name} expects a phase among {', '.join(_PHASES)}, got {kind.phase!r}"
    if kind.starters is not None and not (isinstance(kind.starters, str) and _MODULE.fullmatch(kind.starters)):
        return f"kind {kind.name} expects starters 'package.path', got {kind.starters!r}"
    return _check_names(f"kind {kind.name}", (kind.name,), {"a protocol": kind.protocol, "a case": kind.case})


def _check_part(part: Part, kinds: Collection[str]) -> str | None:
    texts = (part.kind, part.name, part.target, part.summary)
    if not all(isinstance(text, str) for text in texts):
        return f"a part expects kind, name, target and summary to be text, got {texts}"
    if part.kind not in kinds:
        return f"part {part}: unknown kind {part.kind!r}{suggest(part.kind, kinds, '; ')}"
    if not isinstance(part.aliases, tuple) or not all(isinstance(alias, str) for alias in part.aliases):
        return f"part {part} expects aliases to be a tuple of names, got {part.aliases!r}"
    return _check_names(f"part {part}", (part.name, *part.aliases), {"a target": part.target, "migrate": part.migrate})


def _check_names(owner: str, names: Collection[str], targets: Mapping[str, Any]) -> str | None:
    """Returns why what is declared cannot have these names, or cannot be imported from these targets, or None."""
    for name in names:
        if not re.fullmatch(r"[^\s/]+", name):
            return f"{owner} expects a name without blanks and slashes, got {name!r}"
    for what, target in targets.items():
        if target is not None and not (isinstance(target, str) and _TARGET.fullmatch(target)):
            return f"{owner} expects {what} 'module.path:Name', got {target!r}"
    return None
