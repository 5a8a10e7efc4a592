"""Stateless random numbers: a draw is a function of (seed, names, row), independent of all earlier draws.

An `Rng` consists of a key (a seed followed by names) and the global number of its first row. Drawing does not change
the key. Batches can therefore be split freely into microbatches and over processes, a resumed run draws exactly what an
uninterrupted run would have drawn, and no generator state is saved. Row r of a draw is read at its own counter of a
counter-based generator (Philox; Random123, Salmon et al., 2011) whose key is the hash of the Rng's key:

    words(key, r) = Philox(hash(key))[r * w : (r + 1) * w]        w words per row, padded to whole vector lanes

The Box-Muller transform, which uses a fixed number of words, turns them into normal draws. In CUDA training the
device's own generator draws cells of 16 rows, each seeded by (key, cell), so that a split inside a cell still yields
the same rows.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Rng"]

_CELL = 16
_LANES = 64  # rows are padded to whole vector registers, so that the rounding of an element is independent of the split

Key = tuple[int | str, ...]


class Rng:
    """A source of random draws, each a function of (seed, names, row).

    Each name can be drawn only once for the same rows; further draws need another name or a child (`rng.at(…)`).

    Args:
        *key: The seed, then names and whole numbers.
        first: Global number of the first row drawn here.
        on_device: Whether to draw for CUDA tensors on their device (training); sampling always draws on the CPU.

    Examples:
        >>> rng, x = Rng(0).at("sampler"), torch.empty(4, 2)
        >>> eps = rng.normal("eps", x)
        >>> torch.equal(eps[2:], Rng(0).at("sampler").rows(2).normal("eps", x[2:]))
        True

    Raises:
        ValueError: From a draw, if its name was drawn before for the same rows.
    """

    def __init__(self, *key: int | str, first: int = 0, on_device: bool = False) -> None:
        self._key: Key = _check_names(key)
        self._first = first
        self._on_device = on_device
        self._drawn: set[tuple[Key, int]] = set()

    def __repr__(self) -> str:
        return f"Rng({', '.join(map(repr, self._key))}, first={self._first})"

    def at(self, *names: int | str) -> Rng:
        """Returns a child with independent draws: use one for each part, nested Model, player or step."""
        return self._derive((*self._key, *_check_names(names)), self._first)

    def rows(self, first: int) -> Rng:
        """Returns the same source with its first row moved on by `first`."""
        return self._derive(self._key, self._first + first)

    def normal(self, name: str, like: Tensor) -> Tensor:
        """Draws from a standard normal, with the shape, dtype and device of `like`, `b ...`.

        Row i of the result is global row `first + i`. Every dtype receives the same noise, rounded, so that a float64
        model can be compared with a float32 model.
        """
        return self._draw(name, like, _make_normal, lambda x, g: x.normal_(generator=g))

    def uniform(self, name: str, like: Tensor) -> Tensor:
        """Draws uniformly from [0, 1), with the shape, dtype and device of `like`, `b ...`."""
        return self._draw(name, like, _make_uniform, lambda x, g: x.uniform_(generator=g))

    def integers(self, name: str, like: Tensor, low: int, high: int) -> Tensor:
        """Draws int64 integers uniformly from [low, high), with the shape and device of `like`, `b ...`.

        On the CPU, probabilities are equal up to a relative error of (high - low) / 2^32.

        Raises:
            ValueError: If the interval is empty or wider than 2^31.
        """
        if not 0 < high - low <= 2**31:
            raise ValueError(f"Rng.integers expects low < high within 2^31 of each other, got [{low}, {high})")

        def scaled(words: NDArray[np.uint32], size: int) -> NDArray[np.int64]:
            wide = words[:, :size].astype(np.uint64) * np.uint64(high - low)
            return np.asarray((wide >> np.uint64(32)).astype(np.int64) + low)

        like = torch.empty(like.shape, dtype=torch.int64, device=like.device)
        return self._draw(name, like, scaled, lambda x, g: x.random_(low, high, generator=g))

    def make_generators(self, num: int) -> list[torch.Generator]:
        """Returns a seeded CPU generator for each of `num` rows, for libraries that require generators.

        torch uses only 32 bits of a seed on the CPU, so prefer the draws above if many rows must differ.
        """
        return [torch.Generator().manual_seed(self._hash("generator", self._first + i)) for i in range(num)]

    @contextmanager
    def seed_torch(self) -> Iterator[None]:
        """Seeds torch's global generators, which dropout and initialisers use, by this key and first row.

        Their previous states return at the end of the `with` block.
        """
        generators = [torch.default_generator]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
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
        child = Rng(first=first, on_device=self._on_device)
        child._key = key
        child._drawn = self._drawn  # one record for the whole tree, so that two equal children cannot draw one noise
        return child

    def _draw(
        self,
        name: str,
        like: Tensor,
        transform: Callable[[NDArray[np.uint32], int], NDArray[np.generic]],
        fill: Callable[[Tensor, torch.Generator], Tensor],
    ) -> Tensor:
        key = (*self._key, name)
        if (key, self._first) in self._drawn:
            raise ValueError(
                f"{self!r} expects each name to be drawn once, got {name!r} a second time: draw from a child, rng.at(…)"
            )
        self._drawn.add((key, self._first))
        if like.device.type == "meta":
            return torch.empty_like(like)
        if self._on_device and like.device.type == "cuda":
            return _draw_cells(key, self._first, like, fill)
        size = math.prod(like.shape[1:])
        values = transform(_draw_words(_digest(key), self._first, len(like), size), size)
        return torch.from_numpy(values).to(like.device, like.dtype).view(like.shape)

    def _hash(self, purpose: str, row: int) -> int:
        return int.from_bytes(_digest((*self._key, purpose, row))[:8], "little") >> 1


def _check_names(names: tuple[int | str, ...]) -> Key:
    return tuple(name if isinstance(name, str) else operator.index(name) for name in names)


def _digest(key: Key) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=16).digest()


def _draw_words(digest: bytes, first: int, num: int, size: int) -> NDArray[np.uint32]:
    """Draws the raw words of rows [first, first + num), `num w`, with w even and at least `size`."""
    width = -(-max(size, 1) // _LANES) * _LANES
    blocks = width // 8  # a Philox 4x64 block is eight 32-bit words
    philox = np.random.Philox(counter=first * blocks, key=int.from_bytes(digest, "little"))
    return philox.random_raw(num * width // 2).view(np.uint32).reshape(num, width)


def _make_uniform(words: NDArray[np.uint32], size: int) -> NDArray[np.float32]:
    return np.asarray((words[:, :size] >> np.uint32(8)) * np.float32(2**-24), dtype=np.float32)


def _make_normal(words: NDArray[np.uint32], size: int) -> NDArray[np.float32]:
    half = words.shape[1] // 2
    u = (words[:, :half].astype(np.float32) + np.float32(0.5)) * np.float32(2**-32)  # in (0, 1], tails to 6.8 sigma
    angle = (words[:, half:] >> np.uint32(8)).astype(np.float32) * np.float32(2 * math.pi * 2**-24)
    radius = np.sqrt(np.float32(-2) * np.log(u))
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return np.ascontiguousarray(normal[:, :size], dtype=np.float32)


def _draw_cells(key: Key, first: int, like: Tensor, fill: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
    """Draws whole cells of 16 rows on the device of `like` and keeps the requested rows."""
    start = first // _CELL
    stop = -(-(first + len(like)) // _CELL)
    dtype = torch.float32 if like.is_floating_point() else like.dtype  # every dtype gets the same noise
    cell = torch.empty((_CELL, *like.shape[1:]), dtype=dtype, device=like.device)
    generator = torch.Generator(like.device)
    drawn = []
    for index in range(start, stop):
        generator.manual_seed(int.from_bytes(_digest((*key, "cell", index))[:8], "little") >> 1)
        drawn.append(fill(cell.clone(), generator))
    offset = first - start * _CELL
    return torch.cat(drawn)[offset : offset + len(like)].to(like.dtype)
