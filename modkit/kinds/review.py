"""What a part or a Model says of itself before training: facts, and findings where its parts do not suit each other.

Types say what fits; they cannot say that a sampler asks for noise that training never shows. A Model states such things
in `Model.review`, from the members of its parts. `modkit check` prints them. A finding that is `refused` is an error
of the spec; any other is a warning.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

__all__ = ["Fact", "Finding", "Note"]


@dataclass(frozen=True)
class Fact:
    """One line that describes a model.

    Args:
        path: The path of the part that it is about, relative to the Model that states it; empty for the Model itself.
        text: The line.

    Examples:
        >>> Fact("sampler", "20 noise levels").move("model.prior").path
        'model.prior.sampler'
    """

    path: str
    text: str

    def move(self, path: str) -> Fact:
        """Returns the fact as seen from where the Model is at `path`."""
        return replace(self, path=_join(path, self.path))

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@dataclass(frozen=True)
class Finding:
    """Parts that do not suit each other.

    Args:
        path: The path of the part, relative to the Model that states it.
        message: What was received and what was expected.
        overrides: Overrides, relative to the Model, each of which may mend it; those that do not are not shown.
        refused: Whether the model is not to be trained; otherwise the finding is a warning.

    Examples:
        >>> finding = Finding("guidance", "nothing is dropped in training", ("guidance=none",), refused=True)
        >>> print(finding.move("model"))
        model.guidance: nothing is dropped in training (mend it with model.guidance=none)
    """

    path: str
    message: str
    overrides: tuple[str, ...] = ()
    refused: bool = False

    def move(self, path: str) -> Finding:
        """Returns the finding as seen from where the Model is at `path`."""
        overrides = tuple(_join(path, override) for override in self.overrides)
        return replace(self, path=_join(path, self.path), overrides=overrides)

    @property
    def hint(self) -> str | None:
        """The overrides that mend it, in words; None if there is none."""
        return f"mend it with {' or '.join(self.overrides)}" if self.overrides else None

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


Note: TypeAlias = Fact | Finding
"""What `Model.review` yields."""


def _join(path: str, inner: str) -> str:
    return ".".join(name for name in (path, inner) if name)
