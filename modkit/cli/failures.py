"""Failures on the command line: one message, and an exit status that says whose they are.

1  the run failed: a file, a disk, training        2  the input was wrong, and nothing was written
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec

import click

__all__ = ["end", "reported"]

P = ParamSpec("P")


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Turns a user's mistake into one message and exit status 2, a failing file or disk into one and 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _notices():
                command(*args, **kwargs)
        except ValueError as error:
            end(2, str(error))
        except OSError as error:
            end(1, str(error))

    return run


@contextmanager
def _notices() -> Iterator[None]:
    """Shows on stderr what modkit logs: what an override's swap dropped."""
    handler, logger = _Notices(), logging.getLogger("modkit")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Notices(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"modkit: {record.getMessage()}", err=True)


def end(status: int, message: str) -> NoReturn:
    """Prints a message on stderr and ends the process."""
    click.echo(f"modkit: {message}", err=True)
    raise SystemExit(status)
