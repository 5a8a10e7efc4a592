"""What a start costs: whole processes, medians, with no plug-in more than is installed and with 20.

    python -m tests.benchmarks.start [--runs N] [--plugins N]

Commands take turns, after a start of each that leaves compiled files behind.
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

from tests.plugin_factory import make_plugin

ROOT = Path(__file__).parents[2]
LIST = "import sys; from modkit.cli.app import main; sys.argv[1:] = ['list', '--json']; main()"
COMMANDS = {"python": "pass", "import torch": "import torch", "import modkit": "import modkit", "modkit list": LIST}


def seconds(code: str, *path: Path) -> float:
    """Seconds of a process that runs `code` with `path` before the rest of Python's."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = [entry for entry in (os.environ.get("PYTHONPATH"),) if entry]
    env = {**inherited, "PYTHONPATH": os.pathsep.join([str(ROOT), *map(str, path), *before])}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(*, runs: int = 9, plugins: int = 20) -> dict[str, list[float]]:
    """Seconds of each run of each command."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(plugins):
            make_plugin(Path(folder), f"acme{number}")
        commands = {name: (code,) for name, code in COMMANDS.items()}
        commands[f"modkit list, {plugins} plug-ins more"] = (LIST, Path(folder))
        rounds = [{name: seconds(*command) for name, command in commands.items()} for _ in range(runs + 1)]
    return {name: [found[name] for found in rounds[1:]] for name in commands}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(description="Cost of a start.")
    parser.add_argument("--runs", type=int, default=9, help="starts timed of each, after one that warms up")
    parser.add_argument("--plugins", type=int, default=20, help="throw-away plug-ins")
    given = parser.parse_args(arguments)
    for name, times in measure(runs=given.runs, plugins=given.plugins).items():
        print(f"{name:30} median {statistics.median(times):.3f} s, fastest {min(times):.3f} s")


if __name__ == "__main__":
    main()
