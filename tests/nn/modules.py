"""What the tests of networks share: inputs, parameters that are drawn, and layers written out."""

import torch
from torch import Tensor, nn

__all__ = ["batch_norm", "draw", "leaky", "normal", "randomized", "settle"]


def normal(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomized(module: nn.Module, scale: float, seed: int = 1) -> nn.Module:
    """The module with every parameter drawn, so that no zero hides a path."""
    draws = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(std=scale, generator=draws)
    return module


def draw(module: nn.Module, seed: int = 0, scale: float = 0.2) -> nn.Module:
    """The module in float64, drawn."""
    return randomized(module.double(), scale, seed)


def settle(module: nn.Module, *args: object) -> nn.Module:
    """The module in eval mode, after enough passes that batch norms and spectral norms fit its weights."""
    for _ in range(50):
        module(*args)
    return module.eval()


def leaky(v: Tensor) -> Tensor:
    return torch.where(v > 0, v, 0.2 * v)


def batch_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    var = (x - mean).square().mean((0, 2, 3), keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
