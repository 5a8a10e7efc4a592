"""Buffers that are put back as they were: batch norm's statistics after another's turn, or after a skipped step.

A module of which no buffer is in the state dict has only constants (the taps of a filter, a grid): if they changed,
a resumed run would not have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["BufferSnapshot"]


class BufferSnapshot:
    """A snapshot of the buffers of some modules, without constants.

    Args:
        modules: The modules, each on its own: of the modules inside, only those that are given as well.

    Examples:
        >>> norm = nn.BatchNorm1d(2)
        >>> with BufferSnapshot([norm]).keep():
        ...     _ = norm(torch.ones(4, 2))
        >>> norm.running_mean
        tensor([0., 0.])
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        changing = (one for one in modules if one._buffers.keys() - one._non_persistent_buffers_set)
        self.buffers = list({id(value): value for one in changing for value in one.buffers(recurse=False)}.values())
        self._copies = list[tuple[list[Tensor], list[Tensor]]]()

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Puts the buffers back as they were, at the end of the context."""
        self.save()
        try:
            yield
        finally:
            self.restore()

    def save(self) -> None:
        """Remembers the buffers as they are."""
        if not self._copies:
            self._copies = [(group, [torch.empty_like(one) for one in group]) for group in _group(self.buffers)]
        _copy(self._copies)

    def restore(self) -> None:
        """Puts the buffers back as they were when they were last saved."""
        _copy([(copies, group) for group, copies in self._copies])


@torch.no_grad()
def _copy(pairs: Iterable[tuple[list[Tensor], list[Tensor]]]) -> None:
    for sources, targets in pairs:
        torch._foreach_copy_(targets, sources)


def _group(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Groups tensors by dtype: those of one are copied by one launch."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for one in tensors:
        groups.setdefault(one.dtype, []).append(one)
    return groups.values()
