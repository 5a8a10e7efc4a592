"""Loading plug-ins, whose code runs on import: what is being loaded is named, and stdout stays a command's own.

Not everything can be caught: code that ends the process from C leaves nothing that could be said afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from modkit.escapes import escape_controls

__all__ = ["guard_loading", "watch_loading"]

_PATIENCE = 5.0  # seconds
_logger = logging.getLogger(__name__)
_current: list[str] = []  # what is being loaded, the innermost last


@contextmanager
def watch_loading() -> Iterator[None]:
    """Logs a warning as soon as loading takes long, and after each further five seconds, with what is being loaded."""
    ended = threading.Event()

    def tell() -> None:
        told = ""
        while not ended.wait(_PATIENCE):
            if _current and _current[-1] != told:
                told = _current[-1]
                _logger.warning("%s", escape_controls(f"plug-ins take long to load: waiting for {told}"))

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


@contextmanager
def guard_loading(name: str) -> Iterator[None]:
    """Keeps the code of a plug-in from disturbing the process that imports it.

    What it prints goes to stderr. If it forks, the child ends here, as does `os._exit` in place of the process.

    Args:
        name: What is loaded, and how it is left out.

    Raises:
        KeyboardInterrupt: If it is interrupted; it names what was being loaded.
        SystemExit: If it calls `os._exit`.
    """
    process, leave = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    _current.append(name)
    os._exit = refuse
    try:
        with _keep_stdout():
            yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"interrupted while loading {name}") from error
    finally:
        if os.getpid() != process:
            leave(0)
        os._exit = leave
        _current.pop()


@contextmanager
def _keep_stdout() -> Iterator[None]:
    """Sends to stderr what Python, C and other programs write to stdout, and opens it again if they close it."""
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # the process has none
        kept = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
