"""Unpickles without importing or running anything: each name and each call in a pickle becomes an inert record.

`pickle`'s unpickler in Python executes the opcodes, and everything that it can call or set a state on is a `Record`,
which stores its arguments. What `pickle` leaves unbounded is refused before it happens: reads beyond the file, long
integers, the number of opcodes, keys that take long to hash (tuples that share tuples), and many keys that may share
one hash, which makes a dict take quadratic time. Afterwards, `rebuilding.rebuild` decides what the records stand for.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from itertools import islice
from typing import Any, BinaryIO, ClassVar

__all__ = ["MOST_ALIKE", "MOST_IN_A_KEY", "PERSISTENT", "Record", "may_be_alike", "unpickle"]

PERSISTENT = "persistent id"
"""The path of the records of persistent ids; names in a pickle cannot equal it, since they contain a dot."""

MOST_IN_A_KEY = 64
"""Most values in a tuple or frozenset that is hashed, including those of its elements."""

MOST_ALIKE = 10_000
"""Most keys in a pickle whose hashes may be chosen to be equal; see `may_be_alike`."""

_SMALL = 2**60  # integers below this have hashes of their own
_MOST_OPCODES = 10_000_000
_MOST_NAMES = 10_000
_LONGEST_NAME = 4096
_MOST_BITS = 5120

_REFUSED = (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)
"""Opcodes that refer to a registry's names, or to bytes outside the pickle."""
_HASHED = {
    pickle.SETITEM: slice(-2, -1),
    pickle.SETITEMS: slice(0, None, 2),
    pickle.DICT: slice(0, None, 2),
    pickle.ADDITEMS: slice(None),
    pickle.FROZENSET: slice(None),
}
"""The values, among those on the stack since the last mark, that an opcode hashes."""
_DAMAGE = (pickle.UnpicklingError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_WHOLE = (pickle.INT, pickle.LONG, pickle.LONG4)
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


class _Memo(dict[int, Any]):
    """The objects that a pickle refers to again."""

    def __missing__(self, index: int) -> Any:
        raise ValueError(f"expected an object kept under {index}, got none")


class _Unpickler(pickle._Unpickler):
    """Reads Python 2's strings as UTF-8, so that `encode("utf-8", "surrogateescape")` restores their bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self.file, self.size = file, size
        self.read, self.readline = self._read, self._read_line
        self.memo, self.names, self.alike = _Memo(), _Names(), MOST_ALIKE
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.append = self.stack.append

    def load(self) -> Any:
        for _ in range(_MOST_OPCODES):
            place = self.file.tell()
            try:
                code = self.file.read(1)
                if code == pickle.STOP:
                    return self.stack.pop()
                if not code:
                    raise ValueError("truncated: expected an opcode, got the end of the file")
                if code[0] not in self.dispatch:
                    raise ValueError(f"expected an opcode of a pickle that stands alone, got {code!r}")
                if code in _HASHED:
                    self._check_keys(self.stack[_HASHED[code]])
                self.dispatch[code[0]](self)
                if code in _WHOLE and self.stack[-1].bit_length() > _MOST_BITS:
                    raise ValueError(
                        f"expected a whole number of at most {_MOST_BITS} bits, got {self.stack[-1].bit_length()}"
                    )
            except _DAMAGE as error:
                said = "expected a value or a mark on the stack, got none" if type(error) is IndexError else error
                raise ValueError(f"damaged pickle at byte {place}: {said}") from error
        raise ValueError(f"damaged pickle: expected at most {_MOST_OPCODES} opcodes, got more")

    def find_class(self, module: str, name: str) -> type[Record]:
        return self.names[f"{_OLD_MODULES.get(module, module)}.{name}"]

    def persistent_load(self, identity: Any) -> Any:
        match identity:
            case ("module", type() as made, *_):  # a class with its source, which is not read
                return made
        return self.names[PERSISTENT](identity)

    def _read(self, num: int) -> bytes:
        left = self.size - self.file.tell()
        if num > left:
            raise ValueError(f"truncated: expected {num} bytes, got {left}")
        return self.file.read(num)

    def _read_line(self) -> bytes:
        line = self.file.readline()
        if not line.endswith(b"\n"):
            raise ValueError("truncated: expected a line, got the end of the file")
        return line

    def _read_size(self) -> int:
        return struct.unpack("<Q", self.read(8))[0]

    def _check_keys(self, keys: list[Any]) -> None:
        if any(_count_values(key) > MOST_IN_A_KEY for key in keys):
            raise ValueError(f"expected a key of at most {MOST_IN_A_KEY} values, got a larger tuple or frozenset")
        self.alike -= sum(map(may_be_alike, keys))
        if self.alike < 0:
            raise ValueError(f"expected at most {MOST_ALIKE} large numbers or tuples of numbers as keys")

    def _check_protocol(self) -> None:
        protocol = self.read(1)[0]
        if protocol > pickle.HIGHEST_PROTOCOL:
            raise ValueError(f"expected protocol 0 to {pickle.HIGHEST_PROTOCOL}, got {protocol}")

    def _check_frame(self) -> None:
        """Checks that the file has the bytes of a frame, which are then read as if there were none."""
        size, left = self._read_size(), self.size - self.file.tell()
        if size > left:
            raise ValueError(f"truncated: expected a frame of {size} bytes, got {left}")

    def _load_bytearray(self) -> None:
        self.append(bytearray(self.read(self._read_size())))

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if bytes((code,)) not in _REFUSED
    } | {pickle.PROTO[0]: _check_protocol, pickle.FRAME[0]: _check_frame, pickle.BYTEARRAY8[0]: _load_bytearray}


def unpickle(file: BinaryIO, size: int) -> Any:
    """Reads one pickle and leaves the file at its end.

    Args:
        file: Bytes in memory or mapped.
        size: Its number of bytes.

    Returns:
        Plain values and built-in containers, with a `Record` for each call and a subclass of it for each name.

    Raises:
        ValueError: If the pickle is damaged, or exceeds a bound.
    """
    return _Unpickler(file, size).load()


def may_be_alike(key: Any) -> bool:
    """Whether the hash of a key may be chosen to equal that of another: large integers, floats, tuples of numbers.

    The hashes of texts and bytes depend on the process, and those of small integers are the integers themselves.
    """
    if isinstance(key, tuple | frozenset):
        return any(isinstance(item, int) or may_be_alike(item) for item in key)
    return isinstance(key, float | complex) or (isinstance(key, int) and abs(key) >= _SMALL)


def _count_values(key: Any) -> int:
    """Counts the values in a key, and stops soon after `MOST_IN_A_KEY`."""
    count, left = 0, [key]
    while left and count <= MOST_IN_A_KEY:
        one = left.pop()
        count += 1
        left += islice(one, MOST_IN_A_KEY) if isinstance(one, tuple | frozenset) else ()
    return count
