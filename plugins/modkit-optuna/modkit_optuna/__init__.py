"""Searches: sweeps of modkit whose next trial Optuna names, by the scores of the trials before.

Importing this imports neither torch nor optuna.
"""

from __future__ import annotations

from typing import Any

from modkit import hookimpl

__all__ = ["modkit_commands"]


@hookimpl
def modkit_commands(app: Any) -> None:
    """Adds `modkit search`."""
    from modkit_optuna.commands import search_spec

    app.add_command(search_spec)
