"""Errors in a spec, with their place: `file:line:column: model.prior.network: got …, expected … (did you mean …?)`.

A path names a place in a spec: names joined by dots, `[0]` for an item of a list, and `["*critic"]` for a name with
special characters.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

__all__ = [
    "LocalPart",
    "MissingPart",
    "Position",
    "Problem",
    "SpecError",
    "describe_exception",
    "is_inside",
    "join",
    "join_names",
    "shorten",
    "split",
    "suggest",
]

_BARE = re.compile(r"""[^.\[\]"'=\s]+""")
_STEP = re.compile(r"""\.?(?P<name>[^.\[\]"'=\s]+)|\[(?P<index>[0-9]{1,9})\]|\[(?P<quoted>"(?:[^"\\]|\\.)*")\]""")


@dataclass(frozen=True)
class Position:
    """A place in a text. Lines and columns count from 1."""

    file: str
    line: int
    column: int

    @classmethod
    def locate_end(cls, text: str, file: str) -> Position:
        """Returns the position right after a text that starts a file."""
        return cls(file, text.count("\n") + 1, len(text) - text.rfind("\n"))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One problem in a spec.

    Args:
        path: Dotted path in the spec, empty if the problem concerns the whole spec.
        message: What was received and what was expected.
        position: Where the value was written, or None if it came from Python.
        hint: How the problem may be solved, such as the closest names.
        reason: The error behind it, if its type says more than the message, such as `MissingPart`.

    Examples:
        >>> print(Problem("model.width", "got 'a', expected int", Position("vae.yaml", 3, 9)))
        vae.yaml:3:9: model.width: got 'a', expected int
    """

    path: str
    message: str
    position: Position | None = None
    hint: str | None = None
    reason: Exception | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        where = [str(part) for part in (self.position, self.path) if part]
        text = ": ".join([*where, self.message])
        return f"{text} ({self.hint})" if self.hint else text


class SpecError(ValueError):
    """A spec cannot be built. The message lists every problem, one per line.

    Args:
        problems: One problem, or several.

    Examples:
        >>> import modkit
        >>> try:
        ...     modkit.Spec.from_yaml("{modle: gan, model: gan}")
        ... except modkit.SpecError as error:
        ...     print(error.problems[0].path, error.problems[0].hint)
        modle did you mean 'model'?
    """

    problems: tuple[Problem, ...]

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class MissingPart(ValueError):
    """No part has the name.

    Args:
        kind: The kind of the part.
        name: The name.
        message: The message.
    """

    def __init__(self, kind: str, name: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.name = kind, name


class LocalPart(ValueError):
    """No name loads the part: a run names it that was trained on Python objects."""


def suggest(name: str, choices: Iterable[str], before: str = "") -> str:
    """Returns a hint that names the choice closest to a name, or an empty string if none is close.

    Case and the difference between `-` and `_` do not count; `fsq` also matches a plug-in's `acme/fsq`.

    Args:
        name: The unknown name.
        choices: The known names.
        before: Text before the hint, such as `; `.

    Examples:
        >>> suggest("LR-schedule", ["lr_schedule", "optimizer"])
        "did you mean 'lr_schedule'?"
        >>> suggest("qqq", ["ddim", "heun"])
        ''
    """
    folded, word = {_fold(choice): choice for choice in choices}, _fold(name)
    same = [one for one in folded if one == word] or [one for one in folded if one.endswith(f"/{word}")]
    close = same or difflib.get_close_matches(word, folded, n=1)
    return f"{before}did you mean {folded[close[0]]!r}?" if close else ""


def _fold(name: str) -> str:
    return name[:100].casefold().replace("_", "-")


def shorten(text: str) -> str:
    """A text as a message quotes it: at most 60 characters, or its first 50 and its length."""
    return text if len(text) <= 60 else f"{text[:50]}… ({len(text)} characters)"


def join_names(names: Collection[str], most: int = 8) -> str:
    """Joins names for a message: the first of them, and how many there are if these are not all.

    Examples:
        >>> join_names(["a", "b", "c"], most=2)
        'a, b, … (3 in all)'
    """
    some = ", ".join(islice(names, most))
    return some if len(names) <= most else f"{some}, … ({len(names)} in all)"


def describe_exception(error: BaseException) -> str:
    """Describes an exception on one line, with the place that raised it, if that is not where it was caught.

    Examples:
        >>> try:
        ...     {}["a"]
        ... except KeyError as error:
        ...     print(describe_exception(error))
        KeyError: 'a'
    """
    import importlib
    import traceback

    text = " ".join("".join(traceback.format_exception_only(type(error), error)[-1:]).split())
    frames = traceback.extract_tb(error.__traceback__)[1:]
    machinery = ("<frozen importlib", os.path.dirname(importlib.__file__))
    places = [(one.filename, one.lineno) for one in frames if not one.filename.startswith(machinery)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    return f"{text} ({os.path.basename(places[-1][0])}, line {places[-1][1]})" if places else text


def join(parts: Sequence[str | int]) -> str:
    """Joins names and indices to a dotted path.

    Examples:
        >>> join(["model", "levels", 0, "prior"])
        'model.levels[0].prior'
    """
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _BARE.fullmatch(part):
            path += f".{part}" if path else part
        else:
            path += f"[{json.dumps(part)}]"
    return path


def is_inside(path: str, outer: Collection[str]) -> bool:
    """Whether a path is one of others, or inside one.

    Examples:
        >>> is_inside("model.encoder", ["model"]), is_inside("model.encoder", ["model.enc"])
        (True, False)
    """
    return any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in outer)


def split(path: str, position: Position | None = None, referrer: str = "") -> tuple[str | int, ...]:
    """Splits a dotted path into names and indices; the inverse of `join`.

    Args:
        path: The path.
        position: Where the path was written, for the error.
        referrer: Path of the value that holds it, for the error.

    Examples:
        >>> split("model.levels[0].prior")
        ('model', 'levels', 0, 'prior')

    Raises:
        SpecError: If it is not a path.
    """
    parts: list[str | int] = []
    end = 0
    while end < len(path):
        step = _STEP.match(path, end)
        if step is None or (step["name"] is not None and (step[0][0] == ".") != (end > 0)):
            break
        if step["name"] is not None:
            parts.append(step["name"])
        elif step["index"]:
            parts.append(int(step["index"]))
        else:
            try:
                parts.append(str(json.loads(step["quoted"])))
            except ValueError:
                break
        end = step.end()
    if not parts or end < len(path):
        message = f'got {path[:100]!r}, expected a path such as model.levels[0].prior or players["*"]'
        raise SpecError(Problem(referrer, message, position))
    return tuple(parts)
