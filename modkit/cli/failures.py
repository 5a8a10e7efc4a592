"""Failures on the command line: one message and an exit status.

1  the run failed: a file, a disk, training        2  the input was invalid and nothing was written
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec

from modkit.cli.output import echo

__all__ = ["end", "report_failures"]

P = ParamSpec("P")


def report_failures(command: Callable[P, None]) -> Callable[P, None]:
    """Turns an invalid input into a message and exit status 2, a failing file or disk into a message and status 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _show_notices():
                command(*args, **kwargs)
        except ValueError as error:
            end(2, str(error))
        except OSError as error:
            end(1, str(error))

    return run


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
        echo(f"modkit: {record.getMessage()}", err=True)


def end(status: int, message: str) -> NoReturn:
    """Prints a message on stderr and ends the process."""
    echo(f"modkit: {message}", err=True)
    raise SystemExit(status)
