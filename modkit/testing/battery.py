"""The battery: every check of every part of a plug-in, as cases for pytest.

    from modkit.testing import parametrize_parts

    @parametrize_parts("acme")
    def test_part(check):
        check()

Checks that are known to fail are named with the reason, and must then fail:

    @parametrize_parts("acme", expected_failures={"metric acme/timer: deterministic": "it measures time"})
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from modkit.cases import CASES
from modkit.cases.subject import Subject
from modkit.part import Part
from modkit.parts.registry import get_registry
from modkit.testing.bench import Bench, Flaw
from modkit.testing.checks import GROUNDS, LONG, is_possible, list_checks
from modkit.testing.isolation import Isolation

__all__ = ["Check", "PartChecks", "make_battery", "parametrize_parts", "find_subjects"]

_BUILT_IN = "modkit"


class PartChecks:
    """All checks of one part; each is made once, when it is first asked for.

    Args:
        bench: The part.
        isolation: The check that it keeps to itself.
        reasons: Why checks are known to fail, by name; others are made all the same, but for those of a part that
            cannot be built.
    """

    def __init__(self, bench: Bench, isolation: Isolation, reasons: Mapping[str, str]) -> None:
        self.bench, self.reasons = bench, reasons
        checks = dict(list_checks(CASES[bench.subject.part.kind].checks))
        self.checks: dict[str, Callable[[Bench], None]] = {
            "isolation": isolation,
            **{name: check for name, check in checks.items() if is_possible(name)},
        }
        self._found: dict[str, Flaw | None] = {}

    def find_flaw(self, name: str) -> Flaw | None:
        """What a check finds, or None."""
        if name not in self._found:
            try:
                self.checks[name](self.bench)
            except Flaw as flaw:
                self._found[name] = flaw
            else:
                self._found[name] = None
        return self._found[name]

    def find_missing_ground(self, name: str) -> str | None:
        """The first check that must hold before this one and does not, or None."""
        grounds = GROUNDS.get(name, ()) if name != "plays" else [one for one in self.checks if one not in LONG | {name}]
        counted = [one for one in grounds if one in self.checks and (one == "builds" or one not in self.reasons)]
        return next((one for one in counted if self.find_flaw(one) is not None), None)


@dataclass(frozen=True)
class Check:
    """One check of one part; call it.

    Args:
        name: The check's name.
        trial: All checks of the part.
    """

    name: str
    trial: PartChecks

    def __str__(self) -> str:
        return f"{self.trial.bench.subject}: {self.name}"

    def __call__(self) -> None:
        """Makes the check, or skips it where another that must hold before does not.

        Raises:
            Flaw: If the check finds a fault, or a check that is known to fail does not.
        """
        if (ground := self.trial.find_missing_ground(self.name)) is not None:
            pytest.skip(f"`{ground}` does not hold")
        flaw, reason = self.trial.find_flaw(self.name), self.trial.reasons.get(self.name)
        if reason is None and flaw is not None:
            raise flaw
        if reason is not None and flaw is None:
            raise Flaw(f"{self}: expected to fail ({reason}), got none: take it off the list")
        if flaw is not None:
            pytest.xfail(f"{reason}: {flaw}")


def make_battery(parts: Sequence[Subject], expected_failures: Mapping[str, str] | None = None) -> list[Check]:
    """Every check of some parts.

    Args:
        parts: The parts.
        expected_failures: Reasons by check, `KIND NAME: CHECK`.

    Raises:
        ValueError: If an expected failure names no check of these parts.
    """
    reasons = dict(expected_failures or {})
    isolation = Isolation(parts)
    found = []
    for subject in parts:
        prefix = f"{subject}: "
        names = [key.removeprefix(prefix) for key in reasons if key.startswith(prefix)]
        trial = PartChecks(Bench(subject), isolation, {name: reasons[prefix + name] for name in names})
        found += [Check(name, trial) for name in trial.checks]
        for name in set(names) & trial.checks.keys():
            del reasons[prefix + name]
    if reasons:
        raise ValueError(f"expected failures of checks that there are, got {', '.join(reasons)}")
    return found


def find_subjects(plugin: str, params: Mapping[str, Mapping[str, Any]] | None = None) -> list[Subject]:
    """The parts of an installed plug-in.

    Args:
        plugin: Its name, as its entry point says; `modkit` for the library's own.
        params: Keywords by `KIND NAME` for parts that need some, or are large without.

    Raises:
        ValueError: If it has no parts, or keywords are given for a part that it has not.
    """
    owned = [entry.part for entry in get_registry().list_parts() if _get_owner(entry.part) == plugin]
    if not owned:
        names = sorted({_get_owner(entry.part) for entry in get_registry().list_parts()})
        raise ValueError(f"expected an installed plug-in with parts, one of {', '.join(names)}, got {plugin!r}")
    given = dict(params or {})
    declared = getattr(get_registry().manager.get_plugin(plugin), "__name__", None)
    declared = declared if declared in sys.modules else None
    found = [Subject(part, given.pop(f"{part.kind} {part.name}", {}), declared) for part in owned]
    if given:
        raise ValueError(f"expected keywords for parts of {plugin}, got some for {', '.join(given)}")
    return found


def parametrize_parts(
    plugin: str,
    *,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Any:
    """Parametrizes a test by `check`: every check of every part of an installed plug-in.

    Args:
        plugin: Its name, as its entry point says; `modkit` for the library's own.
        params: Keywords by `KIND NAME` for parts that need some, or are large without.
        expected_failures: Reasons by `KIND NAME: CHECK`; such a check must fail.

    The long checks (the compiler's inductor) are made under `pytest --full-battery`.

    Returns:
        A decorator.

    Raises:
        ValueError: If there is no such plug-in or it has no parts, or a key names nothing.
    """
    checks = make_battery(find_subjects(plugin, params), expected_failures)
    return pytest.mark.parametrize("check", [pytest.param(one, id=str(one), marks=_get_marks(one)) for one in checks])


def _get_marks(check: Check) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.modkit_long,) if check.name in LONG else ()


def _get_owner(part: Part) -> str:
    return part.name.partition("/")[0] if "/" in part.name else _BUILT_IN
