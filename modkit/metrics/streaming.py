"""Streaming metrics: the state of each set of samples, updated batch by batch and mergeable in any split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from modkit.rng import Rng
from modkit.types import Score

__all__ = ["Streaming"]

S = TypeVar("S")


class Streaming(Generic[S]):
    """Base of metrics with a state for each set; a subclass says how batches are measured, added and scored."""

    needs: tuple[str, ...] = ("features",)
    sets: tuple[str, ...] = ("real", "fake")
    better: Literal["lower", "higher"] | None = None

    def init(self) -> dict[str, S]:
        """Returns the state of no samples."""
        return {}

    def update(self, state: dict[str, S], set: str, values: Mapping[str, Any], indices: Tensor) -> dict[str, S]:
        """Returns the state with more samples of a set; raises what `measure` and `add` raise."""
        return self.merge(state, {set: self.measure(values, indices)}) if len(indices) else state

    def merge(self, a: dict[str, S], b: dict[str, S]) -> dict[str, S]:
        """Merges the states of disjoint samples; neither changes."""
        return {**a, **b, **{set: self.add(a[set], b[set]) for set in a.keys() & b.keys()}}

    def measure(self, values: Mapping[str, Any], indices: Tensor) -> S:
        """Measures the samples of a batch."""
        raise NotImplementedError

    def add(self, a: S, b: S) -> S:
        """Adds the measurements of disjoint samples of one set, and changes neither.

        They are tensors unless a subclass says otherwise.
        """
        return a + b  # type: ignore[operator]

    def result(self, state: dict[str, S], rng: Rng) -> dict[str, Score]:
        """Computes the scores of a state, by name.

        Raises:
            ValueError: If a set has too few samples for a score.
        """
        raise NotImplementedError

    def find(self, state: dict[str, S], set: str) -> S:
        """Finds the measurements of a set.

        Raises:
            ValueError: If it has no samples.
        """
        if set not in state:
            raise ValueError(f"{type(self).__name__} expects samples of {set!r}, got none")
        return state[set]

    def compute(self, *, rng: Rng | None = None, **sets: Any) -> dict[str, Score]:
        """Computes the scores of whole sets, each given as the value that the metric needs, or a mapping of several.

        Examples:
            >>> from modkit.metrics import Wasserstein
            >>> Wasserstein().compute(real=torch.zeros(20, 1), fake=torch.full((20, 1), 3.0))["W1"].value
            3.0
        """
        state = self.init()
        for set, given in sets.items():
            values = given if isinstance(given, Mapping) else {self.needs[0]: given}
            count = next((len(value) for value in values.values() if hasattr(value, "__len__")), 1)
            state = self.update(state, set, values, torch.arange(count))
        return self.result(state, Rng(0) if rng is None else rng)
