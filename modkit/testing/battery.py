"""The battery: every check of a plug-in and of each of its parts, as pytest cases.

    from modkit.testing import parametrize_parts

    @parametrize_parts("acme")
    def test_part(check):
        check()

Checks that are known to fail are listed with the reason, and must then fail:

    @parametrize_parts("acme", expected_failures={"metric acme/timer: deterministic": "it measures time"})
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from modkit.cases.subject import Subject
from modkit.parts.diagnosis import find_flaws
from modkit.parts.discovery import GROUP
from modkit.parts.plugin import Plugin
from modkit.parts.registry import get_registry
from modkit.testing.bench import Bench, Flaw
from modkit.testing.checks import GROUNDS, LONG, is_possible, list_checks
from modkit.testing.isolation import Isolation
from modkit.testing.registration import PluginChecks

__all__ = ["Check", "Checklist", "PartChecks", "make_battery", "parametrize_parts", "find_subjects"]


class Checklist(Protocol):
    """The checks of a part or a plug-in, by name; `reasons` says why some are known to fail."""

    @property
    def subject(self) -> object:
        """What is checked, as messages name it."""

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why checks are known to fail, by name."""

    @property
    def checks(self) -> Mapping[str, object]:
        """The checks by name."""

    def find_flaw(self, name: str) -> Flaw | None:
        """Returns the flaw that a check finds, or None."""

    def find_missing_ground(self, name: str) -> str | None:
        """Returns the first failed check among those that this one depends on, or None."""


class PartChecks:
    """All checks of one part. Each runs at most once, when its result is first needed.

    Args:
        bench: The part's bench.
        isolation: The check that the part reaches nothing outside itself.
        reasons: Why checks are known to fail, by name. Checks that depend on these run nevertheless, except if the part
            cannot be built.
    """

    def __init__(self, bench: Bench, isolation: Isolation, reasons: Mapping[str, str]) -> None:
        self.bench, self.reasons = bench, reasons
        checks = dict(list_checks(bench.case.checks))
        self.checks: dict[str, Callable[[Bench], None]] = {
            "isolation": isolation,
            **{name: check for name, check in checks.items() if is_possible(name)},
        }
        self._found: dict[str, Flaw | None] = {}

    @property
    def subject(self) -> Subject:
        """The part under test."""
        return self.bench.subject

    def find_flaw(self, name: str) -> Flaw | None:
        """Returns the flaw that a check finds, or None."""
        if name not in self._found:
            try:
                self.checks[name](self.bench)
            except Flaw as flaw:
                self._found[name] = flaw
            else:
                self._found[name] = None
        return self._found[name]

    def find_missing_ground(self, name: str) -> str | None:
        """Returns the first failed check among those that this one depends on, or None."""
        grounds = GROUNDS.get(name, ()) if name != "plays" else [one for one in self.checks if one not in LONG | {name}]
        counted = [one for one in grounds if one in self.checks and (one == "builds" or one not in self.reasons)]
        return next((one for one in counted if self.find_flaw(one) is not None), None)


@dataclass(frozen=True)
class Check:
    """One check of a part or a plug-in, run by calling it.

    Args:
        name: The check's name.
        checklist: All checks of the part or plug-in.
    """

    name: str
    checklist: Checklist

    def __str__(self) -> str:
        return f"{self.checklist.subject}: {self.name}"

    def __call__(self) -> None:
        """Runs the check, or skips it if a check that it depends on fails.

        Raises:
            Flaw: If the check finds a flaw, or if a check that is known to fail passes.
        """
        if (ground := self.checklist.find_missing_ground(self.name)) is not None:
            pytest.skip(f"`{ground}` fails")
        flaw, reason = self.checklist.find_flaw(self.name), self.checklist.reasons.get(self.name)
        if reason is None and flaw is not None:
            raise flaw
        if reason is not None and flaw is None:
            raise Flaw(f"{self}: expected to fail ({reason}), but it passes: remove it from `expected_failures`")
        if flaw is not None:
            pytest.xfail(f"{reason}: {flaw}")


