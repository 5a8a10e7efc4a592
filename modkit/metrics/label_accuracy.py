"""Label accuracy: how often a classifier recognises in a sample the class that it was conditioned on.

Shape letters: b batch, k classes.

References:
    Classification Accuracy Score (Ravuri and Vinyals, 2019), which trains on samples and tests on data instead,
    https://arxiv.org/abs/1905.10887
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.streaming import Streaming
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["LabelAccuracy"]

_GROUPS = 10


class LabelAccuracy(Streaming[Tensor]):
    """The share of samples whose largest logit is that of their label; requires the features of a classifier.

    Examples:
        >>> values = {"logits": torch.eye(2), "labels": torch.tensor([0, 0])}
        >>> LabelAccuracy().compute(fake=values)["label accuracy"].value
        0.5
    """

    needs = ("logits", "labels")
    sets = ("fake",)
    better: Literal["lower", "higher"] = "higher"

    def measure(self, values: Mapping[str, Tensor], indices: Tensor) -> Tensor:
        """Counts by group, `10 1+k`, the samples that are classified correctly, and the samples of each class.

        Raises:
            ValueError: If a label of `labels`, `b`, is not a class of `logits`, `b k`.
        """
        logits, labels = values["logits"], values["labels"].long()
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
            received = f"{int(labels.min())} to {int(labels.max())}"
            raise ValueError(f"LabelAccuracy expects labels in [0, {logits.shape[1]}), got {received}")
        num = logits.shape[1]
        right = (logits.argmax(1) == labels).long()
        rows = torch.cat([right[:, None], torch.nn.functional.one_hot(labels, num)], 1)
        counts = torch.zeros(_GROUPS, 1 + num, dtype=torch.int64)
        return counts.index_add(0, assign_groups(indices, _GROUPS), rows)

    def result(self, state: dict[str, Tensor], rng: Rng) -> dict[str, Score]:
        """Computes the score `label accuracy`, with a warning if it is no better than chance; `rng` is not used."""
        found = self.find(state, "fake")
        groups = torch.stack([found[:, 0], found[:, 1:].sum(1)], 1).tolist()
        right, count = map(sum, zip(*groups))
        chance = float(found[:, 1:].sum(0).max()) / count
        without = lambda group: (right - groups[group][0]) / (count - groups[group][1])  # noqa: E731
        error = standard_error(compute_variance(right / count, without, (size for _, size in groups)))
        slack = 2 * math.sqrt(chance * (1 - chance) / count)
        warnings = (_warn_of_chance(right / count, chance),) if right / count <= chance + slack < 1 else ()
        return {"label accuracy": Score(right / count, error, self.better, {"fake": count}, warnings=warnings)}


def _warn_of_chance(accuracy: float, chance: float) -> str:
    return (
        f"label accuracy {accuracy:.2g} is no better than always naming the commonest class, {chance:.2g}: the "
        "classifier or the samples do not tell classes apart"
    )
