r"""Inception Score: how certain a classifier is of each sample, and how evenly all samples cover the classes.

    IS = exp E_x KL(p(y|x) || p(y)) = exp(E_x sum_y p(y|x) log p(y|x) - sum_y p(y) log p(y)),   p(y) = E_x p(y|x)

Both terms are sums over samples, so the state is only as large as the number of classes. The score is 1 if all
predictions are the same, and K if they are certain and spread evenly over K classes.

Shape letters: b batch, k classes, s splits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.streaming import Streaming
from modkit.rng import Rng
from modkit.types import PositiveInt, Score, checked

__all__ = ["InceptionScore"]

_GROUPS = 10


class Predictions(NamedTuple):
    """Sums over the samples of each split, float64: their number, `s`, p, `s k`, and sum_y p log p, `s`."""

    counts: Tensor
    p: Tensor
    p_log_p: Tensor


@checked
class InceptionScore(Streaming[Predictions]):
    """Inception Score by the softmax of any classifier: the mean over splits, as is common.

    A hash of a sample's index assigns it to a split, so samples may be sorted by class; splits are about equally large.
    Few samples per split lower the score, so compare scores of equal numbers of samples only. The error is the standard
    error over splits, or the delete-a-group jackknife's if there is only one split.

    References:
        Improved Techniques for Training GANs (Salimans et al., 2016), section 4, https://arxiv.org/abs/1606.03498

    Args:
        splits: Number of splits; 1 scores all samples together.

    Raises:
        ValueError: If `splits` is not positive.

    Examples:
        >>> round(InceptionScore(splits=1).compute(fake=90 * torch.eye(2).repeat(10, 1))["IS"].value, 12)
        2.0
    """

    needs = ("logits",)
    sets = ("fake",)
    better: Literal["lower", "higher"] = "higher"

    def __init__(self, *, splits: PositiveInt = 10) -> None:
        self.splits = splits
        self._groups = splits if splits > 1 else _GROUPS

    def measure(self, values: Mapping[str, Tensor], indices: Tensor) -> Predictions:
        """Sums predictions from `logits`, `b k`.

        Raises:
            ValueError: If they have another rank or a value is NaN.
        """
        logits = values["logits"]
        if logits.ndim != 2 or bool(logits.isnan().any()):
            received = f"shape {tuple(logits.shape)}" if logits.ndim != 2 else "NaN"
            raise ValueError(f"InceptionScore expects logits of shape (b, k) without NaN, got {received}")
        log_p = logits.detach().to("cpu", torch.float64).log_softmax(1)
        p, groups = log_p.exp(), assign_groups(indices, self._groups)
        one_hot = torch.nn.functional.one_hot(groups, self._groups).double().T
        return Predictions(one_hot.sum(1), one_hot @ p, one_hot @ torch.special.entr(p).sum(1).neg())

    def add(self, a: Predictions, b: Predictions) -> Predictions:
        """Adds sums.

        Raises:
            ValueError: If the numbers of classes differ.
        """
        if a.p.shape != b.p.shape:
            raise ValueError(f"InceptionScore expects one number of classes, got {a.p.shape[1]}, {b.p.shape[1]}")
        return Predictions(a.counts + b.counts, a.p + b.p, a.p_log_p + b.p_log_p)

    def result(self, state: dict[str, Predictions], rng: Rng) -> dict[str, Score]:
        """Computes the score `IS`; `rng` is not used."""
        sums = self.find(state, "fake")
        full = [split for split in range(self._groups) if sums.counts[split]]
        if self.splits == 1:
            rest = {group: _select(sums, [other for other in full if other != group]) for group in full}
            value = _compute_score(sums)
            variance = compute_variance(value, lambda group: _compute_score(rest[group]), map(int, sums.counts))
            error = standard_error(variance)
        else:
            scores = torch.tensor([_compute_score(_select(sums, [split])) for split in full], dtype=torch.float64)
            value = float(scores.mean())
            error = float(scores.std()) / math.sqrt(len(scores)) if len(scores) > 1 else None
        counts = {"fake": int(sums.counts.sum())}
        return {"IS": Score(value, error, self.better, counts, settings={"splits": self.splits})}


def _select(state: Predictions, kept: list[int]) -> Predictions:
    return Predictions(*(one[kept] for one in state))


def _compute_score(state: Predictions) -> float:
    """The exponential of the mean KL over all samples of the state."""
    count = state.counts.sum()
    entropy = torch.special.entr(state.p.sum(0) / count).sum()
    return float((state.p_log_p.sum() / count + entropy).exp())
