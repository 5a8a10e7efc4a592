"""YAML text to a tree of plain data that remembers where everything was written, and back.

The text is untrusted. It holds null, bool, int, float, str, lists and mappings with string keys (YAML 1.2's core
schema: `1e-3` is a number, `no` a string), and nothing else: no tags, merge keys, second documents or directives.
Aliases share what they name; what a text expands to is counted before it is made, so neither it nor its aliases can
ask for more than linear time and memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeAlias

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scanner import Scanner, ScannerError

from modkit.errors import Position, Problem, SpecError, join, nearest

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_KEY", "MAX_NODES", "Source", "dump", "encodable", "parse", "weight"]

MAX_BYTES = 1_000_000
"""Longest text."""
MAX_NODES = 10_000
"""Most nodes of a tree, aliases expanded; each 100 characters of a string count as one more."""
MAX_DEPTH = 64
"""Deepest nesting."""
MAX_KEY = 100
"""Longest key."""

Data: TypeAlias = "None | bool | int | float | str | list[Data] | dict[str, Data]"

_WIDTH = 100
_NULL = ("", "~", "null", "Null", "NULL")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+*@-]*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}  # the last six: what YAML 1.1 readers misread
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True)
class Source:
    """Where a value was written, and everything inside it.

    Args:
        position: Of the value.
        key: Of its key, for a value in a mapping.
        children: By key or index.
    """

    position: Position | None = None
    key: Position | None = None
    children: Mapping[str | int, Source] = field(default_factory=dict)

    def at(self, parts: Sequence[str | int]) -> Source:
        """The source at a path, or the nearest around it that has a position."""
        found = source = self
        for part in parts:
            if part not in source.children:
                break
            source = source.children[part]
            if source.position is not None:
                found = source
        return found

    def placed(self, parts: Sequence[str | int], source: Source) -> Source:
        """This source with another at a path."""
        if not parts:
            return source
        child = self.children.get(parts[0], Source()).placed(parts[1:], source)
        return replace(self, children={**self.children, parts[0]: child})


def parse(text: str, file: str = "<string>") -> tuple[Data, Source]:
    """The data that a YAML text holds, and where it was written.

    Args:
        text: The text, of at most `MAX_BYTES` characters.
        file: Its name in positions.

    Raises:
        SpecError: If it is no YAML, holds anything but plain data, or is too large.
    """
    if len(text) > MAX_BYTES:
        message = f"got {len(text)} characters, expected at most {MAX_BYTES}"
        raise SpecError(Problem("", message, Position(file, 1, 1)))
    composer = _Composer(file)
    for event in _events(text, file):
        composer.take(event)
    return composer.root


def dump(tree: Mapping[str, Any]) -> str:
    """The YAML text of a tree of mappings, lists or tuples, and scalars."""
    return "".join(f"{line}\n" for line in _block(tree, ""))


def encodable(text: str) -> bool:
    """Whether a string is Unicode that can be written: no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def weight(value: object) -> int:
    """How much a scalar counts towards `MAX_NODES`."""
    return 1 + len(value) // 100 if isinstance(value, str) else 1


class _Scanner(Scanner):
    def scan_tag(self) -> NoReturn:  # before the tag is read: ruamel's own takes quadratic time over a long one
        raise ScannerError(None, None, "got a tag (!…), expected plain data; quote a string", self.reader.get_mark())

    def scan_directive(self) -> NoReturn:
        raise ScannerError(None, None, "got a directive (%…), expected plain data", self.reader.get_mark())

    def scan_flow_scalar(self, style: str) -> Any:
        start = self.reader.get_mark()
        try:
            return super().scan_flow_scalar(style)
        except (ValueError, OverflowError):  # of chr
            raise ScannerError(None, None, "got an escape that is no character, expected Unicode", start) from None


