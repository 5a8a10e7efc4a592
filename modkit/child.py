"""Child processes: each imports what this process would, and nothing from the folder in which it works.

`python -m` and `python -c` put the working folder first on `sys.path`, so that a `json.py` there, a user's own or a
stranger's, takes the place of the standard library's. `-P` would prevent that, but Python 3.10 lacks it; `-I` would
ignore PYTHONPATH as well. Hence a child's first statement sets its path, before anything is imported.
"""

from __future__ import annotations

import sys

__all__ = ["MODKIT", "write_command"]

MODKIT = "from modkit.cli.app import main; main()"
"""The code of the command line."""
_START = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n')"  # sys is compiled in: no file takes its place


def write_command(code: str, *arguments: str) -> list[str]:
    r"""Writes the command that runs code in a new Python, with this process's `sys.path` less the working folder.

    Args:
        code: What it runs.
        arguments: What follows in its `sys.argv`.

    Examples:
        >>> import subprocess
        >>> subprocess.run(write_command("print(sys.argv)", "a", "b"), capture_output=True, text=True).stdout
        "['-c', 'a', 'b']\n"
    """
    path = "\n".join(entry for entry in sys.path if entry)  # an empty entry is the working folder
    return [sys.executable, "-c", f"{_START}\n{code}", path, *arguments]
