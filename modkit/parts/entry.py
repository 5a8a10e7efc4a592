"""An entry of the registry: a part, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from modkit.part import HERE, Part
from modkit.parts.discovery import GROUP
from modkit.parts.registered import PREFIX

__all__ = ["Entry"]


@dataclass(frozen=True)
class Entry:
    """A registered part, and the distribution that provides it."""

    part: Part
    distribution: str
    version: str

    @property
    def plugin(self) -> str:
        """The name of the plug-in that declares it; `modkit` for modkit's own parts, and `HERE` for the process's."""
        plugin, slash, _ = self.part.name.partition("/")
        return plugin if slash else HERE if self.distribution == HERE else GROUP

    @property
    def inherited(self) -> bool:
        """Whether processes that this one starts have it: of the process's own, those in the files of `--parts`."""
        return self.distribution != HERE or self.part.target.startswith(PREFIX)
