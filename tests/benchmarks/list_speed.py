"""What `modkit list` costs with many plug-ins: whole processes, as JSON and as a table.

    python -m tests.benchmarks.list_speed [--plugins N] [--runs N]

The plug-ins are `modkit new-plugin`'s, as pip leaves them. Processor seconds (user and system) are those of the process
alone, which on an idle machine are its seconds; the fastest of the runs counts least of what else goes on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from modkit.cli.scaffold import STARTERS, make_files
from tests.plugin_factory import make_plugin

__all__ = ["COMMANDS", "Cost", "install", "measure"]

ROOT = Path(__file__).parents[2]
LIST = "import sys; from modkit.cli.app import main; sys.argv[1:] = {arguments!r}; main()"
COMMANDS = {
    "python": "pass",
    "import modkit": "import modkit",
    "modkit --version": LIST.format(arguments=["--version"]),
    "modkit list --json": LIST.format(arguments=["list", "--json"]),
    "modkit list": LIST.format(arguments=["list"]),
}


class Cost(NamedTuple):
    """Of one process.

    Args:
        processor: Seconds of the processor.
        clock: Seconds of the clock.
    """

    processor: float
    clock: float


def install(folder: Path, num: int) -> None:
    """Writes `num` plug-ins into a folder, as pip leaves them: a package each, and a `*.dist-info`."""
    kinds = list(STARTERS)
    for number in range(num):
        name = f"acme{number}"
        package = f"modkit_{name}"
        for path, text in make_files(name, kinds[number % len(kinds)]).items():
            if path.startswith(package):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
        requires = ["modkit-generative<1,>=0.1", "torch>=2.6"]
        make_plugin(folder, name, "", requires=requires, entry_points=f"[modkit]\n{name} = {package}\n")


def cost(code: str, folder: Path) -> Cost:
    """What a process costs that runs `code` with `folder` on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = [entry for entry in (os.environ.get("PYTHONPATH"),) if entry]
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(folder), *before])
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"expected a process that ends well, got status {process.returncode} of {code}")
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - started)


def measure(*, plugins: int = 200, runs: int = 9) -> dict[str, list[Cost]]:
    """The cost of each run of each command; they take turns, after one that leaves compiled files behind."""
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), plugins)
        rounds = [{name: cost(code, Path(folder)) for name, code in COMMANDS.items()} for _ in range(runs + 1)]
    return {name: [found[name] for found in rounds[1:]] for name in COMMANDS}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints medians and the fastest."""
    parser = argparse.ArgumentParser(description="Cost of listing many plug-ins.")
    parser.add_argument("--plugins", type=int, default=200, help="plug-ins")
    parser.add_argument("--runs", type=int, default=9, help="runs of each command, after one that warms up")
    given = parser.parse_args(arguments)
    for name, costs in measure(plugins=given.plugins, runs=given.runs).items():
        used, clock = ([getattr(one, field) for one in costs] for field in Cost._fields)
        print(
            f"{name:20} processor: median {statistics.median(used):.3f} s, least {min(used):.3f} s;"
            f"  clock: median {statistics.median(clock):.3f} s, least {min(clock):.3f} s"
        )


if __name__ == "__main__":
    main()
