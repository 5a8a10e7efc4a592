"""What a start costs: whole processes, as they are and with many plug-ins.

    python -m tests.benchmarks.start [--plugins N] [--runs N]

The plug-ins are `modkit new-plugin`'s, as pip leaves them. Commands take turns, after a start of each that leaves
compiled files behind. Processor seconds (user and system) are those of the process alone, which on an idle machine are
its seconds; the fastest of the runs counts least of what else goes on.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from modkit.cli.scaffold import make_files
from modkit.starters import STARTERS
from tests.benchmarks.turns import parse
from tests.plugin_factory import make_plugin

ROOT = Path(__file__).parents[2]
_MODKIT = "import sys; from modkit.cli.app import main; sys.argv[1:] = {!r}; main()"
COMMANDS = {
    "python": "pass",
    "import torch": "import torch",
    "import modkit": "import modkit",
    "modkit --version": _MODKIT.format(["--version"]),
    "modkit list --json": _MODKIT.format(["list", "--json"]),
    "modkit list": _MODKIT.format(["list"]),
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


def cost(code: str, *path: Path) -> Cost:
    """What a process costs that runs `code` with `path` before the rest of Python's."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = [entry for entry in (os.environ.get("PYTHONPATH"),) if entry]
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *map(str, path), *before])
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"expected a process that ends well, got status {process.returncode} of {code}")
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - started)


def measure(*, plugins: int = 200, runs: int = 9) -> dict[str, list[Cost]]:
    """The cost of each run of each command, and of those of modkit with `plugins` more."""
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), plugins)
        commands: dict[str, list[Any]] = {name: [code] for name, code in COMMANDS.items()}
        for name, code in COMMANDS.items():
            if name.startswith("modkit"):
                commands[f"{name}, {plugins} plug-ins more"] = [code, Path(folder)]
        rounds = [{name: cost(*command) for name, command in commands.items()} for _ in range(runs + 1)]
    return {name: [found[name] for found in rounds[1:]] for name in commands}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints medians and the fastest."""
    given = parse(__doc__, arguments, plugins=(200, "plug-ins"), runs=(9, "runs of each command after a first"))
    for name, costs in measure(plugins=given.plugins, runs=given.runs).items():
        used, clock = ([getattr(one, field) for one in costs] for field in Cost._fields)
        print(
            f"{name:38} processor: median {statistics.median(used):.3f} s, least {min(used):.3f} s;"
            f"  clock: median {statistics.median(clock):.3f} s, least {min(clock):.3f} s"
        )


if __name__ == "__main__":
    main()
