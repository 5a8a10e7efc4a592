"""A state dict that is drawn as an authors' network, written out over its keys, is first evaluated."""

import math

import torch
from torch.nn import functional as F


class Drawn:
    """A state dict that draws each tensor as it is first asked for, and the layers over it."""

    dtype, spread = torch.float64, 16  # a vector's variance is 1 / spread

    def __init__(self, prefix="", seed=0):
        self.prefix, self.tensors, self.rng = prefix, {}, torch.Generator().manual_seed(seed)

    def __call__(self, name, *shape):
        key = self.prefix + name
        if key not in self.tensors:
            fan = math.prod(shape[1:]) if len(shape) > 1 else self.spread
            self.tensors[key] = torch.randn(shape, generator=self.rng, dtype=self.dtype) / math.sqrt(fan)
        assert self.tensors[key].shape == shape, key
        return self.tensors[key]

    def conv(self, x, name, out, kernel=3, stride=1, padding=None, bias=True):
        padding = kernel // 2 if padding is None else padding
        weight = self(f"{name}.weight", out, x.shape[1], kernel, kernel)
        return F.conv2d(x, weight, self(f"{name}.bias", out) if bias else None, stride, padding)

    def linear(self, x, name, out, bias=True):
        y = x @ self(f"{name}.weight", out, x.shape[-1]).T
        return y + self(f"{name}.bias", out) if bias else y

    def norm(self, x, name, tiny=1e-5):
        x, wide = self.whitened(x, tiny), x.shape[1]
        return x * self(f"{name}.weight", wide)[:, None, None] + self(f"{name}.bias", wide)[:, None, None]

    def whitened(self, x, tiny):
        return whitened(x, tiny)


def whitened(x, tiny):
    return F.group_norm(x, min(x.shape[1] // 4, 32), eps=tiny)
