"""Samples for metrics, and how they are fed as an evaluation does: in any order and split, over two merged states."""

import numpy as np
import torch

from modkit.rng import Rng


def streamed(metric, key, sets, *, order=None, split=1000, parts=None, seed=0, make=lambda rows: rows, **shared):
    """The scores of `sets`: tensors by name of the set, or tuples of them for several keys, and values that are shared.

    They are given in `order`, `split` at once, or in `parts`, lists of indices; `make` makes what is given of the rows.
    """
    keys = (key,) if isinstance(key, str) else key
    states = [metric.init(), metric.init()]
    for name, given in sets.items():
        values = dict(zip(keys, (given,) if isinstance(key, str) else given, strict=True))
        num = len(next(iter(values.values())))
        indices = torch.arange(num) if order is None else order[order < num]
        for number, part in enumerate(parts or indices.split(split)):
            rows = {one: make(value[part]) for one, value in values.items()}
            states[number % 2] = metric.update(states[number % 2], name, rows | shared, part)
    return metric.result(metric.merge(*states), Rng(seed))


def values_of(metric, **sets):
    """The values of the scores of whole sets."""
    return {name: score.value for name, score in metric.compute(**sets).items()}


def normal(name, *shape, dtype=torch.float32):
    return Rng(0).normal(name, torch.empty(shape, dtype=dtype))


def precise(name, *shape):
    return normal(name, *shape, dtype=torch.float64)


def shuffled(num):
    return torch.randperm(num, generator=torch.Generator().manual_seed(0))


def codes(num, k=12, positions=5, name="x"):
    """How often each sample uses each code; low codes more often, the last never."""
    u = Rng(0).uniform(name, torch.empty(num, positions, dtype=torch.float64))
    found = (u**2 * (k - 1)).long()
    return torch.zeros(num, k, dtype=torch.int64).scatter_add_(1, found, torch.ones_like(found))


def logits(name, num, k=5):
    return 3 * precise(name, num, k)


def pairs(num=30, size=(3, 12, 14), noise=0.1, name="x"):
    """Images and noisy ones, the later the noisier."""
    rng = Rng(0).at(name)
    x = rng.uniform("x", torch.empty(num, *size, dtype=torch.float64)) * 1.8 - 0.9
    scale = noise * (1 + torch.arange(num).double() / num)
    return torch.stack([x, x + scale.view(-1, *[1] * len(size)) * rng.normal("y", x)], 1)


def draw_points(truth, num, *, seed=0, shares=None, scale=1.0):
    """Samples of the truth in float64, of other shares or another width where asked."""
    rng = np.random.default_rng(seed)
    centers = truth.centers.double().numpy()
    which = rng.choice(len(centers), num, p=shares)
    return torch.from_numpy(centers[which] + scale * truth.std * rng.standard_normal((num, centers.shape[1])))


def labelled(i, n):
    """Features and labels of both sides, as many of each class."""
    labels = Rng(0).integers("labels", torch.empty(n), 0, 3)
    sides = (("real", 1.0, labels), ("fake", 1.1, labels[shuffled(n)]))
    return {name: (scale * (normal(name, n, 4) + each[:, None]), each) for name, scale, each in sides}
