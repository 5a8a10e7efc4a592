"""Frozen modules: a training leaves their weights and buffers alone, and keeps them in eval mode."""

from __future__ import annotations

from torch import nn

__all__ = ["is_frozen"]


def is_frozen(module: nn.Module) -> bool:
    """Whether a module is frozen: marked so by `frozen`, or with parameters of which none requires gradients.

    Turns of players turn gradients off and on: outside of them, the answer is the user's.

    Examples:
        >>> layer = nn.Linear(2, 2)
        >>> is_frozen(layer), is_frozen(layer.requires_grad_(False)), is_frozen(nn.ReLU())
        (False, True, False)
    """
    if getattr(module, "frozen", False):
        return True
    flags = (one.requires_grad for one in module.parameters())
    return next(flags, None) is False and not any(flags)
