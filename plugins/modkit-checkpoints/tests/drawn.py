"""State dicts that are drawn as an authors' network, written out over its keys, is evaluated; and their models."""

import math

import torch
from torch.nn import functional as F

import modkit
from modkit.building.builder import Site
from modkit.building.checker import examine


class Drawn:
    """A state dict that draws each tensor when it is first used, and the layers over it."""

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
        x, wide = self.whiten(x, tiny), x.shape[1]
        return x * self(f"{name}.weight", wide)[:, None, None] + self(f"{name}.bias", wide)[:, None, None]

    def layer_norm(self, x, name):
        wide = x.shape[-1]
        return F.layer_norm(x, (wide,), self(f"{name}.weight", wide), self(f"{name}.bias", wide))

    def whiten(self, x, tiny):
        return F.group_norm(x, min(x.shape[1] // 4, 32), eps=tiny)


def attend(q, k, v, heads=1, mask=False):
    """Attention of `b n c`, whose heads lie one after the other."""
    q, k, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf) if mask else scores
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def double(x):
    return F.interpolate(x, scale_factor=2.0)


def normal(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build_model(conversion, dtype=torch.float64):
    """The model of a conversion, in evaluation; as with what is loaded, its meaning is not refused."""
    with torch.enable_grad():  # the check of losses differentiates
        report = examine(modkit.Spec(**conversion.spec))
    model = Site(report.plan, meta=False).build_model(report.x, report.fields).to(dtype).eval()
    if missing := sorted(set(model.state_dict()) - set(conversion.weights)):
        raise ValueError(f"missing keys: {missing}")
    model.load_state_dict(conversion.weights)
    return model


def same(ours, theirs, tolerance=1e-9):
    """Whether outputs are the same, relative to theirs, which is not small."""
    assert theirs.square().mean().sqrt() > 1e-2
    assert (ours - theirs).norm() <= tolerance * theirs.norm()
