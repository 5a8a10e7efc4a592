"""Where training stands: what a checkpoint stores of it, beside weights and optimizer states."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modkit.types import Score

__all__ = ["Cursor", "find_title"]


@dataclass
class Cursor:
    """The position of training, stored in each checkpoint as JSON."""

    stage: int = 0
    index: int = 0
    step: int = 0
    averaged: int = 0
    prepared: list[str] = field(default_factory=list)
    best: float | None = None
    best_name: str | None = None
    watched: list[float] = field(default_factory=list)
    criterion: str | None = None
    recent: dict[str, float] = field(default_factory=dict)

    def watch(self, criterion: str, value: float) -> None:
        """Notes a value of which a low mean makes a checkpoint the best; those of other criteria are forgotten.

        Args:
            criterion: What is watched, with all that its values depend on. Checkpoints of earlier versions do not say
                it, and count as of the first.
            value: The value.
        """
        if self.criterion not in (criterion, None):
            self.best, self.best_name, self.watched = None, None, []
        self.criterion = criterion
        self.watched.append(value)

    def watch_score(self, title: str, score: Score) -> None:
        """Notes a score of the weights as they are now, of which those before it say nothing."""
        criterion = json.dumps([title, score.counts, score.settings], sort_keys=True)
        self.watched = []
        self.watch(criterion, -score.value if score.better == "higher" else score.value)

    def judge(self, name: str) -> None:
        """Makes the checkpoint of this name the best, if what counts since the last one has the lowest mean."""
        if not self.watched:
            return
        mean, self.watched = sum(self.watched) / len(self.watched), []
        if self.best is None or mean < self.best:
            self.best, self.best_name = mean, name

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> Cursor:
        """Reads the position that a checkpoint stores.

        Raises:
            ValueError: If a value has another type, or a position is negative.
        """
        found = cls(**state)
        positions = (found.stage, found.index, found.step, found.averaged)
        values = [*found.watched, *found.recent.values(), *([] if found.best is None else [found.best])]
        named = (name for name in (found.best_name, found.criterion) if name is not None)
        texts = [*found.prepared, *found.recent, *named]
        if any(type(number) is not int or not 0 <= number < 2**63 for number in positions):
            raise ValueError(f"expected the numbers of a stage and a step, got {positions}")
        if any(type(value) not in (int, float) for value in values) or any(type(text) is not str for text in texts):
            raise ValueError("expected numbers and names in the position of training")
        if not isinstance(found.prepared, list) or not isinstance(found.watched, list):
            raise ValueError("expected lists of players and of losses in the position of training")
        return found


def find_title(criterion: str | None) -> str | None:
    """Finds the title of the score that a criterion is of; None if it is of a loss, or there is none.

    Examples:
        >>> find_title('["FD (pixels)", {"fake": 8}, {}]'), find_title("generator/adversarial")
        ('FD (pixels)', None)
    """
    try:
        title, *_ = json.loads(criterion or "")
    except ValueError:
        return None
    return str(title)
