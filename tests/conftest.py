"""Options of the test suite."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the long settings, too")
    parser.addoption("--device", default="cpu", help="where the swap matrix trains")
    parser.addoption("--dtype", default="float32", choices=("float32", "bf16"), help="its precision")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.full_battery |= config.option.full


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        for item in items:
            if item.get_closest_marker("full"):
                item.add_marker(pytest.mark.skip(reason="a long setting: run with --full"))


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "swap":
                counts[value[0]] += value[1]
    if counts:
        failed = sum("/swap/" in report.nodeid for report in terminalreporter.getreports("failed"))
        said = ", ".join(f"{counts[name]} {name}" for name in ("ran", "refused", "skipped"))
        terminalreporter.write_line(f"swap matrix: {said}, {failed} failed")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this session's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MODKIT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """Where to train."""
    return str(pytestconfig.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(pytestconfig: pytest.Config) -> str:
    """In which precision."""
    return str(pytestconfig.getoption("--dtype"))
