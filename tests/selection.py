"""What runs without `--full`: most tests, of the others a few drawn by the commit, and all tests of what has changed.

A test marked `wide(num)` runs `num` of its cases, none by default. Of a battery's parts, a third have the quick checks
and a third of these all checks. With `--wide` all cases run, and all parts have the quick checks and half of them all
checks. A test has changed with its file, with the module that the file mirrors or with its plug-in; a part with its
module or with the battery.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.commit import ROOT, list_changed
from tests.covering import draw

if TYPE_CHECKING:
    from modkit.cases.subject import Subject

__all__ = ["has_changed", "has_part_changed", "select"]

_Case = TypeVar("_Case")
_BATTERY = ("modkit/testing/", "modkit/cases/")
_QUICK = frozenset(
    ("declaration", "signature", "builds", "refusals", "emits", "finite", "inputs", "one-sample", "isolation", "meta")
)
"""Checks of a part that take milliseconds; each of the others calls it many times, or trains it."""


def select(items: Sequence[pytest.Item], *, wide: bool) -> list[pytest.Item]:
    """Returns the tests that run without `--full`, with or without `--wide`, in their order."""
    changed = list_changed()
    cases: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    checks: defaultdict[str, dict[str, list[pytest.Item]]] = defaultdict(dict)
    for item in items:
        name = item.nodeid.partition("[")[0]
        path = PurePosixPath(item.path.relative_to(ROOT).as_posix())
        if item.get_closest_marker("full") or has_changed(path, changed):
            continue
        if item.get_closest_marker("wide"):
            cases[name].append(item)
        elif (subject := _get_subject(item)) and not has_part_changed(subject.part.target, changed):
            checks[name].setdefault(str(subject), []).append(item)
    left = set() if wide else {item for each in cases.values() for item in _leave(each, _get_num(each[0]))}
    for parts in checks.values():
        some = list(parts) if wide else draw(list(parts), math.ceil(len(parts) / 3))
        whole = draw(some, math.ceil(len(some) / (2 if wide else 3)))
        left |= {item for part in parts.keys() - some for item in parts[part]}
        left |= {item for part in {*some} - {*whole} for item in parts[part] if _get_name(item) not in _QUICK}
        if not wide:  # to compile one network takes as long as a hundred other tests
            left |= {item for part in whole[1:] for item in parts[part] if _get_name(item) == "compiles"}
    return [item for item in items if item not in left]


def has_changed(test: PurePosixPath, changed: Iterable[str]) -> bool:
    """Whether a file of tests, the module that it mirrors or its plug-in is among the paths that have changed.

    Args:
        test: The path of the file, from the root.
        changed: The paths that have changed.
    """
    if test.parts[0] == "plugins":
        return any(PurePosixPath(path).parts[:2] == test.parts[:2] for path in changed)
    mirrored = PurePosixPath("modkit", *test.parts[1:-1], test.name.removeprefix("test_"))
    return not {str(test), str(mirrored)}.isdisjoint(changed)


def has_part_changed(target: str, changed: Iterable[str]) -> bool:
    """Whether the module of a part, `module.path:Name`, or the battery is among the paths that have changed."""
    module = target.partition(":")[0].replace(".", "/") + ".py"
    return any(path == module or path.startswith(_BATTERY) for path in changed)


def _get_subject(item: pytest.Item) -> Subject | None:
    """Returns the part that a test checks, if it is one of a battery; found without importing the battery."""
    check = getattr(getattr(item, "callspec", None), "params", {}).get("check")
    if type(check).__module__ != "modkit.testing.battery":
        return None
    subject = check.checklist.subject
    return subject if hasattr(subject, "part") else None


def _get_name(item: pytest.Item) -> str:
    return item.callspec.params["check"].name


def _get_num(item: pytest.Item) -> int:
    mark = item.get_closest_marker("wide")
    return mark.args[0] if mark and mark.args else 0


def _leave(cases: Sequence[_Case], num: int) -> list[_Case]:
    kept = {*draw(cases, num)}
    return [case for case in cases if case not in kept]