def _events(text: str, file: str) -> Iterator[Any]:
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    try:
        yield from yaml.parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = "; ".join(str(part) for part in (error.context, error.problem) if part)
        raise SpecError(Problem("", f"invalid YAML: {message}", _position(file, mark))) from None
    except ReaderError as error:
        before = text[: error.position]
        position = Position(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        message = f"invalid YAML: got the character U+{ord(text[error.position]):04X}, expected printable ones"
        raise SpecError(Problem("", message, position)) from None


def _position(file: str, mark: Any) -> Position:
    return Position(file, mark.line + 1, mark.column + 1) if mark is not None else Position(file, 1, 1)


@dataclass
class _Open:
    """A list or mapping whose end has not come yet."""

    start: Position
    anchor: str | None
    before: int
    value: list[Data] | dict[str, Data]
    key: str | None = None
    key_position: Position | None = None
    height: int = 0
    children: dict[str | int, Source] = field(default_factory=dict)

    @property
    def part(self) -> str | int | None:
        return self.key if isinstance(self.value, dict) else len(self.value)


@dataclass(frozen=True)
class _Done:
    """A finished node."""

    value: Data
    source: Source
    weight: int
    height: int


class _Composer:
    """Makes data of events, one at a time, without recursion."""

    def __init__(self, file: str) -> None:
        self.root: tuple[Data, Source] = (None, Source(Position(file, 1, 1)))
        self._file = file
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Done] = {}
        self._weight = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        position = _position(self._file, event.start_mark)
        if isinstance(event, events.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._fail("got a second document, expected one", position)
        elif isinstance(event, events.ScalarEvent):
            self._scalar(event, position)
        elif isinstance(event, events.AliasEvent):
            self._alias(event.anchor, position)
        elif isinstance(event, (events.MappingStartEvent, events.SequenceStartEvent)):
            self._start({} if isinstance(event, events.MappingStartEvent) else [], event.anchor, position)
        elif isinstance(event, (events.MappingEndEvent, events.SequenceEndEvent)):
            self._end()

    def _scalar(self, event: Any, position: Position) -> None:
        text = event.value
        if self._wants_key:
            self._key(text, plain=event.style is None, position=position)
            if event.anchor:
                self._fail("got an anchor on a key, expected it on a value", position)
            return
        try:
            value = _resolved(text) if event.style is None else _unicode(text)
        except ValueError as error:
            self._fail(str(error), position)
        self._count(weight(value), position)
        self._put(_Done(value, Source(position), weight(value), 0), event.anchor, position)

    def _key(self, text: str, plain: bool, position: Position) -> None:
        top = self._stack[-1]
        top.key = None
        if plain and text == "<<":
            self._fail("got a merge key <<, which YAML 1.2 has not; write its keys out", position)
        try:
            key = _resolved(text) if plain else _unicode(text)
        except ValueError as error:
            self._fail(str(error), position)
        if not isinstance(key, str):
            self._fail(f"got the key {text or 'null'}, expected a string; quote it", position)
        if len(key) > MAX_KEY:
            self._fail(f"got a key of {len(key)} characters, expected at most {MAX_KEY}", position)
        top.key, top.key_position = key, position
        if isinstance(top.value, dict) and key in top.value:
            first = top.children[key].key
            self._fail(f"got the key {key!r} twice in one mapping, first at {first}", position)

    def _alias(self, name: str, position: Position) -> None:
        if self._wants_key:
            self._fail("got an alias as a key, expected a string", position)
        for depth, opened in enumerate(self._stack):
            if opened.anchor == name:
                cycle = " → ".join(self._path(stop) or "the whole" for stop in (depth, len(self._stack), depth))
                self._fail(f"got the alias *{name} inside what it names: a cycle {cycle}", position)
        if name not in self._anchors:
            self._fail(f"got the alias *{name}, expected an anchor before it", position, nearest(name, self._anchors))
        done = self._anchors[name]
        self._count(done.weight, position)
        self._put(replace(done, source=replace(done.source, position=position, key=None)), None, position)

    def _start(self, value: list[Data] | dict[str, Data], anchor: str | None, position: Position) -> None:
        if self._wants_key:
            self._fail("got a list or mapping as a key, expected a string", position)
        before = self._weight
        self._count(1, position)
        self._stack.append(_Open(position, anchor, before, value))
        self._check_depth(0, position)

    def _end(self) -> None:
        done = self._stack.pop()
        source = Source(done.start, None, done.children)
        self._put(_Done(done.value, source, self._weight - done.before, done.height + 1), done.anchor, done.start)

    def _put(self, done: _Done, anchor: str | None, position: Position) -> None:
        self._check_depth(done.height, position)
        if anchor:
            self._anchors[anchor] = done
        if not self._stack:
            self.root = (done.value, done.source)
            return
        top = self._stack[-1]
        top.height = max(top.height, done.height)
        part = top.part
        if isinstance(top.value, list):
            top.children[len(top.value)] = done.source
            top.value.append(done.value)
        elif isinstance(part, str):
            top.children[part] = replace(done.source, key=top.key_position)
            top.value[part] = done.value
            top.key = None

    @property
    def _wants_key(self) -> bool:
        return bool(self._stack) and self._stack[-1].part is None

    def _count(self, amount: int, position: Position) -> None:
        self._weight += amount
        if self._weight > MAX_NODES:
            self._fail(f"got more than {MAX_NODES} nodes with aliases expanded, expected fewer", position)

    def _check_depth(self, height: int, position: Position) -> None:
        if len(self._stack) + height > MAX_DEPTH:
            self._fail(f"got more than {MAX_DEPTH} levels of nesting, expected fewer", position)

    def _path(self, stop: int) -> str:
        return join([opened.part for opened in self._stack[:stop] if opened.part is not None])

    def _fail(self, message: str, position: Position, hint: str | None = None) -> NoReturn:
        raise SpecError(Problem(self._path(len(self._stack)), message, position, hint))


def _resolved(text: str) -> None | bool | int | float | str:
    """What a plain scalar means in YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        digits = text.lstrip("+-")
        number = int(text, 0 if digits[:2] in ("0o", "0x") else 10) if len(text) <= MAX_KEY else 2**64
        if abs(number) >= 2**63:
            raise ValueError(f"got {_short(text)}, expected a whole number below 2^63")
        return number
    if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        value = float(text.replace(".inf", "inf").replace(".nan", "nan")) if _FLOAT.fullmatch(text) else math.inf
        if not math.isfinite(value):
            raise ValueError(f"got {_short(text)}, expected a finite number")
        return value
    return _unicode(text)


def _unicode(text: str) -> str:
    if not encodable(text):
        raise ValueError("got half of a surrogate pair, expected Unicode")
    return text


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:30]}… ({len(text)} characters)"


def _block(value: Any, pad: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            head = f"{pad}{_text(key)}:"
            inline = _inline(item, _WIDTH - len(head) - 1)
            if inline is not None:
                yield f"{head} {inline}"
            else:
                yield head
                yield from _block(item, f"{pad}  ")
        return
    for item in value:
        inline = _inline(item, _WIDTH - len(pad) - 2)
        lines = iter([f"{pad}  {inline}"] if inline is not None else _block(item, f"{pad}  "))
        yield f"{pad}- {next(lines)[len(pad) + 2 :]}"
        yield from lines


def _inline(value: Any, room: int) -> str | None:
    """The text of a value for one line, or None where a block reads better."""
    if not value or not isinstance(value, (Mapping, tuple, list)):
        return _flow(value)
    if any(_holds_mapping(item) for item in (value.values() if isinstance(value, Mapping) else value)):
        return None
    text = _flow(value)
    return text if len(text) <= room else None


def _holds_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, (tuple, list)) and any(map(_holds_mapping, value)))


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'
