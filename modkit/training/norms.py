"""Batch normalization whose running statistics are measured: means over the passes that are made.

    mean = 1/K sum_k mean_k,   var = 1/K sum_k var_k        over K forward passes in training mode

Several processes make as many passes each, and the means are taken over all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from modkit.nn.buffer_snapshot import BufferSnapshot
from modkit.nn.compiled import run_uncompiled

__all__ = ["adapt_norms", "find_norms", "measure_norms"]


def find_norms(modules: Iterable[nn.Module]) -> list[_BatchNorm]:
    """Finds the batch normalization that keeps statistics, of some modules, each on its own."""
    return [one for one in modules if isinstance(one, _BatchNorm) and one.running_mean is not None]


@contextmanager
def measure_norms(
    norms: Sequence[_BatchNorm], reduce: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
) -> Iterator[None]:
    """Measures the statistics of batch normalization in the passes that are made in training mode within the context.

    What no pass reaches keeps its statistics; after an error, all do.

    Args:
        norms: The batch normalization; nothing is done if there is none.
        reduce: Computes means over processes.

    Examples:
        >>> import torch
        >>> norm = nn.BatchNorm1d(1)
        >>> with measure_norms([norm], dict):
        ...     _ = norm(torch.tensor([[1.0], [3.0]])), norm(torch.tensor([[3.0], [5.0]]))
        >>> norm.running_mean, norm.running_var, norm.momentum
        (tensor([3.]), tensor([2.]), 0.1)
    """
    if not norms:
        yield
        return
    momenta, held = [norm.momentum for norm in norms], [BufferSnapshot([norm]) for norm in norms]
    reached: list[_BatchNorm] = []
    for one in held:
        one.save()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then keeps the mean over all passes
    try:
        with run_uncompiled():  # a compiled network would be compiled anew for another momentum
            yield
        reached = [norm for norm in norms if norm.num_batches_tracked]
        buffers = [buffer for norm in reached for buffer in norm.buffers(recurse=False) if buffer.is_floating_point()]
        means = reduce({str(number): buffer for number, buffer in enumerate(buffers)})
        for number, buffer in enumerate(buffers):
            buffer.copy_(means[str(number)])
    finally:
        for norm, momentum, one in zip(norms, momenta, held):
            norm.momentum = momentum
            if norm not in reached:
                one.restore()


@contextmanager
def adapt_norms(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Lets batch normalization compute as in training within the context.

    A single value of a channel has no variance: it is normalized by the statistics so far.
    """
    modes = [norm.training for norm in norms]
    hooks = [norm.register_forward_pre_hook(_choose_mode, with_kwargs=True) for norm in norms]
    try:
        yield
    finally:
        for norm, mode, hook in zip(norms, modes, hooks):
            norm.training = mode
            hook.remove()


def _choose_mode(norm: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    (x,) = (*given, *named.values())
    norm.training = x.numel() > x.shape[1]
