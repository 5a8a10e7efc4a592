r"""Equalised learning rate: weights of unit variance that are scaled where they are used.

    W = gain W_hat / sqrt(fan_in),   b = gain b_hat,   W_hat ~ N(0, 1 / gain^2)

An optimizer whose steps do not depend on the scale of gradients, such as Adam, then changes every layer at the same
relative speed, and at `gain` times that speed where a gain is given.

References:
    Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., 2018), section 4.1,
    https://arxiv.org/abs/1710.10196
    A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., 2019), appendix C: the
    mapping's rate, https://arxiv.org/abs/1812.04948
"""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["equalize"]

M = TypeVar("M", bound=nn.Module)


def equalize(module: M, *, gain: float = 1.0) -> M:
    """Equalises every layer in a module, in place; biases start at zero.

    Args:
        module: A linear layer, a convolution, or a module with some inside.
        gain: Relative speed of learning.

    Examples:
        >>> layer = equalize(nn.Linear(100, 200), gain=0.01)
        >>> original = layer.parametrizations.weight.original
        >>> bool((90 < original.std()) & (original.std() < 110)), bool((layer.weight.std() - 0.1).abs() < 0.01)
        (True, True)
    """
    for layer in list(module.modules()):
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.normal_(layer.weight, std=1 / gain)
            parametrize.register_parametrization(layer, "weight", _Scale(gain / math.sqrt(layer.weight[0].numel())))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
                parametrize.register_parametrization(layer, "bias", _Scale(gain))
    return module


class _Scale(nn.Module):
    """Multiplies a parameter."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, parameter: Tensor) -> Tensor:
        """Computes the value that is used."""
        return parameter * self.factor
