"""Stateless random numbers: a draw is a function of (seed, names, row), independent of all earlier draws.

An `Rng` consists of a key (a seed followed by names) and the global number of its first row. Drawing does not change
the key. Batches can therefore be split freely into microbatches and over processes, a resumed run draws exactly what an
uninterrupted run would have drawn, and no generator state is saved. Row r of a draw is read at its own counter of a
counter-based generator (Philox; Random123, Salmon et al., 2011) whose key is the hash of the Rng's key:

    words(key, r) = Philox(hash(key))[r * w : (r + 1) * w]        w words per row, padded to whole vector lanes

The Box-Muller transform, which uses a fixed number of words, turns them into normal draws. `modkit.ops.noise` draws
them, on a card where it can: the words are the same on every device.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from modkit.ops.noise import Law, draw_noise

__all__ = ["Rng"]

Key = tuple[int | str, ...]
_PLAIN = frozenset((int, str))


class Rng:
    """A source of random draws, each a function of (seed, names, row).

    Each name can be drawn only once for the same rows; further draws need another name or a child (`rng.at(…)`).

    Args:
        *key: The seed, then names and whole numbers.
        first: Global number of the first row drawn here.
        source: A source to be the same as, with one record of what was drawn, in place of `key` and `first`: for
            subclasses that draw from another source in their own way. They override `_derive`, which makes children.

    Examples:
        >>> rng, x = Rng(0).at("sampler"), torch.empty(4, 2)
        >>> eps = rng.normal("eps", x)
        >>> torch.equal(eps[2:], Rng(0).at("sampler").rows(2).normal("eps", x[2:]))
        True

    Raises:
        ValueError: From a draw, if its name was drawn before for the same rows.
    """

    def __init__(self, *key: int | str, first: int = 0, source: Rng | None = None) -> None:
        self._key: Key = source._key if source else _check_names(key)
        self._first: int = source._first if source else first
        self._drawn: set[tuple[Key, int]] = source._drawn if source else set()

    @property
    def first(self) -> int:
        """The global number of the first row drawn here."""
        return self._first

    def __repr__(self) -> str:
        return f"Rng({', '.join(map(repr, self._key))}, first={self._first})"

    def at(self, *names: int | str) -> Rng:
        """Returns a child with independent draws: use one for each part, nested Model, player or step."""
        return self._derive((*self._key, *_check_names(names)), self._first)

    def rows(self, first: int) -> Rng:
        """Returns the same source with its first row moved on by `first`."""
        return self._derive(self._key, self._first + first)

    def repeat(self, num: int) -> Rng:
        """Returns the source for a batch with each row repeated `num` times: row i becomes rows num * i and following.

        Examples:
            >>> x = torch.empty(6)
            >>> torch.equal(Rng(0).rows(1).repeat(3).normal("z", x[3:]), Rng(0).repeat(3).normal("z", x)[3:])
            True
        """
        return self._derive(self._key, self._first * num)

    def replay(self) -> Rng:
        """Returns the same source with a record of its own, for draws that are to be made again.

        Examples:
            >>> rng, x = Rng(0), torch.empty(4)
            >>> torch.equal(rng.replay().normal("eps", x), rng.normal("eps", x))
            True
        """
        again = Rng(first=self._first)
        again._key = self._key
        return again

    def normal(self, name: str, like: Tensor) -> Tensor:
        """Draws from a standard normal, with the shape, dtype and device of `like`, `b ...`.

        Row i of the result is global row `first + i`. Every dtype receives the same noise, rounded, so that a float64
        model can be compared with a float32 model.
        """
        return self._draw("normal", name, like)

    def uniform(self, name: str, like: Tensor) -> Tensor:
        """Draws uniformly from [0, 1), with the shape, dtype and device of `like`, `b ...`."""
        return self._draw("uniform", name, like)

    def integers(self, name: str, like: Tensor, low: int, high: int) -> Tensor:
        """Draws int64 integers uniformly from [low, high), with the shape and device of `like`, `b ...`.

        Probabilities are equal up to a relative error of (high - low) / 2^32.

        Raises:
            ValueError: If the interval is empty or wider than 2^31.
        """
        if not 0 < high - low <= 2**31:
            raise ValueError(f"Rng.integers expects low < high within 2^31 of each other, got [{low}, {high})")

        like = torch.empty(like.shape, dtype=torch.int64, device=like.device)
        return self._draw("integers", name, like, low, high)

    def make_generators(self, num: int) -> list[torch.Generator]:
        """Returns a seeded CPU generator for each of `num` rows, for libraries that require generators.

        torch uses only 32 bits of a seed on the CPU, so prefer the draws above if many rows must differ.
        """
        return [torch.Generator().manual_seed(self._hash("generator", self._first + i)) for i in range(num)]

    @contextmanager
    def seed_torch(self) -> Iterator[None]:
        """Seeds torch's global generators, which dropout and initialisers use, by this key and first row.

        They are the CPU's and those of every GPU, if any is in use. Their previous states return at the end of the
        `with` block.
        """
        generators = _list_generators()
        states = [generator.get_state() for generator in generators]
        try:
            for generator in generators:  # torch.manual_seed formats a stack trace for each other kind of device
                generator.manual_seed(self._hash("scope", self._first))
            yield
        finally:
            for generator, state in zip(generators, states):
                generator.set_state(state)

    def draw_seed(self) -> int:
        """Returns a 63-bit seed, a function of this key and first row, for libraries that take one."""
        return self._hash("integer", self._first)

    def _derive(self, key: Key, first: int) -> Rng:
        child = Rng(first=first)
        child._key = key
        child._drawn = self._drawn  # one record for the whole tree, so that two equal children cannot draw one noise
        return child

    def _draw(self, law: Law, name: int | str, like: Tensor, low: int = 0, high: int = 1) -> Tensor:
        (name,) = _check_names((name,))
        key = (*self._key, name)
        if (key, self._first) in self._drawn:
            raise ValueError(
                f"{self!r} expects each name to be drawn once, got {name!r} a second time: draw from a child, rng.at(…)"
            )
        self._drawn.add((key, self._first))
        if like.device.type == "meta":
            return torch.empty_like(like)
        return draw_noise(law, _digest(key), self._first, like, low, high)

    def _hash(self, purpose: str, row: int) -> int:
        return int.from_bytes(_digest((*self._key, purpose, row))[:8], "little") >> 1


def _check_names(names: tuple[int | str, ...]) -> Key:
    if _PLAIN.issuperset(map(type, names)):
        return names
    # a key is hashed by its `repr`, in which subclasses of str have their own name: numpy's, members of an Enum
    return tuple(str.__str__(name) if isinstance(name, str) else operator.index(name) for name in names)


def _list_generators() -> list[torch.Generator]:
    """Lists torch's global generators: the CPU's, and those of every device of a kind in use."""
    kinds = [kind for kind in (torch.cuda, torch.xpu) if kind.is_initialized()]
    chip = [torch.mps._get_default_mps_generator()] if torch.backends.mps.is_available() else []
    return [torch.default_generator, *(one for kind in kinds for one in kind.default_generators), *chip]


def _digest(key: Key) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
