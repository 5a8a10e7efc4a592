"""Per class: any metric of samples, applied to the samples of each class, and the mean over classes.

Shape letters: b batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from modkit.kinds import Metric, MetricExtras, read_extras
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["PerClass"]

State = dict[int, Any]


class PerClass:
    """The scores of a metric for each class (`FD, class 3`), and their mean (`FD, mean over classes`).

    The error of the mean assumes that classes are independent. Its warnings are those of all classes; of a setting that
    differs between classes it lists their values.

    Args:
        metric: The metric; all that it needs must be given sample by sample.

    Examples:
        >>> from modkit.metrics import LabelAccuracy
        >>> metric, values = PerClass(LabelAccuracy()), {"logits": torch.eye(2), "labels": torch.tensor([0, 1])}
        >>> scores = metric.result(metric.update(metric.init(), "fake", values, torch.arange(2)), Rng(0))
        >>> scores["label accuracy, mean over classes"].value
        1.0
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.needs = (*metric.needs, "labels")
        self.sets = metric.sets
        self.better: Literal["lower", "higher"] | None = metric.better
        extras = read_extras(metric, MetricExtras)
        self.seed, self.refuse, self.enough = extras.seed, extras.refuse, extras.enough

    def init(self) -> State:
        """Returns the state of no samples."""
        return {}

    def update(self, state: State, set: str, values: Mapping[str, Any], indices: Tensor) -> State:
        """The state, in place, with more samples of a set, by their `labels`, `b`."""
        labels = values["labels"]
        for label in labels.unique().tolist():
            rows = labels == label
            part = {need: values[need][rows] for need in self.metric.needs}
            before = state[label] if label in state else self.metric.init()
            state[label] = self.metric.update(before, set, part, indices[rows])
        return state

    def merge(self, a: State, b: State) -> State:
        """Merges the states of disjoint samples."""
        both = {label: self.metric.merge(a[label], b[label]) for label in a.keys() & b.keys()}
        return {**a, **b, **both}

    def place(self, state: State, device: torch.device) -> State:
        """The state, of whose classes scores may be computed on the device."""
        move = read_extras(self.metric, MetricExtras).place
        return state if move is None else {label: move(one, device) for label, one in state.items()}

    def result(self, state: State, rng: Rng) -> dict[str, Score]:
        """Computes the scores of each class, then their means.

        Raises:
            ValueError: If a class cannot be scored; the message names it.
        """
        found: dict[str, list[Score]] = {}
        for label in sorted(state):
            try:
                scores = self.metric.result(state[label], rng.at(label))
            except ValueError as error:
                raise ValueError(f"class {label}: {error}") from error
            for name, score in scores.items():
                found.setdefault(name, []).append(score)
        labels = sorted(state)
        each = {
            f"{name}, class {k}": score for name, all in found.items() for k, score in zip(labels, all, strict=True)
        }
        return {**each, **{f"{name}, mean over classes": _average_scores(scores) for name, scores in found.items()}}


def _average_scores(scores: list[Score]) -> Score:
    errors = [score.error for score in scores if score.error is not None]
    error = math.sqrt(sum(e**2 for e in errors)) / len(scores) if len(errors) == len(scores) else None
    counts = {side: sum(score.counts[side] for score in scores) for side in scores[0].counts}
    value = sum(score.value for score in scores) / len(scores)
    return replace(
        scores[0],
        value=value,
        error=error,
        counts=counts,
        settings=_join_values([score.settings for score in scores]),
        details=_join_values([score.details for score in scores]),
        warnings=tuple(dict.fromkeys(warning for score in scores for warning in score.warnings)),
    )


def _join_values(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins the values of all classes by name: one value if they agree, else a list in the order of the classes."""
    names = dict.fromkeys(name for values in each for name in values)
    lists = {name: [values.get(name) for values in each] for name in names}
    return {name: all[0] if all.count(all[0]) == len(all) else all for name, all in lists.items()}
