"""Interruption: after the first Ctrl-C the current training step is completed, the second stops at once.

SIGTERM and SIGUSR1, by which clusters announce that a job's time ends, do the same. Of several processes, all stop at
the same step if any was asked to.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["SIGNALS", "Stopped", "catch_interrupt"]

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""The signals that ask training to stop; Windows lacks some."""


class Stopped(KeyboardInterrupt):
    """Training was interrupted, and a checkpoint was saved."""


@contextmanager
def catch_interrupt() -> Iterator[threading.Event]:
    """Turns the first signal into an event, so that the current step can be completed; the second acts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}  # None is a handler in C

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        event.set()
        restore()

    try:
        for number in SIGNALS:
            signal.signal(number, ask)
        yield event
    finally:
        restore()