def make_battery(parts: Sequence[Subject], expected_failures: Mapping[str, str] | None = None) -> list[Check]:
    """Makes every check of the given parts, after those of the plug-ins that have them.

    Args:
        parts: The parts.
        expected_failures: Reasons by check, `KIND NAME: CHECK`.

    Examples:
        >>> checks = make_battery(find_subjects("modkit")[:1])
        >>> print(checks[1])
        adversarial density-ratio: declaration

    Raises:
        ValueError: If an expected failure does not name a check of these parts.
    """
    reasons = dict(expected_failures or {})
    isolation = Isolation(parts)
    plugins = dict.fromkeys(subject.plugin for subject in parts if subject.plugin is not None)
    lists: list[Checklist] = [PluginChecks(one, _select_under(f"plug-in {one.name}: ", reasons)) for one in plugins]
    lists += [PartChecks(Bench(one), isolation, _select_under(f"{one}: ", reasons)) for one in parts]
    found = [Check(name, checklist) for checklist in lists for name in checklist.checks]
    if unknown := reasons.keys() - set(map(str, found)):
        raise ValueError(f"expected_failures expects existing checks, got {', '.join(sorted(unknown))}")
    return found


def find_subjects(
    plugin: str, params: Mapping[str, Mapping[str, Any]] | None = None, data: str | None = None
) -> list[Subject]:
    """Returns the parts of an installed plug-in as subjects of the battery.

    Args:
        plugin: The plug-in's name, as in its entry point; `modkit` for the library's own parts.
        params: Parameters by `KIND NAME`, for parts that require some or are large without them.
        data: Name of a data set with the fields that parts read: they are also tested on its types and samples.

    Raises:
        ValueError: If the plug-in is not installed or has no parts, `params` names a part that it does not have, or
            there is no such data set.
    """
    registry, given = get_registry(), dict(params or {})
    read = None if data is None else Subject(registry.find("data", data), given.get(f"data {data}", {}))
    if plugin == GROUP:
        owner, declared = None, None
        parts = [entry.part for entry in registry.list_parts() if entry.plugin == GROUP]
    else:
        owner = registry.find_plugin(plugin)
        declared = _find_module(owner)
        parts = [entry.part for entry in registry.list_parts_of(owner)]
    if owner is not None and not parts:
        reasons = "".join(f"; {reason}" for reason in find_flaws(registry, owner))
        raise ValueError(
            f"expected a plug-in with parts, got {plugin!r}, which is {owner.status} and has none{reasons}"
        )
    found = [Subject(part, given.pop(f"{part.kind} {part.name}", {}), declared, owner, read) for part in parts]
    if given:
        raise ValueError(f"params expects parts of {plugin}, got {', '.join(given)}")
    return found


def parametrize_parts(
    plugin: str,
    *,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    data: str | None = None,
) -> pytest.MarkDecorator:
    """Parametrizes a test by `check`: every check of every part of an installed plug-in, and of the plug-in itself.

    Long checks (compilation with inductor) run only under `pytest --full-battery`.

    Args:
        plugin: The plug-in's name, as in its entry point; `modkit` for the library's own parts.
        params: Parameters by `KIND NAME`, for parts that require some or are large without them.
        expected_failures: Reasons by `KIND NAME: CHECK`; these checks must fail.
        data: Name of a data set with the fields that parts read (`acme/discs`): they are also tested on its types and
            samples.

    Returns:
        A decorator.

    Examples:
        >>> @parametrize_parts("modkit")
        ... def test_part(check):
        ...     check()

    Raises:
        ValueError: If the plug-in is not installed or has no parts, or if a key does not name a part or check.
    """
    checks = make_battery(find_subjects(plugin, params, data), expected_failures)
    return pytest.mark.parametrize("check", [pytest.param(one, id=str(one), marks=_get_marks(one)) for one in checks])


def _get_marks(check: Check) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.modkit_long,) if check.name in LONG else ()


def _select_under(prefix: str, reasons: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(prefix): reason for key, reason in reasons.items() if key.startswith(prefix)}


def _find_module(plugin: Plugin) -> str | None:
    """Returns the name of the module that declares a plug-in's parts, or None if it is no module."""
    name = getattr(get_registry().manager.get_plugin(plugin.name), "__name__", None)
    return name if name in sys.modules else None
