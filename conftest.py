"""What holds for every test: of modkit, of its plug-ins and of the starters.

Each process computes with one thread, subprocesses included, unless OMP_NUM_THREADS says otherwise: the tensors here
are small, and the threads of several workers would wait for each other.
"""

import gc
import importlib.metadata
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from _pytest.terminal import TerminalReporter

PLUGINS = Path(__file__).parent / "plugins"

if "OMP_NUM_THREADS" not in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:  # by another plug-in of pytest: it has counted the cores already
        sys.modules["torch"].set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--wide", action="store_true", help="run all cases, of which a draw by the commit runs by default")
    parser.addoption("--full", action="store_true", help="run the long settings as well; implies --wide")
    parser.addoption("--device", default="cpu", help="where the swap matrix trains")
    parser.addoption("--dtype", default="float32", choices=("float32", "bf16"), help="its precision")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.full_battery |= config.option.full
    config.option.wide |= config.option.full


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from tests.selection import select

    wide, full = config.getoption("--wide"), config.getoption("--full")
    if not full and not any("::" in argument for argument in config.args):
        kept = select(items, wide=wide)
        config.hook.pytest_deselected(items=[*set(items) - set(kept)])
        items[:] = kept
    if not full:
        for item in items:
            if item.get_closest_marker("full"):
                item.add_marker(pytest.mark.skip(reason="a long setting: run with --full"))


class Absent(pytest.Module):
    """A module with tests of a plug-in that is not installed."""

    def collect(self) -> NoReturn:
        pytest.skip(f"{get_plugin(self.path)} is not installed", allow_module_level=True)


def get_plugin(path: Path) -> str | None:
    """Returns the distribution of `plugins/` whose folder a file is in."""
    inside = path.parts[len(PLUGINS.parts) :]
    return inside[0] if inside and path.is_relative_to(PLUGINS) else None


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    plugin = get_plugin(module_path)
    if plugin and not any(importlib.metadata.distributions(name=plugin)):
        return Absent.from_parent(parent, path=module_path)
    return None


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()  # torch and the tests themselves: looking through them in vain took a tenth of the time
    gc.enable()


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


@pytest.fixture(scope="session", autouse=True)
def hasty() -> Iterator[None]:
    """No waiting for the disk: a kill, unlike a power cut, loses nothing that was written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_new_process() -> Iterator[None]:
    """Sampling is measured in the tests' own process, and what the battery isolates plays in a fork.

    `tests/metrics/test_memory.py` and `tests/docs/test_tutorials.py` start Python anew for them.
    """
    from tests.forks import watch_in_fork
    from tests.sampling import sample_here

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modkit.metrics.memory._measure_in_child", sample_here)
        patch.setattr("modkit.testing.isolation._watch", watch_in_fork)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_passes() -> Iterator[None]:
    """Statistics of averaged weights are measured on few batches; `tests/training/test_statistics.py` has them all."""
    from tests.passes import FEW

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modkit.training.statistics.PASSES", FEW)
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """torch's global generators start each test alike."""
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)  # torch.manual_seed formats a stack trace for each other kind of device
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(0)


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """Where to train."""
    return str(pytestconfig.getoption("--device"))


@pytest.fixture(scope="session")
def dtype(pytestconfig: pytest.Config) -> str:
    """In which precision."""
    return str(pytestconfig.getoption("--dtype"))
