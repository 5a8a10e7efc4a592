r"""Inception Score: how certain a classifier is of each sample, and how evenly all samples cover the classes.

    IS = exp E_x KL(p(y|x) || p(y)) = exp(E_x sum_y p(y|x) log p(y|x) - sum_y p(y) log p(y)),   p(y) = E_x p(y|x)

Both terms are sums over samples, so the state is only as large as the number of classes. The score is 1 if all
predictions are the same, and K if they are certain and spread evenly over K classes.

Shape letters: b batch, k classes, s splits.

References:
    Improved Techniques for Training GANs (Salimans et al., 2016), section 4, https://arxiv.org/abs/1606.03498
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, jackknife_variance, standard_error
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["InceptionScore", "inception_score"]

_GROUPS = 10


class Predictions(NamedTuple):
    """Sums over the samples of each split, float64: their number, `s`, p, `s k`, and sum_y p log p, `s`."""

    counts: Tensor
    p: Tensor
    p_log_p: Tensor


def inception_score(logits: Tensor) -> float:
    """Computes the score of all samples as one split, from `logits`, `n k`.

    Raises:
        ValueError: If `logits` has another rank, there is no sample, or a value is NaN.

    Examples:
        Certain predictions, half of each of two classes:

        >>> round(inception_score(torch.tensor([[90.0, 0.0], [0.0, 90.0]])), 12)
        2.0
    """
    if not len(logits):
        raise ValueError("inception_score expects at least one sample, got none")
    return _compute_score(_compute_sums(logits, torch.zeros(len(logits), dtype=torch.int64), 1))


class InceptionScore:
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
        >>> metric, logits = InceptionScore(splits=1), 90 * torch.eye(2).repeat(10, 1)
        >>> state = metric.update(metric.init(), "fake", {"logits": logits}, torch.arange(20))
        >>> round(metric.result(state, Rng(0))["IS"].value, 12)
        2.0
    """

    needs = ("logits",)
    sets = ("fake",)
    better: Literal["higher"] = "higher"

    def __init__(self, *, splits: int = 10) -> None:
        if splits < 1:
            raise ValueError(f"InceptionScore expects splits of at least 1, got {splits}")
        self.splits = splits
        self._groups = splits if splits > 1 else _GROUPS

    def init(self) -> Predictions | None:
        """Returns the state of no samples."""
        return None

    def update(self, state: Predictions | None, set: str, values: Mapping[str, Tensor], indices: Tensor) -> Predictions:
        """Adds samples to the state: `logits`, `b k`.

        Raises:
            ValueError: If the shape differs from that of earlier samples or a value is NaN.
        """
        more = _compute_sums(values["logits"], assign_groups(indices, self._groups), self._groups)
        if state is not None and state.p.shape != more.p.shape:
            raise ValueError(f"InceptionScore expects one number of classes, got {state.p.shape[1]}, {more.p.shape[1]}")
        return more if state is None else _add(state, more)

    def merge(self, a: Predictions | None, b: Predictions | None) -> Predictions | None:
        """Merges the states of disjoint samples."""
        return b if a is None else a if b is None else _add(a, b)

    def result(self, state: Predictions | None, rng: Rng) -> dict[str, Score]:
        """Computes the score `IS`; `rng` is not used.

        Raises:
            ValueError: If there are no samples.
        """
        if state is None or not state.counts.sum():
            raise ValueError("InceptionScore expects samples of 'fake', got none")
        full = [split for split in range(self._groups) if state.counts[split]]
        if self.splits == 1:
            value, error = _compute_score(state), _estimate_error(state, full)
        else:
            scores = torch.tensor([_compute_score(_select(state, [split])) for split in full], dtype=torch.float64)
            value = float(scores.mean())
            error = float(scores.std()) / math.sqrt(len(scores)) if len(scores) > 1 else None
        counts = {"fake": int(state.counts.sum())}
        return {"IS": Score(value, error, self.better, counts, settings={"splits": self.splits})}


def _compute_sums(logits: Tensor, groups: Tensor, num: int) -> Predictions:
    if logits.ndim != 2 or bool(logits.isnan().any()):
        received = f"shape {tuple(logits.shape)}" if logits.ndim != 2 else "NaN"
        raise ValueError(f"InceptionScore expects logits of shape (b, k) without NaN, got {received}")
    log_p = logits.detach().to("cpu", torch.float64).log_softmax(1)
    p = log_p.exp()
    one_hot = torch.nn.functional.one_hot(groups, num).double().T
    return Predictions(one_hot.sum(1), one_hot @ p, one_hot @ torch.special.entr(p).sum(1).neg())


def _add(a: Predictions, b: Predictions) -> Predictions:
    return Predictions(a.counts + b.counts, a.p + b.p, a.p_log_p + b.p_log_p)


def _select(state: Predictions, kept: list[int]) -> Predictions:
    return Predictions(*(one[kept] for one in state))


def _compute_score(state: Predictions) -> float:
    """The exponential of the mean KL over all samples of the state."""
    count = state.counts.sum()
    entropy = torch.special.entr(state.p.sum(0) / count).sum()
    return float((state.p_log_p.sum() / count + entropy).exp())


def _estimate_error(state: Predictions, groups: list[int]) -> float | None:
    left_out = [_compute_score(_select(state, [other for other in groups if other != group])) for group in groups]
    sizes = [int(state.counts[group]) for group in groups]
    return standard_error(jackknife_variance(_compute_score(state), left_out, sizes)) if len(groups) > 1 else None
