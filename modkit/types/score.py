"""A score: one number that a metric reports, with everything that it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Score"]


@dataclass(frozen=True)
class Score:
    """One number that a metric reports, with everything that it depends on.

    Args:
        value: The number.
        error: Its standard error, or None if there is no estimate.
        better: Which direction is better, or None if neither is.
        counts: Number of samples by set (`real`, `fake`, `train`).
        seed: Seed of the random draws behind it.
        settings: Other settings that it depends on, such as k, the features or the device; plain JSON.
        details: Additional results, such as operators and sizes; plain JSON.
        warnings: Caveats for the reader.

    Examples:
        >>> a, b = Score(3.2, counts={"fake": 100}), Score(2.9, counts={"fake": 50})
        >>> a.is_comparable_to(b)
        False
    """

    value: float
    error: float | None = None
    better: Literal["lower", "higher"] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def is_comparable_to(self, other: Score) -> bool:
        """Whether two scores of the same name may be ranked: their counts and settings are equal."""
        return self.counts == other.counts and self.settings == other.settings
