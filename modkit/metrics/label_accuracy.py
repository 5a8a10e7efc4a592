"""Label accuracy: how often a classifier recognises in a sample the class that it was conditioned on.

Shape letters: b batch, k classes.

References:
    Classification Accuracy Score (Ravuri and Vinyals, 2019), which trains on samples and tests on data instead,
    https://arxiv.org/abs/1905.10887
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, jackknife_variance, standard_error
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["LabelAccuracy"]

_GROUPS = 10


class LabelAccuracy:
    """The share of samples whose largest logit is that of their label; requires the features of a classifier.

    Examples:
        >>> metric = LabelAccuracy()
        >>> values = {"logits": torch.eye(2), "labels": torch.tensor([0, 0])}
        >>> metric.result(metric.update(metric.init(), "fake", values, torch.arange(2)), Rng(0))["label accuracy"].value
        0.5
    """

    needs = ("logits", "labels")
    sets = ("fake",)
    better: Literal["higher"] = "higher"

    def init(self) -> Tensor:
        """Returns zero counts by group, `10 2`: of correctly classified samples, and of all samples."""
        return torch.zeros(_GROUPS, 2, dtype=torch.int64)

    def update(self, state: Tensor, set: str, values: Mapping[str, Tensor], indices: Tensor) -> Tensor:
        """Adds samples to the state: `logits`, `b k`, and `labels`, `b`.

        Raises:
            ValueError: If a label is not a class of the classifier.
        """
        logits, labels = values["logits"], values["labels"].long()
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
            received = f"{int(labels.min())} to {int(labels.max())}"
            raise ValueError(f"LabelAccuracy expects labels in [0, {logits.shape[1]}), got {received}")
        right = (logits.argmax(1) == labels).long()
        return state.index_add(0, assign_groups(indices, _GROUPS), torch.stack([right, torch.ones_like(right)], 1))

    def merge(self, a: Tensor, b: Tensor) -> Tensor:
        """Merges the states of disjoint samples."""
        return a + b

    def result(self, state: Tensor, rng: Rng) -> dict[str, Score]:
        """Computes the score `label accuracy`; `rng` is not used.

        Raises:
            ValueError: If there are no samples.
        """
        right, count = state.sum(0).tolist()
        if not count:
            raise ValueError("LabelAccuracy expects samples, got none")
        groups = [(hits, size) for hits, size in state.tolist() if size and size < count]
        left_out = [(right - hits) / (count - size) for hits, size in groups]
        variance = jackknife_variance(right / count, left_out, [size for _, size in groups])
        return {"label accuracy": Score(right / count, standard_error(variance), self.better, {"fake": count})}
