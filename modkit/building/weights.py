"""Weights of a part: where they do not fit, it is said which, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from modkit.errors import join_names

__all__ = ["find_misfits", "load_weights"]


def find_misfits(weights: Mapping[str, Tensor], state: Mapping[str, Sequence[int]]) -> list[str]:
    """Finds what is missing in weights, is unknown or has another shape, a line each, with the names.

    Args:
        weights: The weights.
        state: The shapes that are expected, by key.

    Examples:
        >>> import torch
        >>> find_misfits({"w": torch.zeros(2), "c": torch.zeros(1)}, {"w": (3,), "b": (3,)})
        ['1 missing: b', '1 unknown: c', '1 of another shape: w (2,) instead of (3,)']
    """
    misshapen = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(shape)}"
        for key, shape in state.items()
        if key in weights and tuple(weights[key].shape) != tuple(shape)
    ]
    problems = {
        "missing": [key for key in state if key not in weights],
        "unknown": [key for key in weights if key not in state],
        "of another shape": misshapen,
    }
    return [f"{len(keys)} {what}: {join_names(keys)}" for what, keys in problems.items() if keys]


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Loads weights into a part; of what is on the meta device, it is only seen whether they would fit.

    Raises:
        ValueError: If they do not fit.
    """
    found = find_misfits(weights, {key: value.shape for key, value in module.state_dict().items()})
    if not found and any(value.is_meta for value in weights.values()):
        return
    try:
        module.load_state_dict(weights)  # a module may have its own way of loading what is named otherwise
    except RuntimeError as error:
        if not found:
            raise
        raise ValueError(f"it expects weights of its own shapes, got those of {source}: {'; '.join(found)}") from error
