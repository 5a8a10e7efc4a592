"""Unpickles without importing or running anything: each name and each call in a pickle becomes an inert record.

Python's own `pickle.Unpickler` executes the opcodes, and everything that it can call or set a state on is a `Record`,
which stores its arguments. First, a pass over the opcodes refuses what `pickle` leaves unbounded: memo indices, frames,
long integers, the number of opcodes, keys that take long to hash (tuples that share tuples), and many keys that may
share one hash, which makes a dict take quadratic time. Afterwards, `rebuilding.rebuild` decides what the records stand
for.
"""

from __future__ import annotations

import pickle
import pickletools
from typing import Any, BinaryIO, ClassVar

__all__ = ["MOST_ALIKE", "MOST_IN_A_KEY", "PERSISTENT", "SMALL", "Record", "unpickle"]

PERSISTENT = "persistent id"
"""The path of the records of persistent ids; names in a pickle cannot equal it, since they contain a dot."""

MOST_IN_A_KEY = 64
"""Most values in a tuple or frozenset that is hashed, including those of its elements."""

MOST_ALIKE = 10_000
"""Most keys in a pickle whose hashes may be chosen to be equal: large integers, floats, and tuples that hold numbers.

The hashes of texts and bytes depend on the process, and those of small integers are the integers themselves.
"""

SMALL = 2**60
"""Integers below this have hashes of their own."""

_NUMBER, _ALIKE = 256, 512  # flags beside the size of a value on the stack
_INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
_FLOATS = {"FLOAT", "BINFLOAT"}
_MOST_OPCODES = 10_000_000
_MOST_NAMES = 10_000
_LONGEST_NAME = 4096
_MOST_BITS = 5120

_REFUSED = ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER")  # a registry's names; bytes outside the pickle
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes if opcode.name not in _REFUSED}
_LINES = {"STRING": 1, "PERSID": 1, "GLOBAL": 2, "INST": 2}  # pickletools reads these as ASCII, pickle does not
_HASHED = {
    "SETITEM": slice(1, None, 2),
    "SETITEMS": slice(1, None, 2),
    "DICT": slice(0, None, 2),
    "ADDITEMS": slice(1, None),
    "FROZENSET": slice(0, None),
}
"""The values, among those that an opcode takes from the stack, that are hashed."""
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
_IN_PLACE = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_OLD_MODULES = {"copy_reg": "copyreg", "__builtin__": "builtins"}


class Record:
    """A call in a pickle, and later operations on its result; each name in the pickle is a subclass.

    Attributes are as in `placeholder.Placeholder`; `path` is the `module.name` that is called.
    """

    __slots__ = ("args", "elements", "entries", "kwargs", "state")
    path: ClassVar[str]
    names: ClassVar[_Names]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: Any
    elements: list[Any]
    entries: dict[Any, Any]

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Any:
        """Records a call; one that only looks up or instantiates a recorded class is replaced by its result."""
        match cls.path, args:
            case "builtins.getattr", (type() as owner, str() as name):
                return cls.names[f"{owner.path}.{name}"]  # type: ignore[attr-defined]
            case "copyreg._reconstructor", (type() as made, _, state):
                return made() if state is None else made(state)
            case "copyreg.__newobj__", (type() as made, *rest):
                return made(*rest)
            case "copyreg.__newobj_ex__", (type() as made, tuple() as rest, dict() as keywords):
                return made(*rest, **keywords)
        record = super().__new__(cls)
        record.args, record.kwargs, record.state = args, kwargs, None
        record.elements, record.entries = [], {}
        return record

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Records the call of a call's result."""
        return self.names["the result of a call"](self, *args, **kwargs)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def append(self, element: Any) -> None:
        """Records an element."""
        self.elements.append(element)

    def extend(self, elements: Any) -> None:
        """Records elements."""
        self.elements.extend(elements)


class _Names(dict[str, type[Record]]):
    """The names in a pickle: a class for each path."""

    def __missing__(self, path: str) -> type[Record]:
        if len(self) >= _MOST_NAMES or len(path) > _LONGEST_NAME:
            raise ValueError(f"expected at most {_MOST_NAMES} names of {_LONGEST_NAME} characters, got {path[:40]!r} …")
        self[path] = type("Record", (Record,), {"__slots__": (), "path": path, "names": self})
        return self[path]


