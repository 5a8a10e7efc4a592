"""Tensors of which each process holds a slice, torch's DTensors: where the slice lies in the whole.

A dimension of n rows over W processes is cut as `Tensor.chunk` does: process r has rows [r c, min((r + 1) c, n)), where
c = ceil(n / W). Over a mesh of several dimensions, each cuts what the one before has left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["Share", "Slice", "assemble", "check_slices", "find_share", "place"]


class Slice(NamedTuple):
    """Where a slice lies.

    Args:
        shape: Shape of the whole tensor.
        offset: Indices of the slice's first element.
    """

    shape: list[int]
    offset: list[int]


class Share(NamedTuple):
    """What this process holds of a tensor.

    Args:
        local: Its slice.
        place: Where the slice lies.
        rank: Number of the process.
        ranks: Numbers of all processes that hold slices.
        repeated: Whether a process before it holds the same slice.
    """

    local: Tensor
    place: Slice
    rank: int
    ranks: frozenset[int]
    repeated: bool


def find_share(value: Tensor) -> Share | None:
    """Finds what this process holds of a tensor; None if it is a plain one.

    Raises:
        ValueError: If the tensor is neither sharded by rows of some dimension nor repeated.
    """
    if (sharded := _as_sharded(value.detach())) is None:
        return None
    from torch.distributed.tensor import Replicate, Shard

    mesh, local, offset, shape = sharded.device_mesh, sharded.to_local(), [0] * value.ndim, list(value.shape)
    coordinate, repeated = mesh.get_coordinate() or [0] * mesh.ndim, False
    for axis, placement in enumerate(sharded.placements):
        if type(placement) is Shard:
            dim, num = placement.dim % value.ndim, shape[placement.dim % value.ndim]
            size = -(-num // mesh.size(axis))
            begin = min(coordinate[axis] * size, num)
            offset[dim], shape[dim] = offset[dim] + begin, min(size, num - begin)
        elif isinstance(placement, Replicate):
            repeated |= coordinate[axis] > 0
        else:
            raise ValueError(f"Checkpoint expects tensors that are sharded or repeated, got one with {placement}")
    if list(local.shape) != shape:
        raise ValueError(f"Checkpoint expects {shape} as the shape of a slice, got {list(local.shape)}")
    return Share(
        local, Slice(list(value.shape), offset), mesh.get_rank(), frozenset(mesh.mesh.flatten().tolist()), repeated
    )


def check_slices(pieces: Sequence[tuple[Tensor, Slice]]) -> None:
    """Checks that slices are those of one tensor.

    Raises:
        ValueError: If they are of different tensors, lie outside the whole, overlap or do not fill it.
    """
    shape, dtype = pieces[0][1].shape, pieces[0][0].dtype
    if any(place.shape != shape or piece.dtype != dtype for piece, place in pieces):
        raise ValueError(f"slices of a tensor of {dtype} and shape {shape} are of another one")
    for piece, (_, offset) in pieces:
        ends = [begin + size for begin, size in zip(offset, piece.shape)]
        inside = all(0 <= begin and end <= size for begin, end, size in zip(offset, ends, shape))
        if not (inside and len(offset) == piece.ndim == len(shape)):
            raise ValueError(f"a slice of shape {list(piece.shape)} at {offset} lies outside a tensor of shape {shape}")
    if (held := sum(piece.numel() for piece, _ in pieces)) != math.prod(shape):
        raise ValueError(f"slices of {held} values do not fill a tensor of shape {shape}")
    corners = _sum_corners([(offset, piece.shape) for piece, (_, offset) in pieces])
    if corners != _sum_corners([([0] * len(shape), shape)]):
        raise ValueError(f"slices of a tensor of shape {shape} overlap, so that they do not fill it")


def assemble(pieces: Sequence[tuple[Tensor, Slice]]) -> Tensor:
    """Assembles a tensor from its slices.

    Raises:
        ValueError: Under the conditions of `check_slices`.

    Examples:
        >>> assemble([(torch.ones(1), Slice([3], [2])), (torch.zeros(2), Slice([3], [0]))])
        tensor([0., 0., 1.])
    """
    check_slices(pieces)
    whole = torch.empty(pieces[0][1].shape, dtype=pieces[0][0].dtype)
    for piece, (_, offset) in pieces:
        part = whole
        for dim, (begin, size) in enumerate(zip(offset, piece.shape, strict=True)):
            part = part.narrow(dim, begin, size)
        part.copy_(piece)
    return whole


def place(value: Tensor, like: Tensor) -> Tensor:
    """Copies a whole tensor to the device and memory format of another one of its shape, and to its slice.

    Args:
        value: The tensor, whole.
        like: A plain tensor, or one of which each process holds a slice; then only this process's is copied.
    """
    share, sharded = find_share(like), _as_sharded(like)
    if share is None or sharded is None:
        return torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
    part = value
    for dim, (begin, size) in enumerate(zip(share.place.offset, share.local.shape)):
        part = part.narrow(dim, begin, size)
    local = torch.empty_like(share.local, dtype=value.dtype, requires_grad=False).copy_(part)
    mesh, placements = sharded.device_mesh, sharded.placements
    made = type(sharded).from_local(
        local, mesh, placements, run_check=False, shape=sharded.shape, stride=sharded.stride()
    )
    return made


def _sum_corners(boxes: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Counter[tuple[int, ...]]:
    """Sums the corners of boxes, given by offset and shape, with alternating signs, and leaves out those that cancel.

    They are the mixed differences of how often each value is covered. Boxes with the same sum cover the same values
    equally often.
    """
    sums: Counter[tuple[int, ...]] = Counter()
    for offset, shape in boxes:
        for ends in product((0, 1), repeat=len(shape)):
            corner = tuple(begin + size * end for begin, size, end in zip(offset, shape, ends))
            sums[corner] += (-1) ** sum(ends)
    return Counter({corner: count for corner, count in sums.items() if count})


def _as_sharded(value: Tensor) -> DTensor | None:
    if type(value) in (Tensor, nn.Parameter):  # without an import of what few trainings need
        return None
    from torch.distributed.tensor import DTensor

    return value if isinstance(value, DTensor) else None
