"""Reading YAML text into a tree of plain data with source positions, and writing such a tree.

The text is untrusted. It may hold null, bool, int, float, str, lists and mappings with string keys in YAML 1.2's core
schema (`1e-3` is a number, `no` is a string). Tags, merge keys, directives and further documents are errors. An alias
shares the node of its anchor. Nodes are counted with all aliases expanded before they are created, so that no text
takes more than linear time and memory.
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

from modkit.errors import Position, Problem, SpecError, join, shorten, suggest

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_KEY",
    "MAX_NODES",
    "Source",
    "check_scalar",
    "dump",
    "format_flow",
    "parse",
    "weigh",
]

MAX_BYTES = 1_000_000
"""Longest text."""
MAX_NODES = 10_000
"""Most nodes of a tree with aliases expanded; every 100 characters of a string count as one more node."""
MAX_DEPTH = 64
"""Deepest nesting."""
MAX_KEY = 100
"""Longest key."""

_Scalar: TypeAlias = "None | bool | int | float | str"
Data: TypeAlias = "_Scalar | list[Data] | dict[str, Data]"
_Path: TypeAlias = "tuple[str | int, ...]"

_WIDTH = 100
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+*@-]*")
_WORDS = {
    "null",
    "true",
    "false",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
}  # the last six are booleans in YAML 1.1
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True)
class Source:
    """Where a value, and each value inside it, was written.

    Args:
        position: Position of the value.
        key: Position of its key, for a value in a mapping.
        children: Sources of the values inside it, by key or index.
    """

    position: Position | None = None
    key: Position | None = None
    children: Mapping[str | int, Source] = field(default_factory=dict)

    def at(self, parts: Sequence[str | int]) -> Source:
        """Returns the source at a path, or the closest one around it that has a position."""
        found = source = self
        for part in parts:
            if part not in source.children:
                break
            source = source.children[part]
            if source.position is not None:
                found = source
        return found

    def with_child(self, parts: Sequence[str | int], source: Source) -> Source:
        """Returns a copy with another source at a path.

        Where a text lacks values along the path, they were written with the one at its end.
        """
        if not parts:
            return source
        written = Source() if self.position is None else Source(source.position, source.key)
        child = self.children.get(parts[0], written).with_child(parts[1:], source)
        return replace(self, children={**self.children, parts[0]: child})


def parse(text: str, file: str = "<string>") -> tuple[Data, Source]:
    """Parses a YAML text into plain data, and records where each value was written.

    Args:
        text: The text, at most `MAX_BYTES` characters.
        file: The file's name in positions.

    Examples:
        >>> data, source = parse("{steps: 1e3, name: no}", "a.yaml")
        >>> data, str(source.at(["name"]).position)
        ({'steps': 1000.0, 'name': 'no'}, 'a.yaml:1:20')

    Raises:
        SpecError: If the text is not YAML, holds anything but plain data, or is too large.
    """
    if len(text) > MAX_BYTES:
        message = f"got {len(text)} characters, expected at most {MAX_BYTES}"
        raise SpecError(Problem("", message, Position(file, 1, 1)))
    return _Reader(text, file).read()


def dump(tree: Mapping[str, Any]) -> str:
    """Writes a tree of mappings, lists or tuples, and scalars as YAML.

    Examples:
        >>> print(dump({"use": "unet", "channels": [32, 64]}))
        use: unet
        channels: [32, 64]
        <BLANKLINE>
    """
    return "".join(f"{line}\n" for line in _format_block(tree, ""))


def format_flow(value: Any) -> str:
    """Writes a value as YAML on one line.

    Examples:
        >>> format_flow({"use": "ddim", "steps": 50, "clip": None})
        '{use: ddim, steps: 50, clip: null}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_format_text(key)}: {format_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(format_flow, value)) + "]"
    if isinstance(value, str):
        return _format_text(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def check_scalar(value: object, written: str | None = None) -> None:
    """Checks that a string is valid Unicode, that a float is finite and that an int is below 2^63 in size.

    Args:
        value: The scalar.
        written: The number as it was written, for the message.

    Raises:
        ValueError: If the scalar does not pass.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("got half of a surrogate pair, expected Unicode") from None
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"got {written or value}, expected a finite number")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"got {written or 'a whole number of 2^63 or more'}, expected a whole number below 2^63")


def weigh(value: object) -> int:
    """Returns how much a scalar counts towards `MAX_NODES`."""
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


def _parse_events(text: str, file: str) -> Iterator[Any]:
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    try:
        yield from yaml.parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(file, 1, 1) if mark is None else _make_position(file, mark)
        message = "; ".join(str(part) for part in (error.context, error.problem) if part)
        raise SpecError(Problem("", f"invalid YAML: {message}", position)) from None
    except ReaderError as error:
        message = f"invalid YAML: got the character U+{ord(text[error.position]):04X}, expected printable ones"
        raise SpecError(Problem("", message, Position.locate_end(text[: error.position], file))) from None


def _make_position(file: str, mark: Any) -> Position:
    return Position(file, mark.line + 1, mark.column + 1)


@dataclass(frozen=True)
class _Read:
    """A node's data and source, its weight with aliases expanded, and its levels of nesting."""

    value: Data
    source: Source
    weight: int
    height: int = 0


class _Reader:
    """Turns the parser's events into data, and checks the limits at each event; ruamel's own composer has no limits.

    It recurses into nested nodes, at most `MAX_DEPTH` deep.
    """

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._events = _parse_events(text, file)
        self._anchors: dict[str, _Read | _Path] = {}  # the path of a node that is still being read
        self._weight = 0

    def read(self) -> tuple[Data, Source]:
        read: _Read | None = None
        for event in self._events:
            if isinstance(event, events.DocumentStartEvent):
                if read is not None:
                    self._fail("got a second document, expected one", event)
                read = self._read_node(next(self._events), ())
        return (read.value, read.source) if read else (None, Source(Position(self._file, 1, 1)))

    def _read_node(self, event: Any, path: _Path) -> _Read:
        if isinstance(event, events.AliasEvent):
            named = self._follow(event, path)
            self._count(named.weight, named.height, event, path)
            return replace(named, source=replace(named.source, position=self._locate(event)))
        if isinstance(event, events.ScalarEvent):
            value = self._read_scalar(event, path)
            read = _Read(value, Source(self._locate(event)), weigh(value))
            self._count(read.weight, 0, event, path)
        else:
            read = self._read_collection(event, path)
        if event.anchor:
            self._anchors[event.anchor] = read
        return read

    def _read_collection(self, event: Any, path: _Path) -> _Read:
        before = self._weight
        self._count(1, 1, event, path)
        if event.anchor:
            self._anchors[event.anchor] = path
        mapping = isinstance(event, events.MappingStartEvent)
        data: dict[Any, Data] = {}
        children: dict[str | int, Source] = {}
        height = 0
        while not isinstance(first := next(self._events), events.CollectionEndEvent):
            part = self._read_key(first, path, children) if mapping else len(data)
            read = self._read_node(next(self._events) if mapping else first, (*path, part))
            data[part] = read.value
            children[part] = replace(read.source, key=self._locate(first) if mapping else None)
            height = max(height, read.height)
        source = Source(self._locate(event), children=children)
        return _Read(data if mapping else list(data.values()), source, self._weight - before, height + 1)

    def _read_scalar(self, event: Any, path: _Path) -> _Scalar:
        value = _resolve(event.value) if event.style is None else event.value
        try:
            check_scalar(value, shorten(event.value))
        except ValueError as error:
            self._fail(str(error), event, path)
        return value

    def _read_key(self, event: Any, path: _Path, before: Mapping[str | int, Source]) -> str:
        if not isinstance(event, events.ScalarEvent):
            got = "an alias" if isinstance(event, events.AliasEvent) else "a list or mapping"
            self._fail(f"got {got} as a key, expected a string", event, path)
        if event.style is None and event.value == "<<":
            self._fail("got a merge key <<, which YAML 1.2 does not have; write its keys out", event, path)
        key = self._read_scalar(event, path)
        if not isinstance(key, str):
            self._fail(f"got the key {event.value or 'null'}, expected a string; quote it", event, path)
        if len(key) > MAX_KEY:
            self._fail(f"got a key of {len(key)} characters, expected at most {MAX_KEY}", event, path)
        if key in before:
            message = f"got the key {key!r} twice in one mapping, first at {before[key].key}"
            self._fail(message, event, (*path, key))
        if event.anchor:
            self._fail("got an anchor on a key, expected it on a value", event, (*path, key))
        return key

    def _follow(self, event: Any, path: _Path) -> _Read:
        """Returns the node of an alias's anchor."""
        name = event.anchor
        named = self._anchors.get(name)
        if named is None:
            hint = suggest(name, self._anchors)
            self._fail(f"got the alias *{name}, expected an anchor before it", event, path, hint)
        if isinstance(named, tuple):
            cycle = " → ".join(join(place) or "the whole" for place in (named, path, named))
            self._fail(f"got the alias *{name} inside what it names: a cycle {cycle}", event, path)
        return named

    def _count(self, weight: int, height: int, event: Any, path: _Path) -> None:
        self._weight += weight
        if self._weight > MAX_NODES:
            self._fail(f"got more than {MAX_NODES} nodes with aliases expanded, expected fewer", event, path)
        if len(path) + height > MAX_DEPTH:
            self._fail(f"got more than {MAX_DEPTH} levels of nesting, expected fewer", event, path)

    def _locate(self, event: Any) -> Position:
        return _make_position(self._file, event.start_mark)

    def _fail(self, message: str, event: Any, path: _Path = (), hint: str | None = None) -> NoReturn:
        raise SpecError(Problem(join(path), message, self._locate(event), hint))


def _resolve(text: str) -> _Scalar:
    """Resolves a plain scalar in YAML 1.2's core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        if len(text) > MAX_KEY:  # too large in any case; `int` takes quadratic time, or refuses
            return 2**63
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if _FLOAT.fullmatch(text):
        return float(text)
    return math.inf if _NOT_FINITE.fullmatch(text) else text


def _format_block(value: Any, pad: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            head = f"{pad}{_format_text(key)}:"
            inline = _format_inline(item, _WIDTH - len(head) - 1)
            if inline is not None:
                yield f"{head} {inline}"
            else:
                yield head
                yield from _format_block(item, f"{pad}  ")
        return
    for item in value:
        inline = _format_inline(item, _WIDTH - len(pad) - 2)
        lines = iter([f"{pad}  {inline}"] if inline is not None else _format_block(item, f"{pad}  "))
        yield f"{pad}- {next(lines)[len(pad) + 2 :]}"
        yield from lines


def _format_inline(value: Any, room: int) -> str | None:
    """Formats a value on one line, or returns None if it should be written as a block."""
    if not value or not isinstance(value, (Mapping, tuple, list)):
        return format_flow(value)
    if any(_has_mapping(item) for item in (value.values() if isinstance(value, Mapping) else value)):
        return None
    text = format_flow(value)
    return text if len(text) <= room else None


def _has_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, (tuple, list)) and any(map(_has_mapping, value)))


def _format_text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'
