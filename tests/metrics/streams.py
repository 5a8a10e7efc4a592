"""Feeds a metric as an evaluation does: in any order and split, over two states that are merged."""

import numpy as np
import torch

from modkit.rng import Rng


def streamed(metric, key, sets, *, order=None, split=1000, seed=0):
    """The scores of `sets`, tensors by name."""
    states = [metric.init(), metric.init()]
    for name, rows in sets.items():
        indices = torch.arange(len(rows)) if order is None else order[order < len(rows)]
        for number, part in enumerate(indices.split(split)):
            states[number % 2] = metric.update(states[number % 2], name, {key: rows[part]}, part)
    return metric.result(metric.merge(*states), Rng(seed))


def values_of(metric, **sets):
    """The values of the scores of whole sets."""
    return {name: score.value for name, score in metric.compute(**sets).items()}


def normal(name, *shape):
    return Rng(0).normal(name, torch.empty(shape))


def shuffled(num):
    return torch.randperm(num, generator=torch.Generator().manual_seed(0))


def error_over_spread(scores):
    """The errors that scores of independent draws give, as a share of how they spread."""
    spread = np.std([score.value for score in scores], ddof=1)
    return np.sqrt(np.mean([score.error**2 for score in scores])) / spread
