r"""Noise: draws that are functions of a key, a row and a column, the same on every device.

    words(key, r) = Philox_key[r w : (r + 1) w]              the stream's words of row r, w a multiple of 64
    uniform_j     = floor(word_j / 2^8) 2^-24
    integer_j     = low + floor(word_j (high - low) / 2^32)
    normal        = radius cos(angle), radius sin(angle)     the first half of a row, and the second
    radius_j      = sqrt(-2 log((word_j + 1/2) 2^-32)),      angle_j = 2 pi floor(word_{w/2+j} / 2^8) 2^-24

Philox 4x64-10 (Random123, Salmon et al., 2011) gives eight words of 32 bits for each value of its counter. All is
computed in float32 and then rounded, but uniform draws that 16 bits would round to 1 become the largest value below 1.
On a card, words, uniform draws and integers equal the reference's; log, cos and sin may differ in the last bits.

Shape letters: n rows, s columns.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modkit.ops.kernel import Kernel, has_triton, use_device

__all__ = ["Law", "draw_noise", "draw_noise_reference", "make_state"]

KERNEL = Kernel("noise", size="values", smallest=0)  # a copy from the CPU is never faster
Law = Literal["normal", "uniform", "integers"]

_LANES = 64  # rows are padded to whole vector registers, so that the rounding of an element is independent of the split
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64)  # that the kernel stores


def draw_noise(law: Law, key: bytes, first: int, like: Tensor, low: int = 0, high: int = 1) -> Tensor:
    """Draws rows `first`, `first + 1`, … of a stream, with the shape, dtype and device of `like`, `n ...`.

    Where Triton runs, the values are drawn on the device of `like`, without waiting for it. Elsewhere they are drawn on
    the CPU and copied.

    Args:
        law: Standard normal, uniform on [0, 1), or integers from [low, high), at most 2^32 apart.
        key: Key of the stream, 16 bytes.
        first: Number of the first row.
        like: The tensor whose shape, dtype and device the draws have.
        low: Smallest integer.
        high: One more than the largest integer.

    Examples:
        >>> x = draw_noise("uniform", bytes(16), 0, torch.empty(3, 2))
        >>> torch.equal(draw_noise("uniform", bytes(16), 1, x[1:]), x[1:])
        True
    """
    num, size = len(like), math.prod(like.shape[1:])
    if like.device.type != "cpu" and KERNEL.is_due(like, like.numel()):
        state = _copy(make_state(key, first, size), like.device, torch.int64)
        dtype = like.dtype if like.dtype in _DTYPES else torch.float32
        drawn: Tensor = compute_noise(state, num, size, law, low, high, dtype)
        return _cap(drawn, law, like.dtype).to(like.dtype).view(like.shape)
    drawn = draw_noise_reference(_pack(key, first, size), num, size, law, low, high)
    return _copy(_cap(drawn, law, like.dtype), like.device, like.dtype).view(like.shape)


def draw_noise_reference(state: bytes, num: int, size: int, law: str, low: int, high: int) -> Tensor:
    """Draws `n s` in float32, or int64, from the stream of a state."""
    numbers, width = np.frombuffer(state, np.uint64), 8 * _count_blocks(size)
    philox = np.random.Philox(key=numbers[:2], counter=numbers[2:])
    words = philox.random_raw(num * width // 2).view(np.uint32).reshape(num, width)
    return torch.from_numpy(_make_integers(words, size, low, high) if law == "integers" else _MAKE[law](words, size))


def make_state(key: bytes, first: int, size: int) -> Tensor:
    """Makes the state of a stream at row `first` of rows of `size`: two words of key, four of a counter, int64 `6`.

    An op reads its state when it runs, so the draws of a captured graph change with what is copied into it.
    """
    return torch.frombuffer(bytearray(_pack(key, first, size)), dtype=torch.int64)


@torch.library.custom_op("modkit::noise", mutates_args=())
def compute_noise(state: Tensor, num: int, size: int, law: str, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Draws `n s` from the stream of a state, by the kernel where Triton runs."""
    if has_triton(state.device):
        from modkit.ops.noise_triton import launch_noise

        with use_device(state):
            return launch_noise(state, num, size, law, low, high, dtype)
    return draw_noise_reference(state.cpu().numpy().tobytes(), num, size, law, low, high).to(state.device, dtype)


@compute_noise.register_fake
def _allocate(state: Tensor, num: int, size: int, law: str, low: int, high: int, dtype: torch.dtype) -> Tensor:
    return state.new_empty((num, size), dtype=dtype)


def _pack(key: bytes, first: int, size: int) -> bytes:
    return key + (first * _count_blocks(size)).to_bytes(32, "little")


def _count_blocks(size: int) -> int:
    """Counts the Philox blocks of a row, of eight words each."""
    return -(-max(size, 1) // _LANES) * _LANES // 8


def _cap(drawn: Tensor, law: Law, dtype: torch.dtype) -> Tensor:
    """Caps uniform draws at the largest value below 1 of a dtype of few bits, in which some would round to 1."""
    if law != "uniform" or not dtype.is_floating_point or torch.finfo(dtype).bits >= 32:
        return drawn
    return drawn.clamp_max(1 - torch.finfo(dtype).eps / 2)


def _copy(values: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copies to a device in a dtype, without waiting for a card."""
    if device.type == "cuda":
        return values.to(dtype).pin_memory().to(device, non_blocking=True)
    return values.to(device, dtype)


def _make_uniform(words: NDArray[np.uint32], size: int) -> NDArray[np.float32]:
    return np.asarray((words[:, :size] >> np.uint32(8)) * np.float32(2**-24), dtype=np.float32)


def _make_integers(words: NDArray[np.uint32], size: int, low: int, high: int) -> NDArray[np.int64]:
    wide = words[:, :size].astype(np.uint64) * np.uint64(high - low)
    return np.asarray((wide >> np.uint64(32)).astype(np.int64) + low)


def _make_normal(words: NDArray[np.uint32], size: int) -> NDArray[np.float32]:
    half = words.shape[1] // 2
    u = (words[:, :half].astype(np.float32) + np.float32(0.5)) * np.float32(2**-32)  # in (0, 1], tails to 6.8 sigma
    angle = (words[:, half:] >> np.uint32(8)).astype(np.float32) * np.float32(2 * math.pi * 2**-24)
    radius = np.sqrt(np.float32(-2) * np.log(u))
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return np.ascontiguousarray(normal[:, :size], dtype=np.float32)


_MAKE = {"normal": _make_normal, "uniform": _make_uniform}
