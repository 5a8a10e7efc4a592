"""The check of a plug-in as a whole: `modkit doctor` finds nothing wrong with it.

A part that is misdeclared (an unknown kind, a blank in its name, a name that is taken) is not registered, so that no
check of a part can find it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from modkit.parts.diagnosis import find_flaws
from modkit.parts.plugin import Plugin
from modkit.parts.registry import get_registry
from modkit.testing.bench import Flaw

__all__ = ["PluginChecks"]


class PluginChecks:
    """The checks of one plug-in as a whole.

    Args:
        plugin: The plug-in.
        reasons: Why checks are known to fail, by name.
    """

    def __init__(self, plugin: Plugin, reasons: Mapping[str, str]) -> None:
        self.subject, self.reasons = f"plug-in {plugin.name}", reasons
        self.checks: dict[str, Callable[[], Flaw | None]] = {"doctor": lambda: self._diagnosis}
        self._plugin = plugin

    def find_flaw(self, name: str) -> Flaw | None:
        """Returns the flaw that a check finds, or None."""
        return self.checks[name]()

    def find_missing_ground(self, name: str) -> str | None:
        """Returns None: these checks depend on no others."""
        return None

    @cached_property
    def _diagnosis(self) -> Flaw | None:
        flaws = find_flaws(get_registry(), self._plugin)
        return (
            Flaw(f"{self.subject}: expected `modkit doctor` to find nothing, got {'; '.join(flaws)}") if flaws else None
        )