class _Unpickler(pickle.Unpickler):
    """Reads Python 2's strings as UTF-8, so that `encode("utf-8", "surrogateescape")` restores their bytes."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.names = _Names()

    def find_class(self, module: str, name: str) -> type[Record]:
        return self.names[f"{_OLD_MODULES.get(module, module)}.{name}"]

    def persistent_load(self, identity: Any) -> Any:
        match identity:
            case ("module", type() as made, *_):  # a class with its source, which is not read
                return made
        return self.names[PERSISTENT](identity)


def unpickle(file: BinaryIO, size: int) -> Any:
    """Reads one pickle and leaves the file at its end.

    Args:
        file: Bytes in memory or mapped, so that `read` allocates no more than there are.
        size: Its number of bytes.

    Returns:
        Plain values and built-in containers, with a `Record` for each call and a subclass of it for each name.

    Raises:
        ValueError: If the pickle is damaged, or exceeds a bound.
    """
    start = file.tell()
    _check_opcodes(file, size)
    end = file.tell()
    file.seek(start)
    try:
        value = _Unpickler(file).load()
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"damaged pickle in bytes {start} to {end}: {error}") from error
    file.seek(end)
    return value


def _check_opcodes(file: BinaryIO, size: int) -> None:
    """Reads a pickle's opcodes to its end and tracks the stack and the memo, without making any object.

    These hold sizes: the number of values in a tuple or frozenset, 1 for anything else. Flags tell numbers, and values
    whose hash may be chosen.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    alike = 0
    for count in range(_MOST_OPCODES):
        place = file.tell()
        try:
            opcode, argument = _read_opcode(file, size)
            taken = _take(stack, marks, opcode)
            if opcode.name in _HASHED:
                keys = taken[_HASHED[opcode.name]]
                if max((key & 255 for key in keys), default=0) > MOST_IN_A_KEY:
                    raise ValueError(
                        f"expected a key of at most {MOST_IN_A_KEY} values, got a larger tuple or frozenset"
                    )
                alike += sum(key >= _ALIKE for key in keys)
                if alike > MOST_ALIKE:
                    raise ValueError(f"expected at most {MOST_ALIKE} large numbers or tuples of numbers as keys")
            if opcode.name in _TUPLES:
                num = min(1 + sum(value & 255 for value in taken), MOST_IN_A_KEY + 1)
                stack.append(num | (_ALIKE if any(value >= _NUMBER for value in taken) else 0))
            elif opcode.name in _PUTS:
                index = len(memo) if argument is None else argument
                if not 0 <= index <= count:  # pickle allocates a table up to the index
                    raise ValueError(f"expected to keep an object under 0 to {count}, got {index}")
                memo[index] = taken[0]
                stack += taken
            elif opcode.name in _GETS:
                if argument not in memo:
                    raise ValueError(f"expected an object kept under {argument}, got none")
                stack.append(memo[argument])
            elif opcode.name in _IN_PLACE:
                stack.append(taken[0])
            elif opcode.name == "DUP":
                stack += taken * 2
            elif opcode.name == "MARK":
                marks.append(len(stack))
            elif opcode.name == "STOP":
                return
            else:
                stack += [_classify(opcode.name, argument)] * len(opcode.stack_after)
        except ValueError as error:
            raise ValueError(f"damaged pickle at byte {place}: {error}") from error
    raise ValueError(f"damaged pickle: expected at most {_MOST_OPCODES} opcodes, got more")


def _classify(name: str, argument: Any) -> int:
    """The size and flags of a value that is no tuple."""
    if name in _INTEGERS:
        return 1 | _NUMBER | (_ALIKE if abs(argument) >= SMALL else 0)
    return 1 | _NUMBER | _ALIKE if name in _FLOATS else 1


def _read_opcode(file: BinaryIO, size: int) -> tuple[pickletools.OpcodeInfo, Any]:
    """Reads the next opcode and its argument."""
    code = file.read(1)
    if not code:
        raise ValueError("truncated: expected an opcode, got the end of the file")
    if code not in _OPCODES:
        raise ValueError(f"expected an opcode of a pickle that stands alone, got {code!r}")
    opcode = _OPCODES[code]
    if opcode.arg is None:
        return opcode, None
    if opcode.name in _LINES:
        if not all(file.readline().endswith(b"\n") for _ in range(_LINES[opcode.name])):
            raise ValueError("truncated: expected a line, got the end of the file")
        return opcode, None
    argument: Any = opcode.arg.reader(file)
    if isinstance(argument, int) and argument.bit_length() > _MOST_BITS:
        raise ValueError(f"expected a whole number of at most {_MOST_BITS} bits, got {argument.bit_length()}")
    if opcode.name == "PROTO" and argument > pickle.HIGHEST_PROTOCOL:
        raise ValueError(f"expected protocol 0 to {pickle.HIGHEST_PROTOCOL}, got {argument}")
    if opcode.name == "FRAME" and argument > size - file.tell():
        raise ValueError(f"truncated: expected a frame of {argument} bytes, got {size - file.tell()}")
    return opcode, argument


def _take(stack: list[int], marks: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Takes an opcode's values from the stack; those stored in the memo are put back by the caller."""
    before = [pickletools.anyobject] if opcode.name in _PUTS else opcode.stack_before
    if not before:
        return []
    if opcode.name == "POP" and marks[-1:] == [len(stack)]:
        marks.pop()
        return []
    if pickletools.markobject in before:
        if not marks:
            raise ValueError("expected a mark on the stack, got none")
        first = marks.pop() - before.index(pickletools.markobject)
    else:
        first = len(stack) - len(before)
    if first < (marks[-1] if marks else 0):
        raise ValueError("expected a value on the stack, got none")
    taken = stack[first:]
    del stack[first:]
    return taken
