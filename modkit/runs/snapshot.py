"""A snapshot: the content of a checkpoint in host memory, taken between two steps and written while training goes on.

What a process writes lies in one region of memory, in the order of its files, which is used again by the next snapshot.
For tensors on CUDA it is page-locked, so that they are copied at the speed of the bus.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from modkit.runs.encoding import Checkpoint, check_name, dump_state
from modkit.runs.slices import Slice, find_share
from modkit.runs.tensors import DTYPES, plan_layout, view_bytes

__all__ = ["Memory", "Snapshot", "TensorFile", "take"]

_ALIGNMENT = 64
_SLACK = 1.1  # how much more memory may be kept than is used
_PORTABLE = 1  # page-locked for all devices


class TensorFile(NamedTuple):
    """A file of tensors.

    Args:
        group: The group of the tensors.
        data: Its content.
        slices: Where those of its tensors lie that are slices.
        frozen: Whether checkpoints share it.
    """

    group: str
    data: memoryview
    slices: Mapping[str, Slice]
    frozen: bool


class Snapshot(NamedTuple):
    """What a process writes of a checkpoint.

    Args:
        parts: Files of tensors, by name.
        keys: The stored key by group and key.
        state: The state, encoded.
        rank: Number of this process.
        ranks: Numbers of all processes that write a part, among them 0, which writes whatever is whole.
    """

    parts: dict[str, TensorFile]
    keys: dict[str, dict[str, str]]
    state: bytes
    rank: int
    ranks: frozenset[int]


class Memory:
    """Host memory for the snapshots of a training, one at a time."""

    def __init__(self) -> None:
        self._data = torch.empty(0, dtype=torch.uint8)
        self._locked = False

    def allocate(self, size: int, lock: bool) -> Tensor:
        """Returns so many bytes.

        Args:
            size: Number of bytes.
            lock: Whether they are to be page-locked, for CUDA.

        Raises:
            MemoryError: If they cannot be page-locked.
        """
        if not size <= len(self._data) <= size * _SLACK or lock != self._locked:
            self.release()
            self._data = torch.empty(size, dtype=torch.uint8)
            if lock:
                status = int(torch.cuda.cudart().cudaHostRegister(self._data.data_ptr(), size, _PORTABLE))
                if status:
                    raise MemoryError(f"{size} bytes of memory cannot be page-locked for a checkpoint: error {status}")
                self._locked = True
        return self._data[:size]

    def release(self) -> None:
        """Frees the memory."""
        if self._locked:
            torch.cuda.cudart().cudaHostUnregister(self._data.data_ptr())
        self._data, self._locked = torch.empty(0, dtype=torch.uint8), False


def take(checkpoint: Checkpoint, memory: Memory, *, whole: bool = True) -> Snapshot:
    """Takes a snapshot; the tensors may change afterwards.

    Args:
        checkpoint: What is to be written.
        memory: Where the snapshot lies, until the next one is taken there.
        whole: Whether this process writes tensors of which every process holds the whole.

    Raises:
        ValueError: If a name is not plain, a value is not a dense tensor, or the state is not plain JSON.

    Examples:
        >>> snapshot = take(Checkpoint({"model": {"w": torch.ones(2)}}), Memory())
        >>> bytes(snapshot.parts["model.safetensors"].data[-8:]) == bytes([0, 0, 128, 63] * 2)
        True
    """
    files: dict[str, _File] = {}
    keys: dict[str, dict[str, str]] = {}
    rank, ranks = 0, frozenset({0})
    for group, tensors in checkpoint.tensors.items():
        check_name("a group's name", group)
        stored, keys[group] = _deduplicate(group, tensors)
        shares = {key: share for key, value in stored.items() if (share := find_share(value))}
        for share in shares.values():
            rank, ranks = share.rank, ranks | share.ranks
        plain = {key: value for key, value in stored.items() if whole and key not in shares}
        kept = {key: value for key, value in plain.items() if key in checkpoint.frozen.get(group, ())}
        mine = {key: share for key, share in shares.items() if not share.repeated and share.local.numel()}
        own = {key: value for key, value in plain.items() if key not in kept}
        own |= {key: share.local for key, share in mine.items()}
        name = f"{group}.{rank}.safetensors" if rank else f"{group}.safetensors"
        files[name] = _File(group, own, {key: share.place for key, share in mine.items()}, False)
        if kept:
            files[f"{group}.frozen.safetensors"] = _File(group, kept, {}, True)
    return Snapshot(_copy(files, memory), keys, dump_state(checkpoint.state), rank, ranks)


class _File(NamedTuple):
    group: str
    tensors: dict[str, Tensor]
    slices: dict[str, Slice]
    frozen: bool


def _copy(files: Mapping[str, _File], memory: Memory) -> dict[str, TensorFile]:
    """Copies tensors into host memory, laid out as in their files."""
    layouts = {name: plan_layout(file.tensors) for name, file in files.items()}
    sizes = [layout.size + -layout.size % _ALIGNMENT for layout in layouts.values()]
    cuda = {value.device for file in files.values() for value in file.tensors.values() if value.is_cuda}
    regions = torch.split(memory.allocate(sum(sizes), bool(cuda)), sizes)
    parts = {}
    for (name, file), layout, region in zip(files.items(), layouts.values(), regions):
        data = view_bytes(region[: layout.size])
        data[: len(layout.header)] = layout.header
        for key, value in file.tensors.items():
            part = region[slice(*layout.places[key])]
            part.view(value.dtype).view(value.shape).copy_(value, non_blocking=value.is_cuda)
        parts[name] = TensorFile(file.group, data, file.slices, file.frozen)
    for device in cuda:
        torch.cuda.current_stream(device).synchronize()
    return parts


def _deduplicate(group: str, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the distinct tensors, and for each key the key under which its tensor is stored."""
    first: dict[object, str] = {}
    keys: dict[str, str] = {}
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise ValueError(f"Checkpoint expects dense tensors with values, got {_describe(value)} at {group}/{key}")
        if key == "__metadata__" or value.dtype not in DTYPES:
            raise ValueError(f"Checkpoint cannot store a tensor of {value.dtype} named {key!r} (group {group})")
        keys[key] = first.setdefault(_identify(value) if value.numel() else key, key)
    return {key: tensors[key].detach() for key in dict.fromkeys(keys.values())}, keys


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"a tensor of {value.layout} on {value.device}"


def _identify(value: Tensor) -> object:
    local = share.local if (share := find_share(value)) else value
    if not local.numel():
        return id(value)
    start, bits = local.untyped_storage().data_ptr(), (local.is_conj(), local.is_neg())
    return local.device, start, local.storage_offset(), local.shape, local.stride(), local.dtype, bits
