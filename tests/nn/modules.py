"""What the tests of networks share: inputs, parameters that are drawn, and layers written out."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.cases.probe import Probe
from modkit.types import Cond, CondType

__all__ = [
    "Written",
    "batch_norm",
    "beside",
    "conditions",
    "convolve",
    "draw",
    "halve",
    "leaky",
    "narrow",
    "normal",
    "randomized",
    "settle",
    "windows",
]


def normal(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conditions(type: CondType, num: int, dtype: torch.dtype = torch.float64) -> Cond:
    """Values of every condition of a type, the same in any dtype."""
    return Probe(num, dtype=dtype).draw_cond(type)


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


def batch_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    axes, shape = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
    mean = x.mean(axes, keepdim=True)
    var = (x - mean).square().mean(axes, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * norm.weight.reshape(shape) + norm.bias.reshape(shape)


def windows(x: Tensor, stride: int) -> Tensor:
    """The 4x4 windows of a padded map, `b c h w 4 4`."""
    return F.pad(x, (1, 1, 1, 1)).unfold(2, 4, stride).unfold(3, 4, stride)


def convolve(layer: nn.Conv2d, x: Tensor, stride: int = 2) -> Tensor:
    """A 4x4 convolution of padding 1 as an explicit sum over windows."""
    y = torch.einsum("bchwij,ocij->bohw", windows(x, stride), layer.weight)
    return y if layer.bias is None else y + layer.bias[:, None, None]


def halve(x: Tensor) -> Tensor:
    """The FIR filter of StyleGAN2, and every second pixel of what it gives."""
    taps = torch.tensor([1, 3, 3, 1], dtype=x.dtype) / 8
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, (1, 1, 1, 1)), kernel, stride=2, groups=x.shape[1])


def narrow(wide: nn.Module) -> dict[str, Tensor]:
    """The state of a network of images as that of one of signals: the middle of each kernel."""
    state = wide.state_dict()
    for key, value in state.items():
        while value.ndim > 3:
            value = value[..., value.shape[-1] // 2]
        state[key] = value
    return state


def beside(e: Tensor, z: Tensor, balance: bool) -> Tensor:
    """What a generator concatenates of an embedding with z: scaled to the mean square of normal z, if it balances."""
    return e * (z.shape[1] / (e.square().sum(1, keepdim=True) + 1e-8 * e.shape[1])).sqrt() if balance else e


class Written:
    """Layers written out over a module's parameters, by their names.

    Args:
        module: The module.
        groups: Channels in a group of its norms, or, if negative, minus the number of groups.
        tiny: Added to a group's variance.
    """

    def __init__(self, module: nn.Module, groups: int = 4, tiny: float = 1e-5) -> None:
        self.p, self.groups, self.tiny = dict(module.named_parameters()), groups, tiny

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]

    def mlp(self, x: Tensor, name: str) -> Tensor:
        return self.linear(F.silu(self.linear(x, f"{name}.0")), f"{name}.2")

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int | None = None) -> Tensor:
        weight = self.p[f"{name}.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.p[f"{name}.bias"], stride=stride, padding=padding)

    def norm(self, x: Tensor, name: str) -> Tensor:
        groups = x.shape[1] // self.groups if self.groups > 0 else -self.groups
        return F.group_norm(x, groups, self.p[f"{name}.weight"], self.p[f"{name}.bias"], eps=self.tiny)

    def norm_silu(self, x: Tensor, name: str) -> Tensor:
        return F.silu(self.norm(x, name))

    def block(self, x: Tensor, name: str, e: Tensor | None = None) -> Tensor:
        h = self.norm(self.conv(self.norm_silu(x, f"{name}.norm_1"), f"{name}.conv_1"), f"{name}.norm_2")
        if e is not None:
            scale, shift = self.linear(F.silu(e), f"{name}.film")[..., None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        h = self.conv(F.silu(h), f"{name}.conv_2")
        return h + (self.conv(x, f"{name}.skip") if f"{name}.skip.weight" in self.p else x)

    def attend(self, x: Tensor, name: str, tokens: Tensor | None = None, width: int = 0) -> Tensor:
        width = width or x.shape[1]  # of a head
        positions = self.norm(x, f"{name}.norm").flatten(2).mT
        q = self.linear(positions, f"{name}.query").unflatten(-1, (-1, width))
        source = positions if tokens is None else tokens
        k, v = self.linear(source, f"{name}.key_value").unflatten(-1, (2, -1, width)).unbind(2)
        weights = torch.einsum("bihd,bjhd->bhij", q, k).div(math.sqrt(width)).softmax(-1)
        y = torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2)
        return x + self.linear(y, f"{name}.out").mT.reshape(x.shape)

    def middle(self, x: Tensor) -> Tensor:
        return self.block(self.attend(self.block(x, "middle.0"), "middle.1"), "middle.2")

    def out(self, x: Tensor) -> Tensor:
        return self.conv(self.norm_silu(x, "norm_out"), "conv_out")
