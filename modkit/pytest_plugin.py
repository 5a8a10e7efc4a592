"""modkit's pytest plug-in: a summary of the battery, and fixtures for authors of parts.

    modkit_registry     a registry for one test: `modkit_registry(parts, plugin="acme")` adds a plug-in to it
    modkit_host         `modkit_host(kind, node)` trains a reference host with that part for two steps, returns its run

    --full-battery      also runs the battery's long checks

Tests that use none of these are not affected. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from modkit.kinds import Kind
from modkit.part import Part, hookimpl
from modkit.parts.registry import Registry, get_registry

if TYPE_CHECKING:
    from modkit.runs.run import Run

__all__ = ["modkit_host", "modkit_registry"]

_KEY = "modkit-battery"
_WORDS = {"passed": "ran", "failed": "failed", "xfailed": "expected failures", "skipped": "skipped"}


@pytest.fixture
def modkit_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry]]:
    """Returns a function that adds a plug-in for this test: `modkit_registry(parts, plugin="acme", kinds=())`."""
    made = Registry.load()
    monkeypatch.setattr(Registry, "load", classmethod(lambda cls: made))
    get_registry.cache_clear()

    def add(parts: Sequence[Part], *, plugin: str = "acme", kinds: Sequence[Kind] = ()) -> Registry:
        module = ModuleType(plugin)
        module.modkit_parts = hookimpl(lambda: list(parts))  # type: ignore[attr-defined]
        module.modkit_kinds = hookimpl(lambda: list(kinds))  # type: ignore[attr-defined]
        made.add(plugin, module)
        return made

    yield add
    monkeypatch.undo()
    get_registry.cache_clear()


@pytest.fixture
def modkit_host(tmp_path: Path) -> Callable[..., Run]:
    """Returns a function that trains a reference host for two steps: `modkit_host("sampler", use("acme/fast"))`."""

    def host(kind: str, node: Any) -> Run:
        from modkit.testing.hosts import list_hosts
        from modkit.training.train import train

        spec, path = next(list_hosts(kind))
        return train(spec.with_value(path, node), tmp_path / "run")

    return host


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option `--full-battery`."""
    parser.addoption("--full-battery", action="store_true", help="also run the long checks of modkit's battery")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marker of the battery's long checks."""
    config.addinivalue_line("markers", "modkit_long: a long check of modkit's battery, run with --full-battery")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips the long checks unless `--full-battery` is given."""
    if not config.getoption("--full-battery"):
        for item in items:
            if item.get_closest_marker("modkit_long"):
                item.add_marker(pytest.mark.skip(reason="a long check: run with --full-battery"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Marks the reports of the battery's checks."""
    report = yield
    case = getattr(getattr(item, "callspec", None), "params", {}).get("check")
    if type(case).__module__ == "modkit.testing.battery" and (report.when == "call" or report.outcome == "skipped"):
        report.user_properties.append((_KEY, 1))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints how many checks ran, failed, failed as expected and were skipped."""
    counts = _count_reports(terminalreporter)
    if counts:
        line = ", ".join(f"{counts.get(outcome, 0)} {word}" for outcome, word in _WORDS.items())
        terminalreporter.write_line(f"modkit battery: {line}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a session in which every check of a battery was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    counts = _count_reports(reporter) if reporter else {}
    if counts and set(counts) == {"skipped"} and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _count_reports(reporter: Any) -> dict[str, int]:
    """Counts the reports of the battery's checks by outcome."""
    found = {
        outcome: sum((_KEY, 1) in map(tuple, getattr(report, "user_properties", ())) for report in reports)
        for outcome, reports in reporter.stats.items()
        if outcome in _WORDS
    }
    return {outcome: count for outcome, count in found.items() if count}
