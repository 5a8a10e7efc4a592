"""New virtual environments that see what is installed beside the interpreter that runs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

__all__ = ["Environment"]


class Environment:
    """A virtual environment that sees the packages of this process, so that torch is not installed anew.

    pip works without an index: nothing is downloaded.

    Args:
        folder: Where to; new.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = scripts / "python"
        standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
        seen = [
            entry
            for entry in sys.path
            if Path(entry).is_dir() and entry not in standard and not entry.endswith("lib-dynload")
        ]
        site = sysconfig.get_path("purelib", vars={"base": str(folder)})
        (Path(site) / "seen.pth").write_text("\n".join(seen) + "\n")
        hidden = {"PYTHONPATH", "PYTHONHOME", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"}
        self.variables = {
            **{name: value for name, value in os.environ.items() if name not in hidden},
            "PATH": os.pathsep.join([str(scripts), os.environ.get("PATH", "")]),
            "VIRTUAL_ENV": str(folder),
            "OMP_NUM_THREADS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INDEX": "1",
        }

    def run(self, *arguments: str | Path, at: Path) -> str:
        """Runs `python ARGUMENTS` there, in a folder, and gives what it prints.

        Raises:
            AssertionError: If it fails, with what it said.
        """
        done = subprocess.run(
            [self.python, *arguments], cwd=at, env=self.variables, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"python {' '.join(map(str, arguments))}:\n{done.stdout}\n{done.stderr}"
        return done.stdout
