"""A shell of a new virtual environment, for pages that install packages: every command is a process of its own.

Nothing is fetched: packages are built by the backend that is installed beside the tests.
"""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

from tests.docs.blocks import ROOT, Block
from tests.docs.reader import Said
from tests.environment import Environment

__all__ = ["Elsewhere"]

_MODKIT = "#!{python}\nfrom modkit.cli.app import main\n\nmain()\n"


class Elsewhere:
    """Carries out a page's commands in a folder, in an environment of its own.

    `installing` and `working` are the seconds of CPU time that pip took, and all else.

    Args:
        top: A folder; `top/modkit`, where commands run, stands for a clone.
    """

    def __init__(self, top: Path) -> None:
        self.folder = top / "modkit"
        self.folder.mkdir()
        (self.folder / "examples").symlink_to(ROOT / "examples")
        environment = Environment(top / "venv")
        script = environment.python.with_name("modkit")
        script.write_text(_MODKIT.format(python=environment.python))
        script.chmod(0o755)
        self._variables = {**environment.variables, "PIP_NO_BUILD_ISOLATION": "0"}  # which turns isolation off
        self.installing = self.working = 0.0

    def command(self, line: str) -> Said:
        """Runs a command, through a shell as a reader would."""
        before = _children()
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        spent = _children() - before
        if line.startswith("python -m pip "):
            self.installing += spent
        else:
            self.working += spent
        print(f"{line}: {spent:.1f} s")
        return Said(done.returncode, done.stdout)

    def check(self, line: str) -> Said:
        """Runs it: here nothing takes long."""
        return self.command(line)

    def written(self, path: Path) -> None:
        """Files are files."""

    def python(self, code: str, block: Block) -> Said:
        """Runs a block in a process of its own."""
        script = self.folder / "block.py"
        script.write_text(code)
        return self.command(f"python {script}")


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
