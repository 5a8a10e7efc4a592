"""Comparing what a case says and makes with its golden file, field by field and key by key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from tests.golden.moved import SAME, Move

__all__ = ["ABSENT", "Comparison", "Difference"]

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "nothing"})()
_INPUTS = ("spec", "overrides")
_WHOLE = ("messages", "warnings")  # whose keys are whole texts
_SAME_KEYS = {"trained": "weights"}
_ENDS = ".[/ "  # that may follow the start of a key
_HASH = re.compile("[0-9a-f]{64}")
_SHOWN = 200  # characters of a value


class Difference(NamedTuple):
    """A key of a field of a case, with its value in the golden file and now."""

    case: str
    field: str
    key: str
    former: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.case}: {self.field} {self.key}: {_show(self.former)} → {_show(self.now)}{self._measure()}"

    def _measure(self) -> str:
        lists = [value for value in (self.former, self.now) if isinstance(value, list)]
        numbers = [value for each in lists for value in each if isinstance(value, float)]
        if len(lists) != 2 or len(numbers) != 2 * len(self.former) or len(self.former) != len(self.now):
            return ""
        return f" (at most {max(map(abs, (a - b for a, b in zip(*lists))), default=0.0):.4g} apart)"


class Comparison:
    """Compares cases; keys that have moved on purpose are no differences.

    Args:
        moves: What has moved.
    """

    def __init__(self, moves: Sequence[Move]) -> None:
        self._moves, self._used = moves, set[int]()

    def compare(self, case: str, former: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
        """Yields the differences of a case."""
        for field in sorted((former.keys() | now.keys()) - set(_INPUTS)):
            yield from self._compare_field(case, field, former.get(field, ABSENT), now.get(field, ABSENT))

    def list_unused(self) -> list[Move]:
        """Lists the moves that no case has shown."""
        return [move for number, move in enumerate(self._moves) if number not in self._used]

    def _compare_field(self, case: str, field: str, former: Any, now: Any) -> Iterator[Difference]:
        if former == now:
            return
        before, after = _flatten(field, former), _flatten(field, now)
        expected = self._apply_moves(case, field, before, after)
        found = [
            Difference(case, field, key, expected.get(key, ABSENT), after.get(key, ABSENT))
            for key in dict.fromkeys((*expected, *after))
            if expected.get(key, ABSENT) != after.get(key, ABSENT)
        ]
        if not found and expected == before:
            found = [Difference(case, field, "(order or form)", former, now)]
        yield from found

    def _apply_moves(self, case: str, field: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        """Makes what is expected now: the first move of a key counts."""
        expected = {}
        moves = [
            (number, move)
            for number, move in enumerate(self._moves)
            if move.field == _SAME_KEYS.get(field, field) and fnmatchcase(case, move.cases)
        ]
        for key, value in before.items():
            number, move = next(((n, move) for n, move in moves if _starts(field, key, move.former)), (-1, None))
            self._used.add(number)
            if move is None:
                expected[key] = value
            elif move.now is not None:
                expected[move.now + key[len(move.former or "") :]] = value if move.value is SAME else move.value
        for number, move in moves:
            for key in after.keys() - expected.keys():
                if move.former is None and _starts(field, key, move.now):
                    self._used.add(number)
                    expected[key] = after[key] if move.value is SAME else move.value
        return expected


def _flatten(field: str, value: Any) -> dict[str, Any]:
    """Makes keys and values of a field."""
    if value is ABSENT:
        return {}
    if field in _WHOLE:
        return dict(Counter(value))
    if field == "resolved":
        value = YAML(typ="safe").load(value)
    elif field != "check":
        return value if isinstance(value, dict) else {"": value}
    return dict(_walk(value, ""))


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a tree by path. An item of a list goes by its `path`, `name` or number."""
    if isinstance(value, dict) and value:
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        seen: Counter[str] = Counter()
        items = []
        for number, item in enumerate(value):
            name = str(item.get("path") or item.get("name") or number) if isinstance(item, dict) else str(number)
            seen[name] += 1
            items.append((f"{path}.{name}" + (f"[{seen[name]}]" if seen[name] > 1 else ""), _drop_name(item, name)))
    else:
        yield path, value
        return
    for place, item in items:
        yield from _walk(item, place)


def _drop_name(item: Any, name: str) -> Any:
    """Drops the key that an item goes by."""
    return {key: value for key, value in item.items() if value != name} if isinstance(item, dict) else item


def _starts(field: str, key: str, start: str | None) -> bool:
    if start is None or not key.startswith(start):
        return False
    rest = key[len(start) :]
    return not rest or (field not in _WHOLE and rest[0] in _ENDS)


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    if _HASH.fullmatch(text):
        return f"{text[:12]}…"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
