"""Recomputation: a module keeps only its inputs for the backward pass, in which it is computed again.

Memory of activations is traded for a second forward pass (Chen et al., 2016). Gradients stay what they are: dropout
draws the same again, and buffers that the first pass has changed (batch norm's statistics, the vectors of spectral
normalisation) are those from before it.

References:
    Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016), section 3, https://arxiv.org/abs/1604.06174
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["recompute"]


def recompute(module: nn.Module) -> None:
    """Makes a module compute again in the backward pass, in place; its parameters and keys stay the same.

    A module that does so already stays as it is.

    Examples:
        >>> layer = nn.Linear(2, 1)
        >>> recompute(layer)
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> layer.weight.grad
        tensor([[1., 1.]])
    """
    if isinstance(module.forward, partial):
        return
    compute = _compute
    if any(True for _ in module.buffers()):  # the compiler knows no contexts; it still compiles what is called inside
        compute = torch.compiler.disable(_compute_with_buffers, recursive=False)
    module.forward = partial(compute, module, module.forward)  # hooks run around it, and once


def _compute(module: nn.Module, forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)


def _compute_with_buffers(module: nn.Module, forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    contexts = nullcontext(), _Earlier(module)
    return checkpoint(forward, *given, use_reentrant=False, context_fn=lambda: contexts, **named)


class _Earlier:
    """A context in which the buffers of a module are what they were when it was made."""

    def __init__(self, module: nn.Module) -> None:
        self._places = [(one, name) for one in module.modules() for name, _ in one.named_buffers(recurse=False)]
        self._earlier = [one._buffers[name].clone() for one, name in self._places]  # type: ignore[union-attr]

    def __enter__(self) -> None:
        self._later = [one._buffers[name] for one, name in self._places]
        self._set([buffer.clone() for buffer in self._earlier])

    def __exit__(self, *_: object) -> None:
        self._set(self._later)

    def _set(self, buffers: list[Tensor | None]) -> None:
        for (one, name), buffer in zip(self._places, buffers):
            one._buffers[name] = buffer
