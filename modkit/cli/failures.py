"""Failures on the command line: one message and an exit status.

1  the run failed: a file, a disk, a package that cannot be imported, training
2  the input was invalid and nothing was written
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec

from modkit.cli.output import echo
from modkit.runs.ranks import ProcessError, find_rank

__all__ = ["end", "report_failures"]

P = ParamSpec("P")
_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"


def report_failures(command: Callable[P, None]) -> Callable[P, None]:
    """Turns invalid input into a message and status 2; a failing file, process, import or memory into status 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _show_notices():
                command(*args, **kwargs)
        except ValueError as error:
            end(2, str(error))
        except (OSError, ImportError) as error:
            end(1, str(error))
        except (MemoryError, RuntimeError) as error:
            if (reason := _explain(error)) is None:
                raise
            end(1, reason)

    return run


def _explain(error: MemoryError | RuntimeError) -> str | None:
    """Explains errors that are no fault of the program but do not say so by their class; None for all others.

    torch is not imported here, so its errors are known by name and text. It reports the death of a worker wherever the
    program is at that moment.
    """
    text = " ".join(str(error).split())
    if isinstance(error, ProcessError):
        return text
    if text.startswith("DataLoader worker (pid"):
        return f"a process that reads data has ended; where memory is short, set fewer train.workers, or 0 ({text})"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY in text:
        return f"out of memory: {text or 'try smaller batches or fewer samples'}"
    return None


@contextmanager
def _show_notices() -> Iterator[None]:
    """Shows on stderr what modkit logs, such as parameters that an override dropped when it swapped a part."""
    handler, logger = _Notices(), logging.getLogger("modkit")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Notices(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if find_rank() == 0:
            echo(f"modkit: {record.getMessage()}", err=True)


def end(status: int, message: str) -> NoReturn:
    """Prints a message on stderr and ends the process; what several processes have in common, only the first says."""
    if (rank := find_rank()) == 0:
        echo(f"modkit: {message}", err=True)
    elif status == 1:
        echo(f"modkit: process {rank}: {message}", err=True)
    raise SystemExit(status)
