"""A reader of pickles that imports and calls nothing: a stack machine over the opcodes of protocols 0 to 5.

Numbers, strings and containers are made as they stand. A name becomes one of the few builders that it is given (of
tensors, of arrays), which are functions of this package, or a `Placeholder`. A call of anything else is a placeholder
that keeps its arguments. Sharing is kept: what the pickle refers to twice is one object.

Bounds: each opcode makes at most one object, whose bytes are in the file, and there is a limit on opcodes, on what
builders are given (they copy), on the depth of nested containers, and on the size of the result with what is shared
counted as often as it stands there, so that no walk through it is long. Keys are plain values or placeholders, so no
hash is long either.

References:
    PEP 307, https://peps.python.org/pep-0307/; PEP 3154, https://peps.python.org/pep-3154/;
    PEP 574, https://peps.python.org/pep-0574/
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from modkit_checkpoints.pickled_extent import check_extent
from modkit_checkpoints.pickled_stream import Stream
from modkit_checkpoints.placeholder import Placeholder

__all__ = ["Builder", "Pending", "unpickle"]

_MOST_OPCODES = 10_000_000
_MOST_COPIES = 8  # of the bytes that there are, as a multiple; honest files take each once or twice
_LEAST_COPIED = 2**20
_LINE = 4096
_DIGITS = 640


@dataclass(frozen=True)
class Builder:
    """What stands for a name that this package rebuilds; `build` takes the arguments of a call."""

    name: str
    build: Callable[..., Any]


class Pending:
    """What a pickle makes in two steps: a call, then a state; `value` is there after the second."""

    value: Any

    def set_state(self, state: Any) -> None:
        """Takes the state."""
        raise NotImplementedError


def unpickle(stream: Stream, builders: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None) -> Any:
    """Reads one pickle; the stream stands after it then.

    Args:
        stream: The bytes.
        builders: What stands for a name `module.name`: a `Builder`, or a value.
        persistent: Gives what a persistent id stands for.

    Raises:
        ValueError: If it is damaged, too large, or in need of what only its authors' code could do.
    """
    return _Machine(stream, builders, persistent).run()


class _Machine:
    def __init__(self, stream: Stream, builders: Mapping[str, Any], persistent: Callable[[Any], Any] | None) -> None:
        self.stream, self.builders, self.persistent = stream, builders, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.copies_left = max(_MOST_COPIES * stream.left, _LEAST_COPIED)

    def run(self) -> Any:
        for _ in range(_MOST_OPCODES):
            code = self.stream.take(1)
            if code == b".":
                value = self.pop()
                check_extent(value)
                return value
            operation = _OPERATIONS.get(code)
            if operation is None:
                self.fail(f"no opcode of pickle: {code!r}")
            operation(self)
        self.fail(f"expected at most {_MOST_OPCODES} opcodes, got more")

    def fail(self, message: str) -> NoReturn:
        raise ValueError(f"damaged pickle at byte {self.stream.place}: {message}")

    # the stack

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.fail("expected a value on the stack, got none")
        value = self.stack.pop()
        if isinstance(value, Pending):
            if not hasattr(value, "value"):
                self.fail("expected a state for an array before it is used")
            return value.value
        return value

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.fail("expected a value on the stack, got none")
        return self.stack[-1]

    def marked(self) -> list[Any]:
        if not self.marks:
            self.fail("expected a mark on the stack, got none")
        items = [self.pop() for _ in range(len(self.stack) - self.marks[-1])]
        self.marks.pop()
        return items[::-1]

    def popped(self, num: int) -> tuple[Any, ...]:
        return tuple(self.pop() for _ in range(num))[::-1]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def drop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def drop_marked(self) -> None:
        self.marked()

    def check_protocol(self, protocol: int) -> None:
        if protocol > 5:
            self.fail(f"expected protocol 0 to 5, got {protocol}")

    def check_frame(self, length: int) -> None:
        if length > self.stream.left:
            self.fail(f"truncated: expected a frame of {length} bytes, got {self.stream.left}")

    # numbers and text

    def text(self, data: bytes, encoding: str = "utf-8", errors: str = "surrogatepass") -> str:
        try:
            return data.decode(encoding, errors)
        except UnicodeDecodeError as error:
            self.fail(f"expected text: {error}")

    def decimal(self, data: bytes) -> int:
        digits = data.strip()
        if len(digits) > _DIGITS or not digits.lstrip(b"+-").isdigit():
            self.fail(f"expected a whole number of at most {_DIGITS} digits, got {digits[:20]!r}")
        return int(digits)

    def push_int(self) -> None:
        line = self.stream.line(_LINE)
        self.push(line == b"01" if line in (b"00", b"01") else self.decimal(line))

    def push_float(self) -> None:
        line = self.stream.line(_LINE)
        try:
            self.push(float(line))
        except ValueError:
            self.fail(f"expected a number, got {line[:20]!r}")

    def push_long(self, form: str) -> None:
        num = self.stream.number(form)
        if not 0 <= num <= _DIGITS:
            self.fail(f"expected a whole number of at most {_DIGITS} bytes, got one of {num}")
        self.push(int.from_bytes(self.stream.take(num), "little", signed=True))

    def push_quoted(self) -> None:
        line = self.stream.line(self.stream.left).strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            self.fail("expected a quoted string")
        try:
            unescaped, _ = codecs.escape_decode(line[1:-1])  # as pickletools does
        except ValueError as error:
            self.fail(f"expected a quoted string: {error}")
        self.push_text_or_bytes(unescaped)

    def push_text_or_bytes(self, data: bytes) -> None:
        """Python 2's str: text where it is UTF-8, so that encoding it gives the same bytes again."""
        try:
            self.push(data.decode())
        except UnicodeDecodeError:
            self.push(data)

    def counted(self, form: str) -> bytes:
        """As many bytes as the number before them says."""
        num = self.stream.number(form)
        if num < 0:
            self.fail(f"expected a length, got {num}")
        return self.stream.take(num)

    # containers

    def push_dict(self) -> None:
        items = self.marked()
        self.push({})
        self.set_items(items)

    def append(self, items: Sequence[Any]) -> None:
        target = self.top()
        if isinstance(target, Placeholder):
            target.elements.extend(items)
        elif isinstance(target, list):
            target.extend(items)
        else:
            self.fail(f"expected a list to append to, got {type(target).__name__}")

    def add(self) -> None:
        items = self.keys(self.marked())
        target = self.top()
        if not isinstance(target, set):
            self.fail(f"expected a set to add to, got {type(target).__name__}")
        target.update(items)

    def set_items(self, items: Sequence[Any]) -> None:
        target = self.top()
        if len(items) % 2 or not isinstance(target, dict | Placeholder):
            self.fail(f"expected keys with values for a dict, got {len(items)} items for {type(target).__name__}")
        entries = target.entries if isinstance(target, Placeholder) else target
        entries.update(zip(self.keys(items[::2]), items[1::2]))

    def keys(self, items: Sequence[Any]) -> list[Hashable]:
        for item in items:
            inner = item if isinstance(item, tuple) else (item,)
            if not all(isinstance(key, _KEYS) for key in inner):
                self.fail(f"expected a plain value as a key, got {type(item).__name__}")
        return list(items)

    # the memo

    def remember(self, index: int) -> None:
        self.top()
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            self.fail(f"expected an object kept under {index}, got none")
        self.push(self.memo[index])

    # names and calls

    def find(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            self.fail(f"expected names, got {type(module).__name__} and {type(name).__name__}")
        path = f"{_OLD_MODULES.get(module, module)}.{name}"
        return self.builders[path] if path in self.builders else Placeholder(path)

    def named(self) -> Any:
        module, name = self.text(self.stream.line(_LINE)), self.text(self.stream.line(_LINE))
        return self.find(module, name)

    def call(self, target: Any, args: Any, kwargs: Any = None) -> Any:
        if not isinstance(args, tuple) or not isinstance(kwargs or {}, dict):
            self.fail(f"expected arguments as a tuple, got {type(args).__name__}")
        if isinstance(target, Builder) and not kwargs:
            self.spend(args)
            try:
                return target.build(*args)
            except (TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
                self.fail(f"{target.name} cannot be rebuilt: {error}")
        if not isinstance(target, Placeholder):
            self.fail(f"expected a name to call, got {type(target).__name__}")
        if target.name in _OBJECTS and not target.called:
            try:
                made = _OBJECTS[target.name](args)
            except (ValueError, IndexError):
                self.fail(f"expected other arguments of {target.name}, got {len(args)}")
            return self.call(*made)
        return Placeholder(target.name, True, args, kwargs or {})

    def spend(self, values: Any) -> None:
        """Counts what a builder may copy: the sizes of its arguments."""
        for value in values if isinstance(values, tuple | list) else ():
            self.copies_left -= len(value) if isinstance(value, _SIZED) else 0
        if self.copies_left < 0:
            self.fail("expected each value to be used once or twice, got copy upon copy")

    def push_object(self, items: Sequence[Any]) -> None:
        if not items:
            self.fail("expected a class, got none")
        self.push(self.call(items[0], tuple(items[1:])))

    def push_instance(self, target: Any) -> None:
        self.push(self.call(target, tuple(self.marked())))

    def build(self) -> None:
        state = self.pop()
        self.top()
        target = self.stack[-1]
        if isinstance(target, Placeholder):
            target.state = state
        elif isinstance(target, Pending):
            self.spend(state)
            try:
                target.set_state(state)
            except (TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
                self.fail(f"an array cannot be rebuilt: {error}")
        elif not isinstance(target, dict | torch.Tensor):  # whose attributes are of no use here
            self.fail(f"expected an object to set a state on, got {type(target).__name__}")

    def refer(self, identity: Any) -> None:
        if self.persistent is None:
            self.fail("got a persistent id outside a file of torch")
        self.push(self.persistent(identity))


def _remade(args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """`copyreg._reconstructor(cls, base, state)`: an object, or a container that starts as its state says."""
    target, _, state = args
    return target, () if state is None else (state,)


_OBJECTS: dict[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]] = {
    "copyreg._reconstructor": _remade,
    "copyreg.__newobj__": lambda args: (args[0], args[1:]),
    "copyreg.__newobj_ex__": lambda args: (args[0], args[1], args[2]),
}
"""How objects are made by calls where the protocol has no opcode for it: what is called, and with what."""

_OLD_MODULES = {"copy_reg": "copyreg", "__builtin__": "builtins"}

_OPERATIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": lambda m: m.check_protocol(m.stream.number("<B")),
    b"\x95": lambda m: m.check_frame(m.stream.number("<Q")),
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": lambda m: m.drop(),
    b"1": lambda m: m.drop_marked(),
    b"2": lambda m: m.push(m.top()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": lambda m: m.push_int(),
    b"J": lambda m: m.push(m.stream.number("<i")),
    b"K": lambda m: m.push(m.stream.number("<B")),
    b"M": lambda m: m.push(m.stream.number("<H")),
    b"L": lambda m: m.push(m.decimal(m.stream.line(_LINE).removesuffix(b"L"))),
    b"\x8a": lambda m: m.push_long("<B"),
    b"\x8b": lambda m: m.push_long("<i"),
    b"F": lambda m: m.push_float(),
    b"G": lambda m: m.push(m.stream.number(">d")),
    b"S": lambda m: m.push_quoted(),
    b"T": lambda m: m.push_text_or_bytes(m.counted("<i")),
    b"U": lambda m: m.push_text_or_bytes(m.counted("<B")),
    b"B": lambda m: m.push(m.counted("<I")),
    b"C": lambda m: m.push(m.counted("<B")),
    b"\x8e": lambda m: m.push(m.counted("<Q")),
    b"\x96": lambda m: m.push(bytearray(m.counted("<Q"))),
    b"V": lambda m: m.push(m.text(m.stream.line(m.stream.left), "raw_unicode_escape", "strict")),
    b"X": lambda m: m.push(m.text(m.counted("<I"))),
    b"\x8c": lambda m: m.push(m.text(m.counted("<B"))),
    b"\x8d": lambda m: m.push(m.text(m.counted("<Q"))),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.marked())),
    b"\x85": lambda m: m.push(m.popped(1)),
    b"\x86": lambda m: m.push(m.popped(2)),
    b"\x87": lambda m: m.push(m.popped(3)),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.marked()),
    b"a": lambda m: m.append(m.popped(1)),
    b"e": lambda m: m.append(m.marked()),
    b"}": lambda m: m.push({}),
    b"d": lambda m: m.push_dict(),
    b"s": lambda m: m.set_items(m.popped(2)),
    b"u": lambda m: m.set_items(m.marked()),
    b"\x8f": lambda m: m.push(set()),
    b"\x90": lambda m: m.add(),
    b"\x91": lambda m: m.push(frozenset(m.keys(m.marked()))),
    b"p": lambda m: m.remember(m.decimal(m.stream.line(_LINE))),
    b"q": lambda m: m.remember(m.stream.number("<B")),
    b"r": lambda m: m.remember(m.stream.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"g": lambda m: m.recall(m.decimal(m.stream.line(_LINE))),
    b"h": lambda m: m.recall(m.stream.number("<B")),
    b"j": lambda m: m.recall(m.stream.number("<I")),
    b"c": lambda m: m.push(m.named()),
    b"\x93": lambda m: m.push(m.find(*m.popped(2))),
    b"\x82": lambda m: m.push(Placeholder(f"copyreg.extension.{m.stream.number('<B')}")),
    b"\x83": lambda m: m.push(Placeholder(f"copyreg.extension.{m.stream.number('<H')}")),
    b"\x84": lambda m: m.push(Placeholder(f"copyreg.extension.{m.stream.number('<i')}")),
    b"R": lambda m: m.push(m.call(*m.popped(2))),
    b"\x81": lambda m: m.push(m.call(*m.popped(2))),
    b"\x92": lambda m: m.push(m.call(*m.popped(3))),
    b"o": lambda m: m.push_object(m.marked()),
    b"i": lambda m: m.push_instance(m.named()),
    b"b": lambda m: m.build(),
    b"P": lambda m: m.refer(m.text(m.stream.line(_LINE))),
    b"Q": lambda m: m.refer(m.pop()),
}
"""The opcodes of protocols 0 to 5, but for those of buffers kept outside the pickle."""

_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_KEYS = (str, bytes, int, float, complex, type(None), Placeholder, Builder, torch.dtype, torch.Tensor)
