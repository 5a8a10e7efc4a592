"""Modules that have weights of a training: another one goes on from them, and initialises nothing from data anew."""

from __future__ import annotations

from torch import nn

from modkit.nn.frozen import is_frozen

__all__ = ["is_trained", "mark_trained"]


def is_trained(part: object) -> bool:
    """Whether a part is a module with weights or buffers, all of which are those of a training; or is a frozen one.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> is_trained(model), is_trained(mark_trained(model)), is_trained(nn.ReLU())
        (False, True, False)
    """
    if not isinstance(part, nn.Module):
        return False
    if is_frozen(part):
        return True
    own = [one for one in part.modules() if one._parameters or one._buffers]
    return bool(own) and all(getattr(one, "trained", False) for one in own)


def mark_trained(module: nn.Module) -> nn.Module:
    """Marks a module, and all modules inside, as having weights of a training; returns it."""
    for one in module.modules():
        one.trained = True  # type: ignore[assignment]
    return module
